"""COCO mask AP of a segmenter, by pycocotools: in all, for each class, and for groups of annotations and photos."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from instapipe.errors import UnknownClass
from instapipe.segmentation import Segmenter
from instapipe.segmentation.training.dataset import CocoSet, Record, decode, read_pixels
from instapipe.structures import BoolMask, Photo

CROWD = 4
"""A photo with at least this many instances counts as crowded."""

Member = Callable[[Record, dict[str, Any]], bool]
Scores = dict[str, Any]
"""{"ap": ..., "ap50": ..., "n": instances, "classes": {name: the same}}; AP in [0, 1], None without instances."""


def accuracy(segmenter: Segmenter, data: CocoSet, progress: Callable[[int], None] = lambda done: None) -> Scores:
    """{group: Scores, "photos": number}: ``all``, ``crowded`` (photos with 4 and more), and one group for each
    ``made_by`` in the annotations.

    Annotations outside a group are neither expected nor held against the segmenter. Raises UnknownClass where the
    segmenter lacks a class of the data.
    """
    missing = sorted(set(data.classes) - set(segmenter.classes))
    if missing:
        raise UnknownClass(f"segmenter {segmenter.name!r} has no class {missing[0]!r}")
    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for photo, record in enumerate(data.records):
        for annotation, label in zip(record.annotations, data.labels(record), strict=True):
            truths.append({**encode(decode(annotation, record)), "image_id": photo, "category_id": int(label)})
            truths[-1] |= {"id": len(truths), "iscrowd": 0}
        instances = segmenter.segment(Photo(read_pixels(record), record.path.name, ""))
        for mask, name, score in zip(instances.masks, instances.labels, instances.scores, strict=True):
            if name in data.classes:
                found.append({**encode(mask.dense()), "image_id": photo, "category_id": data.classes.index(name) + 1})
                found[-1] |= {"id": len(found), "iscrowd": 0, "score": score}
        progress(photo + 1)

    groups: dict[str, Member] = {"all": lambda record, annotation: True}
    groups["crowded"] = lambda record, annotation: len(record.annotations) >= CROWD
    makers = {str(a["made_by"]) for record in data.records for a in record.annotations if "made_by" in a}
    for maker in sorted(makers):
        groups[maker] = made_by(maker)
    scores: Scores = {"photos": len(data)}
    for group, member in groups.items():
        inside = [member(record, annotation) for record in data.records for annotation in record.annotations]
        scores[group] = average_precision(data, truths, found, inside)
    return scores


def made_by(maker: str) -> Member:
    """The annotations that `maker` made."""
    return lambda record, annotation: annotation.get("made_by") == maker


def encode(mask: BoolMask) -> dict[str, Any]:
    """Segmentation, box and area, as pycocotools keeps them."""
    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"segmentation": encoded, "bbox": rle.toBbox(encoded).tolist(), "area": float(rle.area(encoded))}


class GroupEvaluation(COCOeval):  # type: ignore[misc]
    """COCO's evaluation of some of the annotations; the others may be found or not.

    `inside`: ids of the annotations that count.
    """

    def __init__(self, truth: COCO, found: COCO, inside: set[int]) -> None:
        super().__init__(truth, found, "segm")
        self._inside = inside
        self.params.areaRng, self.params.areaRngLbl, self.params.maxDets = [[0, 1e10]], ["all"], [100]

    def _prepare(self) -> None:
        super()._prepare()
        for group in self._gts.values():
            for annotation in group:
                annotation["ignore"] = annotation["id"] not in self._inside


def average_precision(
    data: CocoSet, truths: list[dict[str, Any]], found: list[dict[str, Any]], inside: list[bool]
) -> Scores:
    """Scores over the annotations marked `inside`."""
    head: dict[str, Any] = {
        "images": [{"id": i, "height": r.size[0], "width": r.size[1]} for i, r in enumerate(data.records)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(data.classes)],
    }
    tables = COCO(), COCO()
    numbers = [
        sum(i and t["category_id"] == c + 1 for t, i in zip(truths, inside, strict=True))
        for c in range(len(data.classes))
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        for table, annotations in zip(tables, (truths, found), strict=True):
            table.dataset = {**head, "annotations": [dict(a) for a in annotations]}
            table.createIndex()
        evaluation = GroupEvaluation(*tables, {t["id"] for t, i in zip(truths, inside, strict=True) if i})
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]  # (thresholds from 0.5, recalls, classes); -1: no instance

    def mean(values: Any) -> float | None:
        known = values[values > -1]
        return round(float(known.mean()), 4) if known.size else None

    by_class = {
        name: {"ap": mean(precision[:, :, i]), "ap50": mean(precision[0, :, i]), "n": numbers[i]}
        for i, name in enumerate(data.classes)
    }
    return {"ap": mean(precision), "ap50": mean(precision[0]), "n": sum(numbers), "classes": by_class}
