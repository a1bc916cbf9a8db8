"""What a training photo goes through: scale and place, flip, colour, and instances of other photos pasted in.

Every draw comes from one generator that is passed in; image and masks go through the same geometry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
NEIGHBOUR_SIZE = (0.7, 1.3)
"""Longer side of a neighbour over that of the instance that it stands beside."""
NEIGHBOUR_GAP = (0.35, 1.05)
"""Distance of their centres over half the sum of their widths: below 1 they overlap."""
NEIGHBOUR_STEP = 0.2
"""How much higher or lower than the other's its feet may be, over that one's height."""


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
            beside = len(masks) > 0 and settings.neighbours > 0 and draws.chance(settings.neighbours)
            canvas = Sample(pixels, masks, labels)
            cut = neighbour(canvas, visible, settings, draws) if beside else cut_out(other, side, settings, draws)
            if cut is None:
                continue
            pixels, pasted, left = paste(pixels, cut)
            if pasted.any():
                before = masks.sum(axis=(1, 2))
                masks = masks & ~pasted
                visible = visible * masks.sum(axis=(1, 2)) / np.maximum(before, 1)
                masks = np.concatenate([masks, pasted[None]])
                labels, visible = np.append(labels, cut.label), np.append(visible, cut.whole * left)
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


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """An instance on its way to the canvas.

    pixels: uint8 (h, w, 3).  matte: float32 (h, w), in [0, 1].  corner: (x, y) of its first pixel on the canvas; parts
    may hang over the border.  hidden: pixels of the canvas that hide it, bool (side, side).  whole: how much of the
    instance it is.
    """

    pixels: Pixels
    matte: NDArray[np.float32]
    label: int
    corner: tuple[int, int]
    hidden: BoolMask
    whole: float = 1.0


def cut_out(other: Sample, side: int, settings: AugmentSettings, draws: Draws) -> Cut | None:
    """One instance of `other` for anywhere on the canvas, in front; None where it is too small."""
    chosen = draws.integer(0, len(other.masks) - 1)
    if min(extent(other.masks[chosen])) < MIN_SIDE:
        return None
    cut, matte = resized(other, chosen, draws.log_uniform(*settings.pasted_side) * side)
    if draws.chance(settings.flip):
        cut, matte = cut[:, ::-1], matte[:, ::-1]
    x, y = (round(draws.uniform(-0.2, 1.2) * (side - s)) for s in matte.shape[::-1])
    return Cut(cut, matte, int(other.labels[chosen]), (x, y), np.zeros((side, side), dtype=np.bool_))


def neighbour(canvas: Sample, visible: NDArray[np.float64], settings: AugmentSettings, draws: Draws) -> Cut | None:
    """An instance of the canvas once more, beside one of its class, about as large: a pair, as in a flock.

    Whose feet are lower stands in front. visible: float64 (N,), shares of the canvas's instances; those that are not
    learnt are left alone. None where there is no other, or what was drawn is too small.
    """
    known = np.flatnonzero(visible >= MIN_VISIBLE)
    if not len(known):
        return None
    anchor = int(known[draws.integer(0, len(known) - 1)])
    same = known[canvas.labels[known] == canvas.labels[anchor]]
    chosen = int(same[draws.integer(0, len(same) - 1)])
    if min(*extent(canvas.masks[anchor]), *extent(canvas.masks[chosen])) < MIN_SIDE:
        return None
    x, y, width, height = box(canvas.masks[anchor])
    cut, matte = resized(canvas, chosen, draws.log_uniform(*NEIGHBOUR_SIZE) * max(width, height))
    if draws.chance(settings.flip):
        cut, matte = cut[:, ::-1], matte[:, ::-1]
    aside = draws.uniform(*NEIGHBOUR_GAP) * (width + matte.shape[1]) / 2 * (1 if draws.chance(0.5) else -1)
    lower = draws.uniform(-NEIGHBOUR_STEP, NEIGHBOUR_STEP) * height
    corner = round(x + width / 2 + aside - matte.shape[1] / 2), round(y + height + lower - matte.shape[0])
    feet = corner[1] + matte.shape[0]
    in_front = [mask for mask in canvas.masks if sum(box(mask)[1::2]) > feet]
    hidden = np.logical_or.reduce(in_front) if in_front else np.zeros_like(canvas.masks[anchor])
    return Cut(cut, matte, int(canvas.labels[chosen]), corner, hidden, float(min(visible[chosen], 1)))


def resized(sample: Sample, chosen: int, longer: float) -> tuple[Pixels, NDArray[np.float32]]:
    """What is in one instance's box, uint8 (h, w, 3), and its matte, float32 (h, w) in [0, 1], resized until the
    longer side has `longer` pixels."""
    x, y, width, height = box(sample.masks[chosen])
    scale = longer / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cut = cv2.resize(sample.pixels[y : y + height, x : x + width], size, interpolation=how)
    matte = cv2.resize(sample.masks[chosen][y : y + height, x : x + width].astype(np.float32), size, interpolation=how)
    return np.asarray(cut, dtype=np.uint8), np.asarray(matte, dtype=np.float32)


def paste(pixels: Pixels, cut: Cut) -> tuple[Pixels, BoolMask, float]:
    """The canvas with the instance, its visible mask, and which share of it is visible."""
    side = pixels.shape[0]
    height, width = cut.matte.shape
    x, y = cut.corner
    out, pasted = pixels.copy(), np.zeros((side, side), dtype=np.bool_)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, side), min(y + height, side)
    if x1 <= x0 or y1 <= y0:
        return out, pasted, 0.0
    inside = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
    on_canvas = np.s_[y0:y1, x0:x1]
    # A soft edge, so that a hard one does not give pasted ones away.
    matte = np.where(cut.hidden[on_canvas], 0, cut.matte[inside]).astype(np.float32)
    soft = cv2.GaussianBlur(matte, (3, 3), 0)[:, :, None]
    out[on_canvas] = np.rint(soft * cut.pixels[inside] + (1 - soft) * out[on_canvas]).astype(np.uint8)
    pasted[on_canvas] = matte >= 0.5
    return out, pasted, float(pasted.sum() / max(np.count_nonzero(cut.matte >= 0.5), 1))


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


def box(mask: BoolMask) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the box around the True pixels; zeros where there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1


def extent(mask: BoolMask) -> tuple[int, int]:
    """(height, width) of the box around the True pixels; (0, 0) where there are none."""
    _, _, width, height = box(mask)
    return height, width


def target(sample: Sample, margin: float = 0.0) -> dict[str, Tensor]:
    """As torchvision's Mask R-CNN wants it: boxes float (N, 4), labels int64 (N,), masks uint8 (N, H, W).

    margin: on each side of a mask, as a share of its width or height, as far as the photo goes.
    """
    frame = sample.masks.shape[-2:]
    boxes = np.zeros((len(sample.masks), 4), dtype=np.float32)
    for i, mask in enumerate(sample.masks):
        x, y, width, height = box(mask)
        across, down = margin * width, margin * height
        boxes[i] = (
            max(x - across, 0), max(y - down, 0),
            min(x + width + across, frame[1]), min(y + height + down, frame[0]),
        )  # fmt: skip
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(sample.labels.copy()),
        "masks": torch.from_numpy(sample.masks.astype(np.uint8)),
    }
