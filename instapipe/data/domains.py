"""The two domains of a training run: samples for learning, others held out for the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from instapipe.data.coco import AnnotatedPhoto, read_class
from instapipe.data.samples import (
    Batch,
    Crop,
    Order,
    Sample,
    cut,
    outline_on_border,
    read_pixels,
    resize_image,
    resize_masks,
    sample_batch,
    square_window,
)
from instapipe.errors import DataError
from instapipe.structures import Mask

SMALLEST_CROP = 0.82
"""A window's random crop keeps at least this share of its side."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """How samples are cut; fields as in `DataSettings` of the training configuration."""

    mode: Literal["photo", "window"]
    size: int
    load_size: int
    window_scale: float
    max_instances: int
    order: Order
    min_side: int
    max_cut: float
    max_company: float


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """Samples of one class.

    dropped: how many instances were left out, by reason.
    """

    label: str
    cutting: Cutting
    learning: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    dropped: dict[str, int]

    def batch(self, step: int, size: int, *, seed: int) -> Batch:
        """The batch of `step` (0-based): a function of step and seed alone, so that a resumed run goes on exactly.

        Samples come in a new random order each epoch.
        """
        chosen = [self.learning[self._index(step * size + k, seed)] for k in range(size)]
        rng = torch.Generator().manual_seed(derive(seed, self.label, "crop", step))
        return sample_batch(chosen, self._crop, rng, size=self.cutting.size, max_instances=self.cutting.max_instances, order=self.cutting.order)

    def held_out_batch(self, count: int) -> Batch:
        """The first `count` held-out samples, cropped in the middle."""
        rng = torch.Generator().manual_seed(0)
        full = self.cutting.load_size
        side = self.cutting.size if self.cutting.mode == "photo" else full
        order: Order = "largest" if self.cutting.order == "random" else self.cutting.order
        return sample_batch(self.held_out[:count], lambda _s, _r: Crop.centre(full, side), rng, size=self.cutting.size, max_instances=self.cutting.max_instances, order=order)

    def _crop(self, sample: Sample, rng: torch.Generator) -> Crop:
        full = sample.image.shape[0]
        # A window loses at most 18 %: the instance must fill it in training as it does in translation.
        window = self.cutting.mode == "window"
        sides = (round(SMALLEST_CROP * full), full) if window else (self.cutting.size, self.cutting.size)
        return Crop.sample(full, sides, rng)

    def _index(self, position: int, seed: int) -> int:
        epoch, place = divmod(position, len(self.learning))
        rng = torch.Generator().manual_seed(derive(seed, self.label, "epoch", epoch))
        return int(torch.randperm(len(self.learning), generator=rng)[place])


def derive(seed: int, *names: str | int) -> int:
    """A seed for one purpose out of the run's."""
    text = ":".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def read_domain(path: Path, label: str, cutting: Cutting, *, held_out: int, seed: int) -> Domain:
    """Read `path` (COCO JSON) and cut every sample once.

    `held_out` photos, drawn by `seed`, give no sample for learning. Raises DataError, also where too little is left.
    """
    photos = read_class(path, label)
    if len(photos) < 2:
        raise DataError(f"{str(path)!r} has one photo of {label!r}: at least two are needed, one to hold out")
    held_out = min(held_out, len(photos) // 2)
    rng = torch.Generator().manual_seed(derive(seed, label, "held out"))
    apart = set(torch.randperm(len(photos), generator=rng)[:held_out].tolist())
    dropped: dict[str, int] = {}
    learning: list[Sample] = []
    kept: list[Sample] = []
    for index, photo in enumerate(photos):
        (kept if index in apart else learning).extend(cut_samples(photo, cutting, dropped))
    if not learning or not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none was refused"
        raise DataError(f"{str(path)!r}: no usable instance of {label!r} to {'learn from' if not learning else 'hold out'} ({reasons})")
    return Domain(label, cutting, tuple(learning), tuple(kept), dropped)


def cut_samples(photo: AnnotatedPhoto, cutting: Cutting, dropped: dict[str, int]) -> Iterator[Sample]:
    """The samples of one photo: one in `photo` mode, one an instance in `window` mode. Counts what it drops."""
    pixels = read_pixels(photo)
    masks = [Mask.from_dense(mask) for mask in photo.masks()]
    usable = []
    for mask in masks:
        reason = _refuse(mask, cutting)
        if reason is None:
            usable.append(mask)
        else:
            dropped[reason] = dropped.get(reason, 0) + 1
    if not usable:
        return
    side = (cutting.load_size, cutting.load_size)
    if cutting.mode == "photo":
        dense = np.stack([mask.dense() for mask in usable])
        yield Sample(resize_image(pixels, side), resize_masks(dense, side), photo.path.name)
        return
    for mask in usable:
        window = square_window(mask.box, cutting.window_scale)
        area = (window[2] - window[0]) ** 2
        others = [other for other in masks if other is not mask]
        company = sum(int(other.window(window).sum()) for other in others) / area
        if company > cutting.max_company:
            dropped["crowded window"] = dropped.get("crowded window", 0) + 1
            continue
        chosen = [mask]
        if cutting.max_instances > 1:
            chosen += [o for o in others if o in usable and o.window(window).sum() >= 0.5 * o.area]
        dense = np.stack([m.window(window) for m in chosen])
        yield Sample(resize_image(cut(pixels, window), side), resize_masks(dense, side), photo.path.name)


def _refuse(mask: Mask, cutting: Cutting) -> str | None:
    x0, y0, x1, y1 = mask.box
    if mask.area == 0:
        return "empty mask"
    if max(x1 - x0, y1 - y0) < cutting.min_side:
        return f"smaller than {cutting.min_side} px"
    if outline_on_border(mask) > cutting.max_cut:
        return "cut off by the photo's border"
    return None
