"""What a segmenter gets wrong, in the terms in which training can do the same to good masks (`data/noise.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from instapipe.data.noise import MaskNoise
from instapipe.errors import DataError
from instapipe.structures import BoolMask, Instances, Mask
from instapipe.verdict.matching import COVERED, cover, pair

QUANTILES = 21
_PIECE = 0.06
"""What is missing counts as a hole where a disc of this radius, over the square root of the area, fits into it; less is
the outline's offset."""


def mask_errors(pairs: Sequence[tuple[Instances, Instances]], segmenter: str) -> MaskNoise:
    """Measure (listed, predicted) instances, each pair of one photo and one class.

    Raises DataError where none of them was found: there is nothing to measure.
    """
    total = dropped = merged = 0
    labels = dict.fromkeys(label for listed, _ in pairs for label in listed.labels)
    offsets: list[float] = []
    holes: list[float] = []
    for listed, predicted in pairs:
        right, made = (each.select(i for i, m in enumerate(each.masks) if m.area) for each in (listed, predicted))
        matches = pair(right, made)
        total += len(right)
        for mask, match in zip(right.masks, matches, strict=True):
            if match is not None:
                offset, hole = _outline(mask, made.masks[match])
                offsets.append(offset)
                holes.append(hole)
            elif _swallowed(mask, [made.masks[other] for other in matches if other is not None], made):
                merged += 1
            else:
                dropped += 1
    if not offsets:
        raise DataError(f"{segmenter} found none of {total} instances of {', '.join(labels)}: no errors to measure")
    steps = np.linspace(0, 1, QUANTILES)
    return MaskNoise(
        segmenter=segmenter,
        labels=tuple(labels),
        instances=total,
        drop=round(dropped / total, 4),
        merge=round(merged / total, 4),
        offset=tuple(round(float(v), 4) for v in np.quantile(offsets, steps)),
        holes=tuple(round(float(v), 4) for v in np.quantile(holes, steps)),
    )


def _swallowed(mask: Mask, taken: list[Mask], made: Instances) -> bool:
    """Whether an instance without a mask of its own lies in another's, or shares one that is nobody's."""
    return any(cover(mask, other) >= COVERED for other in taken) or any(
        cover(mask, other) >= COVERED and other.area > 1.5 * mask.area for other in made.masks
    )


def _outline(right: Mask, made: Mask) -> tuple[float, float]:
    """The mean offset of the outline, and the share missing in pieces, of one mask; see :class:`MaskNoise`."""
    extent = math.sqrt(right.area)
    truth, guess = right.dense(), made.dense()
    radius = max(1, round(_PIECE * extent))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    missing = truth & ~guess
    opened = cv2.morphologyEx(missing.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    missing &= cv2.dilate(opened, kernel) > 0  # with the corners that the disc does not reach
    whole = guess | missing  # pieces are told apart from the outline
    edge = _edge(whole)
    if not edge.any():
        return 0.0, float(missing.sum() / right.area)
    # Half a pixel each: distances are from pixel to pixel, the outline runs between them.
    outside = cv2.distanceTransform((~truth).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    inside = cv2.distanceTransform(truth.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    offset = np.where(truth, 1 - inside, outside)[edge]
    return float(offset.mean() / extent), float(missing.sum() / right.area)


def _edge(mask: BoolMask) -> BoolMask:
    """The outermost pixels of a mask, those at the picture's border left out: nothing is known there."""
    eroded = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    edge = mask & (eroded == 0)
    edge[[0, -1]] = False
    edge[:, [0, -1]] = False
    return np.asarray(edge, dtype=np.bool_)
