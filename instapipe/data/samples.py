"""Training samples: cut once from the photos, kept in memory, cropped and flipped anew each time they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from instapipe.data.coco import AnnotatedPhoto
from instapipe.errors import DataError
from instapipe.structures import BoolMask, Mask, Pixels

Order = Literal["largest", "smallest", "random"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """image: uint8 (S, S, 3).  masks: bool (N, S, S).  photo: which photo it was cut from (its file name)."""

    image: Pixels
    masks: BoolMask
    photo: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """image: (B, 3, H, W) in [-1, 1].  masks: (B, N, H, W), -1 outside, +1 inside, padding all -1.  valid: bool (B, N)."""

    image: Tensor
    masks: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        return Batch(self.image.to(device), self.masks.to(device), self.valid.to(device))


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


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """uint8 (H, W, 3) -> (size[0], size[1], 3): area averaging when shrinking, bicubic when enlarging."""
    if image.shape[:2] == size:
        return image
    smaller = size[0] < image.shape[0] or size[1] < image.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how), dtype=np.uint8)


def resize_masks(masks: BoolMask, size: tuple[int, int]) -> BoolMask:
    """bool (N, H, W) -> (N, size[0], size[1]): covered by at least half, so that masks stay masks."""
    out = np.zeros((len(masks), *size), dtype=np.bool_)
    for index, mask in enumerate(masks):
        smaller = size[0] < mask.shape[0] or size[1] < mask.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        share = cv2.resize(np.ascontiguousarray(mask).astype(np.float32), (size[1], size[0]), interpolation=how)
        out[index] = share >= 0.5
    return out


def square_window(box: tuple[int, int, int, int], scale: float) -> tuple[int, int, int, int]:
    """The square of `scale` x the longer side of `box` around its centre, (x0, y0, x1, y1); may leave the photo."""
    x0, y0, x1, y1 = box
    side = max(4, round(scale * max(x1 - x0, y1 - y0)))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    return left, top, left + side, top + side


def cut(pixels: Pixels, rectangle: tuple[int, int, int, int]) -> Pixels:
    """The pixels of `rectangle`, which may reach over the border: the photo is reflected there."""
    x0, y0, x1, y1 = rectangle
    h, w = pixels.shape[:2]
    rows, columns = _reflected(y0, y1, h), _reflected(x0, x1, w)
    return np.ascontiguousarray(pixels[rows][:, columns])


def _reflected(first: int, last: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices first..last-1 folded back into 0..length-1, as often as needed (the border pixel is not repeated)."""
    if length == 1:
        return np.zeros(last - first, dtype=np.int64)
    period = 2 * (length - 1)
    folded = np.abs(np.arange(first, last)) % period
    return np.where(folded >= length, period - folded, folded)


def read_pixels(photo: AnnotatedPhoto) -> Pixels:
    """uint8 RGB (H, W, 3) of the size that the JSON says. Raises DataError."""
    image = cv2.imread(str(photo.path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DataError(f"cannot decode image {str(photo.path)!r}")
    if image.shape[:2] != photo.size:
        raise DataError(f"image {str(photo.path)!r} is {image.shape[1]}x{image.shape[0]}, its JSON says {photo.size[1]}x{photo.size[0]}")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def outline_on_border(mask: Mask) -> float:
    """Which share of the outline of the mask's box lies on the photo's border."""
    x0, y0, x1, y1 = mask.box
    h, w = mask.size
    length = (y1 - y0) * ((x0 == 0) + (x1 == w)) + (x1 - x0) * ((y0 == 0) + (y1 == h))
    return length / (2 * (x1 - x0 + y1 - y0))


def sample_batch(
    samples: Sequence[Sample],
    crops: Callable[[Sample, torch.Generator], Crop],
    rng: torch.Generator,
    *,
    size: int,
    max_instances: int,
    order: Order,
) -> Batch:
    """Crop and stack `samples`: masks sorted by `order` after the crop, capped at `max_instances`, padded."""
    images, masks, valid = [], [], []
    for sample in samples:
        image, inside = crops(sample, rng)(sample.image, sample.masks, size)
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
