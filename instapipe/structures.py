"""What flows between the stages: :class:`Photo`, :class:`Instances`, :class:`Translation`.

Everything here is in the photo's own frame: upright, sRGB, pixels of the photo; images uint8 RGB (H, W, 3), masks
bool. No torch: masks that the user has are read without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from instapipe.errors import MaskError

Pixels = NDArray[np.uint8]
BoolMask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded photo.

    pixels: uint8 (H, W, 3), RGB, sRGB, upright.  alpha: uint8 (H, W) or None.
    name: what to call it in messages (usually the path as given).
    digest: sha256 (hex) of the encoded bytes that it was decoded from.
    notes: what the decoder had to change, one sentence each ("16-bit reduced to 8-bit").
    """

    pixels: Pixels
    name: str
    digest: str
    alpha: Pixels | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(f"pixels: expected uint8 (H, W, 3), got {self.pixels.dtype} {self.pixels.shape}")
        if self.alpha is not None and (self.alpha.dtype != np.uint8 or self.alpha.shape != self.pixels.shape[:2]):
            raise ValueError(
                f"alpha: expected uint8 {self.pixels.shape[:2]}, got {self.alpha.dtype} {self.alpha.shape}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """One mask of a photo of `size`, kept as a box and the crop inside it: 64 of them on 20 megapixels stay small.

    size: (H, W) of the photo.  box: (x0, y0, x1, y1), whole pixels, x1 and y1 exclusive, the tight bounding box of the
    True pixels; (0, 0, 0, 0) for an empty mask.  crop: bool (y1 - y0, x1 - x0).
    """

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    crop: BoolMask

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.box
        height, width = self.size
        if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
            raise ValueError(f"box {self.box} is outside a photo of {height}x{width}")
        if self.crop.dtype != np.bool_ or self.crop.shape != (y1 - y0, x1 - x0):
            raise ValueError(f"crop: expected bool {(y1 - y0, x1 - x0)}, got {self.crop.dtype} {self.crop.shape}")

    @classmethod
    def from_dense(cls, mask: BoolMask) -> Mask:
        """From a dense mask, bool (H, W); the box is made tight."""
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise ValueError(f"mask: expected bool (H, W), got {mask.dtype} {mask.shape}")
        return cls.from_crop((mask.shape[0], mask.shape[1]), (0, 0), mask)

    @classmethod
    def from_crop(cls, size: tuple[int, int], origin: tuple[int, int], crop: BoolMask) -> Mask:
        """From a crop, bool, whose top left pixel lies at `origin` = (x, y) of a photo of `size`; made tight."""
        rows = np.flatnonzero(crop.any(axis=1))
        if rows.size == 0:
            return cls(size, (0, 0, 0, 0), np.zeros((0, 0), dtype=np.bool_))
        columns = np.flatnonzero(crop.any(axis=0))
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        x, y = origin
        tight = np.ascontiguousarray(crop[top:bottom, left:right])
        return cls(size, (x + left, y + top, x + right, y + bottom), tight)

    @property
    def area(self) -> int:
        """True pixels."""
        return int(np.count_nonzero(self.crop))

    def dense(self) -> BoolMask:
        """Bool (H, W)."""
        return self.window((0, 0, self.size[1], self.size[0]))

    def window(self, rectangle: tuple[int, int, int, int]) -> BoolMask:
        """The mask inside `rectangle` (x0, y0, x1, y1), which may reach over the photo's border (False there)."""
        wx0, wy0, wx1, wy1 = rectangle
        out = np.zeros((wy1 - wy0, wx1 - wx0), dtype=np.bool_)
        x0, y0, x1, y1 = self.box
        left, top, right, bottom = max(x0, wx0), max(y0, wy0), min(x1, wx1), min(y1, wy1)
        if left < right and top < bottom:
            out[top - wy0 : bottom - wy0, left - wx0 : right - wx0] = self.crop[
                top - y0 : bottom - y0, left - x0 : right - x0
            ]
        return out

    def iou(self, other: Mask) -> float:
        """Intersection over union; 0 where both are empty."""
        inside = int(np.count_nonzero(self.crop & other.window(self.box))) if self.area else 0
        union = self.area + other.area - inside
        return inside / union if union else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """The N objects found in one photo; their order is part of the value. N = 0 is legal.

    size: (H, W) of the photo.  masks: N masks of that size.  labels: N class names.
    scores: N values in [0, 1] (1.0 for masks that the user gave).
    numbers: for each one its 0-based place in the unfiltered segment order: what people see in file names and overlays.
    """

    size: tuple[int, int]
    masks: tuple[Mask, ...] = ()
    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    numbers: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.masks)
        if not self.numbers and n:
            object.__setattr__(self, "numbers", tuple(range(n)))
        if not (len(self.labels) == len(self.scores) == len(self.numbers) == n):
            raise ValueError(
                f"expected {n} labels, scores and numbers, "
                f"got {len(self.labels)}, {len(self.scores)}, {len(self.numbers)}"
            )
        for number, mask in zip(self.numbers, self.masks, strict=True):
            if mask.size != self.size:
                raise MaskError(
                    f"mask {number} is {mask.size[1]}x{mask.size[0]}, the photo {self.size[1]}x{self.size[0]}"
                )

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """float32 (N, 4), XYXY, pixels of the photo."""
        return np.asarray([m.box for m in self.masks], dtype=np.float32).reshape(-1, 4)

    @property
    def areas(self) -> NDArray[np.int64]:
        """int64 (N,), pixels."""
        return np.asarray([m.area for m in self.masks], dtype=np.int64)

    def select(self, indices: Iterable[int]) -> Instances:
        """Those at `indices`, in that order."""
        chosen: Sequence[int] = list(indices)
        return Instances(
            self.size,
            tuple(self.masks[i] for i in chosen),
            tuple(self.labels[i] for i in chosen),
            tuple(self.scores[i] for i in chosen),
            tuple(self.numbers[i] for i in chosen),
        )

    def dense(self) -> BoolMask:
        """Bool (N, H, W). Large for big photos: prefer :meth:`Mask.window`."""
        if not self.masks:
            return np.zeros((0, *self.size), dtype=np.bool_)
        return np.stack([m.dense() for m in self.masks])


@dataclass(frozen=True, slots=True, eq=False)
class Translation:
    """What the rollout made of one photo.

    pixels: uint8 (H, W, 3), the photo after the last step.  instances: the translated masks, in translation order, with
    the target's label and the numbers of the source instances.
    regions: per step the rectangle (x0, y0, x1, y1) in which pixels could change.
    changed: where pixels were allowed to change: everywhere else the photo is bit-identical.
    """

    pixels: Pixels
    instances: Instances
    regions: tuple[tuple[int, int, int, int], ...]
    changed: Mask
