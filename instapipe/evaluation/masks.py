"""Quality of predicted masks, and masks made worse on purpose.

AP is COCO's (pycocotools). :func:`worsen` makes the errors that segmenters make, one kind at a time, so that the loss
of translation quality can be drawn against the loss of mask quality.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from instapipe.data.noise import holed, moved_outline
from instapipe.structures import BoolMask, Instances, Mask
from instapipe.verdict.matching import LEAST_SIDE, pair

Fault = Literal["none", "erode", "dilate", "holes", "drop", "merge"]
FAULTS: tuple[Fault, ...] = get_args(Fault)


@dataclass(frozen=True, slots=True)
class MaskQuality:
    """ap: COCO mask AP (IoU 0.50:0.95), ap50: at 0.50; -1 where the class never occurs.  iou: mean IoU of the
    matched pairs.  found: share of the listed instances that were matched.  n: listed instances."""

    ap: float
    ap50: float
    iou: float
    found: float
    n: int


def mask_quality(pairs: Sequence[tuple[Instances, Instances]], label: str) -> MaskQuality:
    """How well (listed, predicted) masks of class `label` agree, over photos."""
    listed = [_of(given, label) for given, _ in pairs]
    predicted = [_of(made, label) for _, made in pairs]
    overlaps: list[float] = []
    total = 0
    for given, made in zip(listed, predicted, strict=True):
        total += len(given)
        overlaps += [
            given.masks[i].iou(made.masks[match]) for i, match in enumerate(pair(given, made)) if match is not None
        ]
    ap, ap50 = average_precision(listed, predicted)
    mean = float(np.mean(overlaps)) if overlaps else math.nan
    return MaskQuality(ap, ap50, mean, len(overlaps) / total if total else math.nan, total)


def average_precision(listed: Sequence[Instances], predicted: Sequence[Instances]) -> tuple[float, float]:
    """(AP, AP50) of one class by pycocotools; -1 where nothing is listed."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": i + 1, "height": g.size[0], "width": g.size[1]} for i, g in enumerate(listed)]
    truth: list[dict[str, Any]] = []
    for i, given in enumerate(listed):
        truth += [
            {"id": len(truth) + k + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0, "area": m.area,
             "bbox": _xywh(m), "segmentation": _rle(m)}
            for k, m in enumerate(given.masks)
        ]  # fmt: skip
    guesses = [
        {"image_id": i + 1, "category_id": 1, "score": score, "segmentation": _rle(mask)}
        for i, made in enumerate(predicted)
        for mask, score in zip(made.masks, made.scores, strict=True)
        if mask.area
    ]
    if not truth:
        return -1.0, -1.0
    if not guesses:
        return 0.0, 0.0
    # pycocotools talks on stdout, which belongs to results.
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {"info": {}, "images": images, "annotations": truth, "categories": [{"id": 1, "name": "x"}]}
        reference.createIndex()
        run = COCOeval(reference, reference.loadRes(guesses), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0]), float(run.stats[1])


def worsen(instances: Instances, fault: Fault, amount: float, rng: np.random.Generator) -> Instances:
    """`instances` with one kind of fault; `amount` in [0, 1].

    erode, dilate: by `amount` x 0.2 of the mask's square root of area.  holes: discs that cover about `amount` of it.
    drop: each instance with probability `amount`.  merge: each instance, with probability `amount`, into its nearest
    neighbour.  Instances left without a pixel are gone.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount must lie in [0, 1], got {amount}")
    if fault == "none" or not len(instances):
        return instances
    if fault == "drop":
        return instances.select(i for i in range(len(instances)) if rng.random() >= amount)
    if fault == "merge":
        return _merge(instances, amount, rng)
    shaped = tuple(Mask.from_dense(_reshape(mask, fault, amount, rng)) for mask in instances.masks)
    changed = Instances(instances.size, shaped, instances.labels, instances.scores, instances.numbers)
    return changed.select(i for i, mask in enumerate(shaped) if mask.area)


def _reshape(mask: Mask, fault: Fault, amount: float, rng: np.random.Generator) -> BoolMask:
    if fault == "holes":
        return holed(mask.dense(), amount, rng)
    radius = round(0.2 * amount * math.sqrt(mask.area))
    return moved_outline(mask.dense(), -radius if fault == "erode" else radius)


def _merge(instances: Instances, amount: float, rng: np.random.Generator) -> Instances:
    masks = list(instances.masks)
    gone: set[int] = set()
    for i in range(len(masks)):
        left = [k for k in range(len(masks)) if k != i and k not in gone]
        if i in gone or not left or rng.random() >= amount:
            continue
        middle = _middle(masks[i])
        into = min(left, key=lambda k: float(np.hypot(*(_middle(masks[k]) - middle))))
        masks[into] = Mask.from_dense(masks[into].dense() | masks[i].dense())
        gone.add(i)
    joined = Instances(instances.size, tuple(masks), instances.labels, instances.scores, instances.numbers)
    return joined.select(i for i in range(len(masks)) if i not in gone)


def _middle(mask: Mask) -> np.ndarray[Any, np.dtype[np.float64]]:
    x0, y0, x1, y1 = mask.box
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2])


def large(mask: Mask) -> bool:
    """Whether the instance counts: a side of at least LEAST_SIDE pixels."""
    return max(mask.box[2] - mask.box[0], mask.box[3] - mask.box[1]) >= LEAST_SIDE


def _of(instances: Instances, label: str) -> Instances:
    return instances.select(i for i, name in enumerate(instances.labels) if name == label)


def _xywh(mask: Mask) -> list[float]:
    x0, y0, x1, y1 = mask.box
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]


def _rle(mask: Mask) -> dict[str, Any]:
    from pycocotools import mask as coco

    encoded: dict[str, Any] = coco.encode(np.asfortranarray(mask.dense().astype(np.uint8)))
    return encoded
