"""The verdict on every instance: a pure function of source masks, returned masks and what the judge sees afterwards.

Every listed source instance gets exactly one of

* ``translated``: the judge sees the target where the translator says that it put it;
* ``residual``: the animal is still what it was, or the pipeline never touched it;
* ``merged``: one animal is seen where several were to be;
* ``lost``: nothing is seen there that it could be.

and every animal of the target's class that nobody asked for is ``hallucinated``. The denominator of all shares is the
source instances with a side of at least :data:`LEAST_SIDE`, those included that the pipeline missed: a pipeline gains
nothing by leaving the hard ones out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from instapipe.structures import Instances, Mask

Kind = Literal["translated", "residual", "merged", "lost", "hallucinated"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST_SIDE = 48
"""Pixels: instances whose box is smaller both ways are not counted."""
FOUND_IOU = 0.3
"""A detection is of a mask from this IoU on: the judge's outlines are coarse, and necks and legs are thin."""
COVERED = 0.5
"""A mask is covered by another from this share of its area on."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one source instance, or (`hallucinated`) a detection that belongs to none.

    source: its place in the source instances, None when hallucinated.  detection: the place of the detection that
    decided it, None where there was none.  seen_as, score: that detection's.  iou: of the detection with the
    returned mask (0 where either is missing).  counted: whether it is in the denominator.  touched: whether the
    pipeline returned a mask for it.
    """

    kind: Kind
    source: int | None
    detection: int | None
    seen_as: str | None
    score: float
    iou: float
    counted: bool = True
    touched: bool = True


def pair(listed: Instances, selected: Instances, least: float = 0.5) -> list[int | None]:
    """For each listed instance the place of the one in `selected` that is the same object: one to one, best IoU first.

    Needed where the pipeline worked on masks of its own making.
    """
    table = ious(listed.masks, selected.masks)
    found: list[int | None] = [None] * len(listed)
    for row, column in _assign(table, least):
        found[row] = column
    return found


def judge(
    sources: Instances,
    returned: Sequence[Mask | None],
    detections: Instances,
    *,
    source: str,
    target: str,
) -> list[Verdict]:
    """One verdict per instance of class `source` in `sources`, in their order, then the hallucinated ones.

    sources: all that is known to be in the untranslated photo, other classes included (a giraffe that was there before
    is not hallucinated).  returned: per instance of `sources` the mask that the translator returned, None where it was
    not translated.  detections: the judge's, on the translated photo.

    Raises ValueError where `returned` and `sources` differ in length.
    """
    if len(returned) != len(sources):
        raise ValueError(f"expected {len(sources)} returned masks (None where untouched), got {len(returned)}")
    wanted = [i for i, label in enumerate(sources.labels) if label == source]
    asked = [i for i in wanted if (mask := returned[i]) is not None and mask.area]
    targets = [d for d, label in enumerate(detections.labels) if label == target]
    goals = [_mask(returned[i]) for i in asked]
    seen = [detections.masks[d] for d in targets]
    owned = {asked[row]: targets[column] for row, column in _assign(ious(goals, seen), FOUND_IOU)}
    blobs = _blobs(asked, goals, targets, seen)
    verdicts = [_one(i, sources, returned, detections, source, target, owned, blobs) for i in wanted]
    used = {v.detection for v in verdicts}
    known = [m for i, m in enumerate(sources.masks) if sources.labels[i] == target]
    return verdicts + [
        Verdict("hallucinated", None, d, target, detections.scores[d], 0.0, counted=False)
        for d in targets
        if d not in used and not _explained(detections.masks[d], [*goals, *known])
    ]


