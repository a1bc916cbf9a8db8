"""What the judge and the measures say of one case."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instapipe.evaluation.background import Background, background, foreign_colours
from instapipe.evaluation.cases import Case
from instapipe.evaluation.features import cut_out, perceptual_distance
from instapipe.evaluation.tiles import tile
from instapipe.structures import Mask, Pixels
from instapipe.verdict.detector import Judge
from instapipe.verdict.matching import Kind, Verdict, judge

SEAM = 6
"""Pixels around old and new masks that do not count as background: mattes are soft."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredInstance:
    """One row of `instances.csv`.

    number: place in the photo's listed instances; -1 for hallucinated ones.  side, area: of the source mask, pixels.
    count: instances of the source class in the photo.  overlap: of its box with another's, as a share of the smaller
    one.  probability: the crop classifier's of the target, on the returned mask's crop (NaN: not
    translated).  called: the class it gives.  foreign: see :func:`foreign_colours`.
    """

    photo: str
    number: int
    kind: Kind
    seen_as: str
    score: float
    iou: float
    counted: bool
    touched: bool
    side: int
    area: int
    count: int
    overlap: float
    made_by: str
    probability: float
    called: str
    foreign: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCase:
    """All that is kept of a case.

    seen, wanted: animals of the target's class that the judge sees, and that there should be.  whole: the class that
    the classifier gives the whole picture.  crops: the returned instances cut out on grey, uint8 (128, 128, 3), and
    `rows`, which of `instances` they are.  tiles: one for each of `instances`.
    """

    name: str
    instances: tuple[ScoredInstance, ...]
    background: Background
    perceptual: float
    outside_changed: int
    seen: int
    wanted: int
    whole: str
    crops: tuple[Pixels, ...]
    rows: tuple[int, ...]
    tiles: tuple[Pixels, ...]


def score_case(case: Case, witness: Judge, *, source: str, target: str) -> ScoredCase:
    """Everything there is to say about one case, given a judge (`witness`)."""
    target = case.wanted or target
    detections = witness.detect(case.after).instances
    verdicts = judge(case.listed, case.returned, detections, source=source, target=target)
    boxes = [_box(case.returned[v.source]) for v in verdicts if v.source is not None and v.touched]
    said = iter(witness.classify(case.after, boxes))
    names = ("background", *witness.classes)
    at = names.index(target)
    outside = case.outside(SEAM)
    rows: list[ScoredInstance] = []
    crops: list[Pixels] = []
    places: list[int] = []
    for verdict in verdicts:
        probability, called, foreign = math.nan, "", math.nan
        after = case.returned[verdict.source] if verdict.source is not None else None
        if after is not None and verdict.touched and verdict.source is not None:
            chances = next(said)
            probability, called = float(chances[at]), names[int(chances.argmax())]
            old = case.listed.masks[verdict.source].dense()
            foreign = foreign_colours(case.before, case.after, old, _everything_new(case))
            crops.append(cut_out(case.after, after))
            places.append(len(rows))
        rows.append(_row(case, verdict, source, probability, called, foreign))
    before = sum(label == target != source for label in case.listed.labels)
    whole = witness.classify(case.after, [(0, 0, case.after.shape[1], case.after.shape[0])])[0]
    return ScoredCase(
        case.name,
        tuple(rows),
        background(case.before, case.after, outside),
        perceptual_distance(witness, case.before, case.after, outside),
        changed_outside(case),
        sum(label == target for label in detections.labels),
        before + sum(v.source is not None for v in verdicts),
        names[int(whole.argmax())],
        tuple(crops),
        tuple(places),
        tuple(tile(case, verdict, detections) for verdict in verdicts),
    )


def changed_outside(case: Case) -> int:
    """Pixels that differ although the translator declared that they would not: 0, or a defect."""
    different: NDArray[np.bool_] = (case.before != case.after).any(axis=2)
    if case.changed is not None:
        x0, y0, x1, y1 = case.changed.box
        different[y0:y1, x0:x1] &= ~case.changed.crop
    return int(different.sum())


def _everything_new(case: Case) -> NDArray[np.bool_]:
    covered = np.zeros(case.listed.size, dtype=np.bool_)
    for mask in (*(m for m in case.returned if m is not None), *case.extra):
        x0, y0, x1, y1 = mask.box
        covered[y0:y1, x0:x1] |= mask.crop
    return covered


def _row(case: Case, verdict: Verdict, source: str, probability: float, called: str, foreign: float) -> ScoredInstance:
    listed = case.listed
    same = [i for i, label in enumerate(listed.labels) if label == source]
    if verdict.source is None:
        mask, overlap, made_by = None, 0.0, ""
    else:
        mask = listed.masks[verdict.source]
        others = [listed.masks[i] for i in range(len(listed)) if i != verdict.source]
        # Masks seldom overlap where one animal hides another, so nearness counts: boxes, not masks.
        overlap = max((_box_overlap(mask, other) for other in others), default=0.0)
        made_by = case.made_by[verdict.source] if case.made_by else ""
    return ScoredInstance(
        photo=case.name,
        number=-1 if verdict.source is None else verdict.source,
        kind=verdict.kind,
        seen_as=verdict.seen_as or "",
        score=verdict.score,
        iou=verdict.iou,
        counted=verdict.counted,
        touched=verdict.touched,
        side=0 if mask is None else max(mask.box[2] - mask.box[0], mask.box[3] - mask.box[1]),
        area=0 if mask is None else mask.area,
        count=len(same),
        overlap=overlap,
        made_by=made_by,
        probability=probability,
        called=called,
        foreign=foreign,
    )


def _box(mask: Mask | None) -> tuple[int, int, int, int]:
    if mask is None:
        raise ValueError("expected a returned mask, got None")
    return mask.box


def _box_overlap(mask: Mask, other: Mask) -> float:
    """Share of the smaller box that lies in the other one."""
    ax0, ay0, ax1, ay1 = mask.box
    bx0, by0, bx1, by1 = other.box
    inside = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    smaller = min((ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0))
    return inside / smaller if smaller else 0.0
