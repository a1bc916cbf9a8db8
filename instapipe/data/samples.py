"""Training samples: cut once from the photos, kept in memory, cropped and flipped anew each time they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from instapipe.config import Shown
from instapipe.data.geometry import resize_image, resize_masks
from instapipe.imaging.shown import shown_masks
from instapipe.structures import BoolMask, Pixels

Order = Literal["largest", "smallest", "random"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """image: uint8 (S, S, 3).  masks: bool (N, S, S).  photo: which photo it was cut from (its file name)."""

    image: Pixels
    masks: BoolMask
    photo: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """image: (B, 3, H, W) in [-1, 1].  masks: (B, N, H, W), -1 outside, +1 inside, padding all -1.

    valid: bool (B, N).  wanted: (B, N, H, W), where the masks have errors: what they should have been.
    noisy: what the generators are given where that is not the batch itself (the discriminators see the batch itself).
    """

    image: Tensor
    masks: Tensor
    valid: Tensor
    wanted: Tensor | None = None
    noisy: Batch | None = None

    @property
    def given(self) -> Batch:
        """What generators are given."""
        return self if self.noisy is None else self.noisy

    @property
    def right(self) -> Tensor:
        """The masks that content losses ask for."""
        return self.masks if self.wanted is None else self.wanted

    def part(self, where: slice) -> Batch:
        """Some of the samples."""
        wanted = None if self.wanted is None else self.wanted[where]
        noisy = None if self.noisy is None else self.noisy.part(where)
        return Batch(self.image[where], self.masks[where], self.valid[where], wanted, noisy)

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        wanted = None if self.wanted is None else self.wanted.to(device)
        noisy = None if self.noisy is None else self.noisy.to(device)
        return Batch(self.image.to(device), self.masks.to(device), self.valid.to(device), wanted, noisy)


@dataclass(frozen=True, slots=True)
class Crop:
    """One draw of crop and flip, applied to image and masks alike (the original drew twice)."""

    x: int
    y: int
    side: int
    flip: bool

    @classmethod
    def sample(cls, full: int, sides: tuple[int, int], rng: torch.Generator) -> Crop:
        """A square of a side in [sides[0], sides[1]], anywhere inside `full`."""
        side = sides[0] + int(torch.randint(sides[1] - sides[0] + 1, (), generator=rng))
        x, y = (int(torch.randint(full - side + 1, (), generator=rng)) for _ in range(2))
        return cls(x, y, side, bool(torch.rand((), generator=rng) < 0.5))

    @classmethod
    def centre(cls, full: int, side: int) -> Crop:
        """The middle, not flipped."""
        return cls((full - side) // 2, (full - side) // 2, side, False)

    def __call__(self, image: Pixels, masks: BoolMask, size: int) -> tuple[Pixels, BoolMask]:
        """Cut, resize to `size`, flip. Masks stay masks."""
        window = (slice(self.y, self.y + self.side), slice(self.x, self.x + self.side))
        image = resize_image(np.ascontiguousarray(image[window]), (size, size))
        masks = resize_masks(masks[(slice(None), *window)], (size, size))
        if self.flip:
            image, masks = image[:, ::-1], masks[:, :, ::-1]
        return image, masks


def sample_batch(
    samples: Sequence[Sample],
    crops: Callable[[Sample, torch.Generator], Crop],
    rng: torch.Generator,
    *,
    size: int,
    max_instances: int,
    order: Order,
    shown: Shown = "instances",
) -> Batch:
    """Crop and stack `samples`: masks sorted by `order` after the crop, capped at `max_instances`, padded.

    shown: where not `instances`, every sample has one mask, `union` of all its instances or a frame.
    """
    images, masks, valid = [], [], []
    for sample in samples:
        image, inside = crops(sample, rng)(sample.image, sample.masks, size)
        inside = shown_masks(inside, shown)
        areas = inside.sum(axis=(1, 2))
        if order == "random":
            indices = torch.randperm(len(areas), generator=rng).numpy()
        else:
            indices = np.argsort(areas if order == "smallest" else -areas, kind="stable")
        chosen = [i for i in indices if areas[i] > 0][:max_instances]
        stack = np.zeros((max_instances, size, size), dtype=np.bool_)
        stack[: len(chosen)] = inside[chosen]
        images.append(torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1)
        masks.append(torch.from_numpy(stack).float() * 2 - 1)
        valid.append(torch.arange(max_instances) < len(chosen))
    return Batch(torch.stack(images), torch.stack(masks), torch.stack(valid))
