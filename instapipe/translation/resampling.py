"""From the photo's scale to the model's and back: pixels, masks and mattes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.imaging.cutting import Value
from instapipe.imaging.seen import resized
from instapipe.imaging.windows import Rectangle, inside
from instapipe.structures import BoolMask, Mask, Pixels

_DETAIL = 0.7
"""Width of the detail that is made stronger, in model pixels."""
_STEEPEST = 1.2
"""How much stronger at most."""
_EDGE = 0.7
"""How much steeper an enlarged matte's edge gets, over the scale."""


def shrink(window: Pixels, size: tuple[int, int]) -> NDArray[np.float32]:
    """Pixels at the model's `size` (h, w), float32 in [0, 255]; area-averaged where they shrink."""
    return resized(window, size).astype(np.float32)


def shrink_mask(mask: BoolMask, size: tuple[int, int]) -> BoolMask:
    """A mask at the model's `size` (h, w), still a mask: pixels of which half or more is covered.

    One too thin for that keeps the pixels that it covers most.
    """
    if mask.shape == size:
        return mask
    covered = resized(mask.astype(np.uint8) * np.uint8(255), size)
    out = covered >= 128
    if mask.any() and not out.any():
        out = covered >= max(1, int(covered.max()))
        if not out.any():
            # Nearly nothing of it: the pixel under its first one.
            row, column = np.argwhere(mask)[0]
            out[int(row * size[0] / mask.shape[0]), int(column * size[1] / mask.shape[1])] = True
    return np.asarray(out)


def enlarged(plane: NDArray[np.float32], size: tuple[int, int], *, smooth: bool = False) -> NDArray[np.float32]:
    """float32 (h, w) from the model's size at `size` (H, W): cubic where `smooth`, else linear (never overshooting)."""
    if plane.shape == size:
        return plane
    if size[0] * size[1] < plane.shape[0] * plane.shape[1]:
        method = cv2.INTER_AREA
    else:
        method = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane, (size[1], size[0]), interpolation=method), dtype=np.float32)


def missing_sharpness(raw: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """What to add to each channel of a generator's image, float32 (h, w, 3), enlarged to `size` (H, W): float32 (H, W).

    What is enlarged many times looks soft beside the photo around it. Edges in lightness are made steeper, within the
    range that a pixel's neighbours span: no halo.
    """
    grey = np.ascontiguousarray(raw.mean(axis=2))
    scale = min(size[0] / grey.shape[0], size[1] / grey.shape[1])
    if scale <= 1:
        return np.zeros(size, dtype=np.float32)
    steeper = grey + min(_STEEPEST, scale - 1) * (grey - cv2.GaussianBlur(grey, (0, 0), _DETAIL))
    out = enlarged(steeper, size, smooth=True)
    around = np.ones((3, 3), np.uint8)
    np.maximum(out, enlarged(np.asarray(cv2.erode(grey, around), dtype=np.float32), size), out=out)
    np.minimum(out, enlarged(np.asarray(cv2.dilate(grey, around), dtype=np.float32), size), out=out)
    out -= enlarged(grey, size, smooth=True)
    return out


def laid(plane: NDArray[Value], corner: tuple[int, int], size: tuple[int, int]) -> NDArray[Value]:
    """`plane` (h, w) with its first pixel at `corner` (x, y) of a plane of `size` (H, W), 0 where it does not reach."""
    x, y = corner
    if (x, y) == (0, 0) and plane.shape == size:
        return plane
    out = np.zeros(size, dtype=plane.dtype)
    x0, y0, x1, y1 = inside((x, y, x + plane.shape[1], y + plane.shape[0]), size)
    out[y0:y1, x0:x1] = plane[y0 - y : y1 - y, x0 - x : x1 - x]
    return out


def crisp_edge(matte: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A matte, float32 (h, w) in [0, 1], at `size` (H, W), as sharp there as it is at the model's size.

    The outline is where it was: where the matte is a half.
    """
    scale = min(size[0] / matte.shape[0], size[1] / matte.shape[1])
    if scale <= 1:
        return enlarged(matte, size)
    steep = max(1.0, _EDGE * scale)
    return np.asarray(np.clip((enlarged(matte, size, smooth=True) - 0.5) * steep + 0.5, 0, 1), dtype=np.float32)


def enlarged_mask(matte: NDArray[np.float32], window: Rectangle, size: tuple[int, int]) -> Mask:
    """A matte of the model's size, float32 (h, w) in [0, 1], as a mask of a photo of `size`: where it is >= 0.5."""
    x0, y0, x1, y1 = window
    dense = enlarged(matte, (y1 - y0, x1 - x0)) >= 0.5
    left, top, right, bottom = inside(window, size)
    return Mask.from_crop(size, (left, top), dense[top - y0 : bottom - y0, left - x0 : right - x0])
