"""What a training photo goes through: scale and place, flip, colour, and instances of other photos pasted in.

Every draw comes from one generator that is passed in; image and masks go through the same geometry.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instapipe.segmentation.settings import AugmentSettings
from instapipe.segmentation.training.dataset import Sample
from instapipe.structures import BoolMask, Pixels

GREY = 128
MIN_SIDE = 6
"""An instance with a side below this many pixels of the canvas is not learnt."""
MIN_VISIBLE = 0.25
"""Nor is one of which less than this share is left by the canvas's border and by pasted ones."""


class Draws:
    """Random numbers out of one torch generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """In [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def log_uniform(self, low: float, high: float) -> float:
        """In [low, high), halving as likely as doubling."""
        return float(np.exp(self.uniform(np.log(low), np.log(high))))

    def integer(self, low: int, high: int) -> int:
        """In [low, high], both ends included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return self.uniform() < probability


def augment(sample: Sample, donor: Callable[[], Sample], side: int, settings: AugmentSettings, draws: Draws) -> Sample:
    """`sample` on a canvas of side x side; `donor` gives another photo to take instances from."""
    pixels, masks, visible = place(sample, side, settings, draws)
    labels = sample.labels
    pixels = recolour(pixels, settings, draws)
    if draws.chance(settings.paste):
        other = donor()
        for _ in range(draws.integer(*settings.pasted)):
            pixels, pasted, label = paste_instance(pixels, other, settings, draws)
            if pasted.any():
                before = masks.sum(axis=(1, 2))
                masks = masks & ~pasted
                visible = visible * masks.sum(axis=(1, 2)) / np.maximum(before, 1)
                masks = np.concatenate([masks, pasted[None]])
                labels, visible = np.append(labels, label), np.append(visible, 1.0)
    kept = [i for i in range(len(masks)) if visible[i] >= MIN_VISIBLE and min(extent(masks[i])) >= MIN_SIDE]
    return Sample(pixels, masks[kept], labels[kept])


def place(
    sample: Sample, side: int, settings: AugmentSettings, draws: Draws
) -> tuple[Pixels, BoolMask, NDArray[np.float64]]:
    """Scale, flip, and put on the canvas: pixels, masks, and which share of each mask is still on it."""
    height, width = sample.pixels.shape[:2]
    scale = draws.log_uniform(*settings.scale) * side / max(height, width)
    aspect = draws.log_uniform(0.9, 1.1)
    sx, sy = scale * aspect, scale / aspect
    flip = draws.chance(settings.flip)
    # Where the canvas is larger than the photo, anywhere in it; where smaller, anywhere on the photo.
    dx, dy = (draws.uniform() * (side - extent) for extent in (width * sx, height * sy))
    matrix = np.asarray([[-sx, 0, dx + width * sx] if flip else [sx, 0, dx], [0, sy, dy]])
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5  # pixel centres, not corners
    source = sample.pixels
    if scale < 0.6:  # warpAffine does not average
        source = cv2.blur(source, (round(1 / scale),) * 2).astype(np.uint8, copy=False)
    pixels = cv2.warpAffine(source, matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=(GREY,) * 3)
    masks = np.stack([warp(mask, matrix, side) for mask in sample.masks])
    whole = np.maximum(sample.masks.sum(axis=(1, 2)) * sx * sy, 1)
    return pixels.astype(np.uint8, copy=False), masks, masks.sum(axis=(1, 2)) / whole


def warp(mask: BoolMask, matrix: NDArray[np.float64], side: int) -> BoolMask:
    """One mask through the photo's geometry; bool (side, side)."""
    soft = cv2.warpAffine(mask.astype(np.uint8) * 255, matrix, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(soft >= 128)


def paste_instance(
    pixels: Pixels, other: Sample, settings: AugmentSettings, draws: Draws
) -> tuple[Pixels, BoolMask, int]:
    """One instance of `other` somewhere on the canvas: the canvas, the visible mask, its label."""
    side = pixels.shape[0]
    chosen = draws.integer(0, len(other.masks) - 1)
    mask = other.masks[chosen]
    empty = np.zeros((side, side), dtype=np.bool_)
    height, width = extent(mask)
    if min(height, width) < MIN_SIDE:
        return pixels, empty, 0
    top, left = int(np.flatnonzero(mask.any(axis=1))[0]), int(np.flatnonzero(mask.any(axis=0))[0])
    scale = draws.log_uniform(*settings.pasted_side) * side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cut = cv2.resize(other.pixels[top : top + height, left : left + width], size, interpolation=how)
    matte = cv2.resize(mask[top : top + height, left : left + width].astype(np.float32), size, interpolation=how)
    if draws.chance(settings.flip):
        cut, matte = cut[:, ::-1], matte[:, ::-1]
    # A part may hang over the border.
    x, y = (round(draws.uniform(-0.2, 1.2) * (side - s)) for s in size)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + size[0], side), min(y + size[1], side)
    if x1 <= x0 or y1 <= y0:
        return pixels, empty, 0
    cut, matte = cut[y0 - y : y1 - y, x0 - x : x1 - x], matte[y0 - y : y1 - y, x0 - x : x1 - x]
    out, pasted = pixels.copy(), empty
    # A soft edge, so that a hard one does not give pasted ones away.
    soft = cv2.GaussianBlur(np.ascontiguousarray(matte), (3, 3), 0)[:, :, None]
    out[y0:y1, x0:x1] = np.rint(soft * cut + (1 - soft) * out[y0:y1, x0:x1]).astype(np.uint8)
    pasted[y0:y1, x0:x1] = matte >= 0.5
    return out, pasted, int(other.labels[chosen])


def recolour(pixels: Pixels, settings: AugmentSettings, draws: Draws) -> Pixels:
    """Brightness, contrast, saturation, grey, blur, blocks of JPEG."""
    image = pixels.astype(np.float32)
    low, high = 1 - settings.colour, 1 + settings.colour
    mean = image.mean()
    image = (image - mean) * draws.uniform(low, high) + mean * draws.uniform(low, high)
    grey = image.mean(axis=2, keepdims=True)
    saturation = 0.0 if draws.chance(settings.grey) else draws.uniform(low, high)
    image = grey + (image - grey) * saturation
    image *= np.asarray([draws.uniform(1 - settings.colour / 3, 1 + settings.colour / 3) for _ in range(3)], np.float32)
    out = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if draws.chance(settings.blur):
        if draws.chance(0.5):
            out = cv2.GaussianBlur(out, (0, 0), draws.uniform(0.4, 1.5)).astype(np.uint8, copy=False)
        else:
            blocky = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, draws.integer(25, 80)])[1]
            out = np.asarray(cv2.imdecode(blocky, cv2.IMREAD_COLOR))
    return np.asarray(out, dtype=np.uint8)


def extent(mask: BoolMask) -> tuple[int, int]:
    """(height, width) of the box around the True pixels; (0, 0) where there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1) if rows.size else (0, 0)


def target(sample: Sample) -> dict[str, Tensor]:
    """As torchvision's Mask R-CNN wants it: boxes float (N, 4), labels int64 (N,), masks uint8 (N, H, W)."""
    boxes = np.zeros((len(sample.masks), 4), dtype=np.float32)
    for i, mask in enumerate(sample.masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(sample.labels.copy()),
        "masks": torch.from_numpy(sample.masks.astype(np.uint8)),
    }
