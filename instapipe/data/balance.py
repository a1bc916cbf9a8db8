"""Samples that show as many instances in both domains (see data/counts.py for why).

Instances of other samples are copied into one (:func:`paste`) until it shows as many as the other domain would at the
same place of its order (:class:`Matching`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from instapipe.data.geometry import resize_image, resize_masks
from instapipe.data.samples import Sample
from instapipe.structures import BoolMask, Pixels

TRIES = 24
SCALES = (0.35, 0.9)
"""Of a pasted instance, over its size in the sample it comes from; later tries are smaller."""
LEAST_INSIDE = 0.7
"""Share of a pasted instance that must stay inside the picture."""
LEAST_SEEN = 0.6
"""Share of each instance that must stay visible behind a pasted one."""


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """Counts to reach: in both domains the larger of the two at the same place of the order, so that nothing need go.

    own, other: int, ascending: instances a sample shows, in this domain and in the other one.
    """

    own: NDArray[np.int64]
    other: NDArray[np.int64]

    @classmethod
    def of(cls, own: Sequence[int], other: Sequence[int]) -> Matching:
        """From counts in any order."""
        return cls(np.sort(np.asarray(own, np.int64)), np.sort(np.asarray(other, np.int64)))

    def wanted(self, count: int, rng: torch.Generator) -> int:
        """How many a sample of `count` should show; one draw tells samples of one count apart."""
        first = np.searchsorted(self.own, count, side="left")
        last = np.searchsorted(self.own, count, side="right")
        place = (first + float(torch.rand((), generator=rng)) * (last - first)) / len(self.own)
        return max(count, int(self.other[min(len(self.other) - 1, int(place * len(self.other)))]))


def paste(sample: Sample, donors: Sequence[Sample], wanted: int, rng: torch.Generator) -> Sample:
    """`sample` with instances of `donors` copied in front until it shows `wanted`, or until no place is left.

    Masks are what is seen: a covered instance loses those pixels. The same draw moves pixels and mask.
    """
    image, masks = sample.image, list(sample.masks)
    for _ in range(wanted - len(masks)):
        donor = donors[_below(len(donors), rng)]
        number = _below(len(donor.masks), rng)
        placed = _place(donor.image, donor.masks[number], masks, [int(m.sum()) for m in sample.masks], rng)
        if placed is None:
            continue
        pixels, mask = placed
        image = _blend(image, pixels, mask)
        masks = [*(each & ~mask for each in masks), mask]
    return sample if image is sample.image else Sample(image, np.stack(masks), sample.photo)


def _place(
    image: Pixels, mask: BoolMask, present: Sequence[BoolMask], whole: Sequence[int], rng: torch.Generator
) -> tuple[Pixels, BoolMask] | None:
    """A size, side and place for the instance: its pixels and mask in the frame; None where none was found.

    whole: areas of the first of `present` before anything was pasted; the others must stay seen as they are.
    """
    side = mask.shape[0]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    areas = [*whole, *(int(each.sum()) for each in present[len(whole) :])]
    for attempt in range(TRIES):
        scale = SCALES[0] + (SCALES[1] - SCALES[0]) * float(torch.rand((), generator=rng)) * (1 - attempt / TRIES)
        flip = bool(torch.rand((), generator=rng) < 0.5)
        height, width = (max(2, round(scale * length)) for length in mask[box].shape)
        y = _below(side, rng) - height // 2
        x = _below(side, rng) - width // 2
        small = resize_masks(mask[box][None], (height, width))[0]
        if not small.any():
            continue
        small = small[:, ::-1] if flip else small
        moved = np.zeros_like(mask)
        top, left, bottom, right = max(0, y), max(0, x), min(side, y + height), min(side, x + width)
        if top >= bottom or left >= right:
            continue
        inner = (slice(top - y, bottom - y), slice(left - x, right - x))
        moved[top:bottom, left:right] = small[inner]
        if moved.sum() < LEAST_INSIDE * small.sum():
            continue
        if any((each & ~moved).sum() < LEAST_SEEN * area for each, area in zip(present, areas, strict=True)):
            continue
        crop = resize_image(np.ascontiguousarray(image[box]), (height, width))
        crop = crop[:, ::-1] if flip else crop
        pixels = np.zeros_like(image)
        pixels[top:bottom, left:right] = crop[inner]
        return pixels, moved
    return None


def _blend(image: Pixels, pixels: Pixels, mask: BoolMask) -> Pixels:
    """`pixels` over `image` inside `mask`, its edge softened inwards, where `pixels` shows the instance."""
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0) * mask
    mixed = image + (pixels.astype(np.float32) - image) * alpha[..., None]
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def _below(limit: int, rng: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=rng))
