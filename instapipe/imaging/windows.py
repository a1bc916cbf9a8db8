"""Windows of a photo: where a step looks. Geometry alone: a warm run needs it, and no torch or OpenCV.

A window is a rectangle (x0, y0, x1, y1) of photo pixels, exclusive at the end, and may reach over the photo's border,
where it shows the photo mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from instapipe.config import Placement
from instapipe.structures import BoolMask, Mask

Value = TypeVar("Value", bound=np.generic)
Rectangle = tuple[int, int, int, int]
SMALLEST_SIDE = 8
"""Of a window, in photo pixels."""
BELOW = 0.1
"""Share of a window's side below the feet, with the placement `ground`: what 1.25 x the height leaves around it."""


def square_window(
    boxes: Sequence[Rectangle], scale: float, placement: Placement = "centre", height_scale: float = 0
) -> Rectangle:
    """A square of `scale` x the longer side of the union of `boxes`, and of no less than `height_scale` x its height.

    placement: `centre`, around the centre of the union; `ground`, the union stands in the middle, a tenth of the side
    above the window's lower edge: whatever its kind, an animal's feet are in the same place. Where such a window would
    reach over the top of the photo, where nobody sees what is made, what `height_scale` asks beyond `scale` is given up
    as far as needed, then the window moves down, at most to the centre.
    """
    if not boxes:
        raise ValueError("a window needs at least one box")
    x0, y0 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x1, y1 = max(box[2] for box in boxes), max(box[3] for box in boxes)
    side = max(SMALLEST_SIDE, math.ceil(scale * max(x1 - x0, y1 - y0)))
    tall = math.ceil(height_scale * (y1 - y0))
    side = max(side, tall if placement == "centre" else min(tall, math.floor(y1 / (1 - BELOW))))
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    if placement == "ground":
        top = max(y1 + round(side * BELOW) - side, min(0, top))
    return left, top, left + side, top + side


def whole_window(size: tuple[int, int]) -> Rectangle:
    """The photo of `size` (H, W) itself."""
    return 0, 0, size[1], size[0]


def multiple_of_4(size: tuple[int, int]) -> tuple[int, int]:
    """The least (H, W), multiples of 4 and at least 8, that hold `size`."""
    height, width = size
    return max(8, -(-height // 4) * 4), max(8, -(-width // 4) * 4)


def inside(window: Rectangle, size: tuple[int, int]) -> Rectangle:
    """The part of `window` on a photo of `size` (H, W); empty where they do not meet."""
    x0, y0 = min(max(window[0], 0), size[1]), min(max(window[1], 0), size[0])
    return x0, y0, max(x0, min(window[2], size[1])), max(y0, min(window[3], size[0]))


def cut(pixels: NDArray[Value], window: Rectangle) -> NDArray[Value]:
    """`pixels` (H, W[, C]) inside `window`, mirrored at the photo's border: (h, w[, C]), a copy."""
    x0, y0, x1, y1 = window
    if inside(window, (pixels.shape[0], pixels.shape[1])) == tuple(window):
        return pixels[y0:y1, x0:x1].copy()
    rows, columns = _mirrored(y0, y1, pixels.shape[0]), _mirrored(x0, x1, pixels.shape[1])
    return np.ascontiguousarray(pixels.take(rows, axis=0).take(columns, axis=1))


def _mirrored(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Indices start..stop - 1 of a line of `length`, reflected at its ends (not repeated) as often as needed."""
    if length == 1:
        return np.zeros(stop - start, dtype=np.intp)
    period = 2 * (length - 1)
    index = np.abs(np.arange(start, stop, dtype=np.intp)) % period
    return np.where(index < length, index, period - index)


def cut_mask(mask: Mask, window: Rectangle) -> BoolMask:
    """`mask` inside `window`, mirrored at the photo's border like the pixels of :func:`cut`: bool (h, w)."""
    x0, y0, x1, y1 = window
    rows, columns = _mirrored(y0, y1, mask.size[0]), _mirrored(x0, x1, mask.size[1])
    top, left = int(rows.min()), int(columns.min())
    dense = mask.window((left, top, int(columns.max()) + 1, int(rows.max()) + 1))
    return np.ascontiguousarray(dense[np.ix_(rows - top, columns - left)])
