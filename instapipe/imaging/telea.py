"""What lies behind an animal at a model's size, smoothly: quick, and the same in training and in translation."""

from __future__ import annotations

import cv2
import numpy as np

from instapipe.structures import BoolMask, Pixels


def grow(mask: BoolMask, pixels: int) -> BoolMask:
    """`mask` dilated by a disc of that radius."""
    if pixels == 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(np.bool_)


def smoothly_filled(pixels: Pixels, hole: BoolMask, unfit: BoolMask, radius: int) -> Pixels:
    """`pixels` with `hole` filled from outside `unfit` (Telea, 2004); from `unfit` too where it and the hole are all
    there is. uint8 (H, W, 3)."""
    if not hole.any() or hole.all():
        return pixels
    unknown = hole | unfit
    if unknown.all():
        unknown = hole
    return np.asarray(cv2.inpaint(pixels, unknown.astype(np.uint8), radius, cv2.INPAINT_TELEA), dtype=np.uint8)
