"""Windows of photos and their resizing. No torch: packing and checking need none."""

from __future__ import annotations

import cv2
import numpy as np

from instapipe.structures import BoolMask, Mask, Pixels

Rectangle = tuple[int, int, int, int]
"""(x0, y0, x1, y1), whole pixels, x1 and y1 exclusive; may reach over a photo's border."""


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


def square_window(box: Rectangle, scale: float) -> Rectangle:
    """The square of `scale` x the longer side of `box` around its centre; may leave the photo."""
    x0, y0, x1, y1 = box
    side = max(4, round(scale * max(x1 - x0, y1 - y0)))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    return left, top, left + side, top + side


def cut(pixels: Pixels, rectangle: Rectangle) -> Pixels:
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


def outline_on_border(mask: Mask) -> float:
    """Which share of the outline of the mask's box lies on the photo's border; 0 for an empty mask."""
    x0, y0, x1, y1 = mask.box
    h, w = mask.size
    length = (y1 - y0) * ((x0 == 0) + (x1 == w)) + (x1 - x0) * ((y0 == 0) + (y1 == h))
    return length / max(1, 2 * (x1 - x0 + y1 - y0))
