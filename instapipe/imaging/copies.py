"""A hole filled by a field that says where each of its pixels is copied from, at the photo's own scale."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.structures import BoolMask, Pixels

Plane = NDArray[np.float32]
Places = NDArray[np.intp]
"""Pixels by their position in a flattened image; a field has (y, x) instead."""

_ALL, _NONE = np.uint32(0xFFFFFFFF), np.uint32(0)
_PIXELS_AT_ONCE = 1 << 14
"""What is read at the photo's scale at once: what is computed on the way stays in the processor's cache."""


def smooth(pixels: Pixels, hole: BoolMask) -> Pixels:
    """`pixels` (H, W, 3) with the hole filled without any texture (Telea, 2004)."""
    return np.asarray(cv2.inpaint(pixels, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA), dtype=np.uint8)


def read_field(pixels: Pixels, hole: BoolMask, field: Places) -> Pixels:
    """The field at the photo's scale: each pixel of the hole is copied from its source's place.

    Between the pixels of the field four copies are blended, so that sources that do not meet show no edge. A mean of
    copies that have nothing to do with each other is softer than each: their detail, what they differ by from their
    surroundings, is made as strong again as it was (Heitz and Neyret, "High-performance by-example noise", 2018).
    """
    height, width = hole.shape
    scale = (height / field.shape[0], width / field.shape[1])
    # How far away the source lies, in the photo's pixels, for each pixel of the field.
    down = np.rint((field[..., 0] - np.arange(field.shape[0])[:, None]) * scale[0]).astype(np.intp)
    right = np.rint((field[..., 1] - np.arange(field.shape[1])) * scale[1]).astype(np.intp)
    shift = down * width + right
    above, below, row_share = _knots(height, field.shape[0])
    before, after, column_share = _knots(width, field.shape[1])
    out = pixels.copy()
    target, known = out.reshape(-1, 3), ~hole.reshape(-1)
    blurred = cv2.blur(pixels, (2 * round(scale[1]) + 1, 2 * round(scale[0]) + 1))
    # As words of four bytes: one such gather takes a fraction of the time of one of three bytes.
    sharp, soft = (
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).reshape(-1, 4).view(np.uint32)[:, 0] for image in (pixels, blurred)
    )
    lost = np.zeros(hole.size, dtype=np.bool_)
    rows_at_once = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, height, rows_at_once):
        y, x = np.nonzero(hole[top : top + rows_at_once])
        if y.size == 0:
            continue
        y += top
        here = y * width + x
        down, right = row_share.take(y), column_share.take(x)
        total, level = np.zeros((2, len(here), 4), dtype=np.float32)
        least = np.full((len(here), 4), 255, dtype=np.uint8)
        most = np.zeros_like(least)
        copies: list[tuple[Places, Plane]] = []
        for line, share in ((above.take(y) * field.shape[1], 1 - down), (below.take(y) * field.shape[1], down)):
            for column, across in ((before.take(x), 1 - right), (after.take(x), right)):
                # Sources lie three pixels of the field from every border, so that none of this leaves the photo.
                away = shift.take(line + column)
                # What lies under the hole is never a source: rounding may point there at its rim.
                weight = share * across * known.take(here + away, mode="clip")
                colours = sharp.take(here + away, mode="clip")
                total += _bytes(colours) * weight[:, None]
                level += _bytes(soft.take(here + away, mode="clip")) * weight[:, None]
                # A copy without weight is neither the least nor the most.
                there = weight > 0
                np.minimum(least, _bytes(np.where(there, colours, _ALL)), out=least)
                np.maximum(most, _bytes(np.where(there, colours, _NONE)), out=most)
                copies.append((away, weight))
        sums = np.add.reduce([weight for _, weight in copies])
        found = sums > 1e-6
        lost[here[~found]] = True
        total /= np.maximum(sums, 1e-6)[:, None]
        level /= np.maximum(sums, 1e-6)[:, None]
        # The variance that is left of independent details of variance 1; copies of one source are one.
        left = np.add.reduce([weight * weight for _, weight in copies])
        for (one, a), (other, b) in combinations(copies, 2):
            left += 2 * a * b * (one == other)
        detail = (total - level) * (sums / np.sqrt(np.maximum(left, 1e-12)))[:, None]
        # No colour comes out that none of the copies has.
        mixed = np.clip(np.rint(level + detail), least, np.maximum(least, most)).astype(np.uint8)
        target[here] = mixed[:, :3]
    return smooth(out, lost.reshape(hole.shape)) if lost.any() else out


def _bytes(words: NDArray[np.uint32]) -> Pixels:
    """(N,) words as (N, 4) bytes."""
    return words.view(np.uint8).reshape(-1, 4)


def _knots(length: int, knots: int) -> tuple[Places, Places, Plane]:
    """The two of `knots` field pixels that each of `length` photo pixels lies between, and the second's share."""
    centre = (np.arange(length) + 0.5) * knots / length - 0.5
    low = np.floor(centre).astype(np.intp)
    return np.clip(low, 0, knots - 1), np.clip(low + 1, 0, knots - 1), (centre - low).astype(np.float32)
