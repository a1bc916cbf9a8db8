"""Pixels of a window of a photo."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from instapipe.imaging.windows import Rectangle, inside

Value = TypeVar("Value", bound=np.generic)


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
