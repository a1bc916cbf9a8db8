"""What a model sees of a photo's window, in training and in translation alike."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from instapipe.imaging.cutting import cut
from instapipe.imaging.filling import fill
from instapipe.imaging.windows import Rectangle, inside
from instapipe.structures import Mask, Pixels

_RIM = np.ones((3, 3), np.uint8)


def seen(pixels: Pixels, masks: Sequence[Mask], window: Rectangle, size: tuple[int, int]) -> Pixels:
    """`window` of `pixels` (H, W, 3) at the model's `size` (h, w), see :func:`resized`.

    masks: of the animals that it was cut around. Beyond the photo's border what the window shows of it is mirrored,
    without them: room for a taller one. uint8 (h, w, 3).
    """
    near = inside(window, (pixels.shape[0], pixels.shape[1]))
    if near == tuple(window) or near[0] == near[2] or near[1] == near[3]:
        return resized(cut(pixels, window), size)
    across, down = size[1] / (window[2] - window[0]), size[0] / (window[3] - window[1])
    left, right = _pixels(near[0] - window[0], near[2] - window[0], across, size[1])
    top, bottom = _pixels(near[1] - window[1], near[3] - window[1], down, size[0])
    part = np.s_[near[1] : near[3], near[0] : near[2]]
    there = resized(np.ascontiguousarray(pixels[part]), (bottom - top, right - left))
    old = np.zeros((near[3] - near[1], near[2] - near[0]), dtype=np.uint8)
    for mask in masks:
        old[mask.window(near)] = 255
    empty = fill(there, cv2.dilate(resized(old, (bottom - top, right - left)), _RIM) > 0)
    out = cut(empty, (-left, -top, size[1] - left, size[0] - top))
    out[top:bottom, left:right] = there
    return out


def _pixels(first: int, last: int, scale: float, length: int) -> tuple[int, int]:
    """From the window's pixels to the model's, at least one of the `length`."""
    start = min(round(first * scale), length - 1)
    return start, max(start + 1, round(last * scale))


def resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    """uint8 (H, W[, C]) at `size` (h, w): area-averaged where it shrinks, linear where it grows."""
    if image.shape[:2] == size:
        return image
    smaller = size[0] * size[1] < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=method), dtype=np.uint8)