def _one(
    i: int,
    sources: Instances,
    returned: Sequence[Mask | None],
    detections: Instances,
    source: str,
    target: str,
    owned: dict[int, int],
    blobs: dict[int, int],
) -> Verdict:
    """The verdict on source instance `i`; `owned`, `blobs`: which target detection is its own, or shared."""
    before, after = sources.masks[i], returned[i]
    counted = max(before.box[2] - before.box[0], before.box[3] - before.box[1]) >= LEAST_SIDE
    touched = after is not None and after.area > 0

    def say(kind: Kind, detection: int | None) -> Verdict:
        if detection is None:
            return Verdict(kind, i, None, None, 0.0, 0.0, counted, touched)
        overlap = detections.masks[detection].iou(after) if after is not None else 0.0
        return Verdict(
            kind, i, detection, detections.labels[detection], detections.scores[detection], overlap, counted, touched
        )

    others = [d for d, label in enumerate(detections.labels) if label != target]
    if not touched:
        painted = [m for m in returned if m is not None and m is not after]
        still = _best(before, [d for d in others if detections.labels[d] == source], detections)
        if still is None and sum(cover(before, m) for m in painted) >= COVERED:
            return say("lost", None)
        return say("residual", still)
    if i in blobs:
        return say("merged", blobs[i])
    goal = _mask(after)
    own = owned.get(i)
    # The same animal under its old name or, seen in its old outline, under any other name is still there.
    rest = _best(goal, [d for d in others if detections.labels[d] == source], detections)
    if rest is None:
        rest = _best(before, others, detections)
    if own is not None and (rest is None or detections.masks[own].iou(goal) >= detections.masks[rest].iou(goal)):
        return say("translated", own)
    if rest is not None:
        return say("residual", rest)
    over = [d for d, label in enumerate(detections.labels) if label == target and d in owned.values()]
    shared = [d for d in over if cover(goal, detections.masks[d]) >= COVERED]
    if shared:
        return say("merged", shared[0])
    return say("lost", _best(goal, others, detections))


def _blobs(asked: list[int], goals: list[Mask], targets: list[int], seen: list[Mask]) -> dict[int, int]:
    """Instances that share one detection which fits their union better than any one of them."""
    found: dict[int, int] = {}
    for d, mask in zip(targets, seen, strict=True):
        inside = [k for k, goal in enumerate(goals) if cover(goal, mask) >= COVERED]
        if len(inside) < 2:
            continue
        union = goals[inside[0]].dense()
        for k in inside[1:]:
            union |= goals[k].dense()
        together = mask.iou(Mask.from_dense(union))
        if together >= FOUND_IOU and together > max(mask.iou(goals[k]) for k in inside):
            found.update({asked[k]: d for k in inside})
    return found


def _explained(mask: Mask, known: list[Mask]) -> bool:
    """Whether a detection is (part of) something that was asked for or there before."""
    return any(mask.iou(other) >= FOUND_IOU or cover(mask, other) >= COVERED for other in known)


def _best(mask: Mask, candidates: list[int], detections: Instances) -> int | None:
    scored = [(mask.iou(detections.masks[d]), d) for d in candidates]
    best = max(scored, default=(0.0, -1))
    return best[1] if best[0] >= FOUND_IOU else None


def _mask(mask: Mask | None) -> Mask:
    if mask is None:
        raise ValueError("expected a mask, got None")
    return mask


def cover(mask: Mask, other: Mask) -> float:
    """Share of `mask` that lies under `other`; 0 for an empty one."""
    return int(np.count_nonzero(mask.crop & other.window(mask.box))) / mask.area if mask.area else 0.0


def ious(rows: Sequence[Mask], columns: Sequence[Mask]) -> NDArray[np.float64]:
    """float64 (len(rows), len(columns))."""
    return np.array([[row.iou(column) for column in columns] for row in rows]).reshape(len(rows), len(columns))


def _assign(table: NDArray[np.float64], least: float) -> list[tuple[int, int]]:
    """Pairs of row and column, one to one, highest value first, none under `least`."""
    pairs: list[tuple[int, int]] = []
    left = table.copy()
    while left.size and left.max() >= least:
        row, column = (int(v) for v in np.unravel_index(int(left.argmax()), left.shape))
        pairs.append((row, column))
        left[row, :], left[:, column] = -1, -1
    return pairs
