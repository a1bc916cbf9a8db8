"""Samples resized, and how much of an instance the photo's border cuts off. No torch: packing needs none."""

from __future__ import annotations

import cv2
import numpy as np

from instapipe.structures import BoolMask, Mask, Pixels


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """uint8 (H, W, 3) -> (size[0], size[1], 3): area averaging when shrinking, bicubic when enlarging."""
    if image.shape[:2] == size:
        return image
    smaller = size[0] < image.shape[0] or size[1] < image.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how), dtype=np.uint8)


def resize_masks(masks: BoolMask, size: tuple[int, int]) -> BoolMask:
    """bool (N, H, W) -> (N, size[0], size[1]): covered by at least half, so that masks stay masks.

    One too thin for that is gone, and is not learnt from. Translation keeps the best covered pixels of such a mask
    (translation.resampling.shrink_mask): there an instance that was chosen must have its turn.
    """
    out = np.zeros((len(masks), *size), dtype=np.bool_)
    for index, mask in enumerate(masks):
        smaller = size[0] < mask.shape[0] or size[1] < mask.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        share = cv2.resize(np.ascontiguousarray(mask).astype(np.float32), (size[1], size[0]), interpolation=how)
        out[index] = share >= 0.5
    return out


def outline_on_border(mask: Mask) -> float:
    """Which share of the outline of the mask's box lies on the photo's border; 0 for an empty mask."""
    x0, y0, x1, y1 = mask.box
    h, w = mask.size
    length = (y1 - y0) * ((x0 == 0) + (x1 == w)) + (x1 - x0) * ((y0 == 0) + (y1 == h))
    return length / max(1, 2 * (x1 - x0 + y1 - y0))
