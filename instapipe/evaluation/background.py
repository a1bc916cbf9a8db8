"""What happened to the photo outside the animals.

"Background" is every pixel outside all old and all new masks, grown by the width of the seam that the compositing
declares. Everything is averaged over those pixels alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.structures import BoolMask, Pixels

FOREIGN = 12.0
"""CIELAB distance from which a colour counts as none of those nearby (2.3 is just noticeable; shade alone makes 10)."""


@dataclass(frozen=True, slots=True)
class Background:
    """l1: mean absolute difference, grey levels of 255.  ssim: mean structural similarity.  identical: share of
    pixels equal in every channel.  share: of the photo that is background.  NaN where there is none.
    """

    l1: float
    ssim: float
    identical: float
    share: float


def background(before: Pixels, after: Pixels, outside: BoolMask) -> Background:
    """Compare uint8 (H, W, 3) photos where `outside`, bool (H, W), is true; raises ValueError on unequal shapes."""
    if before.shape != after.shape or outside.shape != before.shape[:2]:
        raise ValueError(f"expected equal sizes, got {before.shape}, {after.shape} and {outside.shape}")
    if not outside.any():
        return Background(math.nan, math.nan, math.nan, 0.0)
    difference = np.abs(before.astype(np.int16) - after.astype(np.int16))[outside]
    return Background(
        float(difference.mean()),
        float(ssim_map(before, after)[outside].mean()),
        float((difference.max(axis=1) == 0).mean()),
        float(outside.mean()),
    )


def ssim_map(before: Pixels, after: Pixels) -> NDArray[np.float64]:
    """float64 (H, W): structural similarity (Wang et al., 2004; Gaussian of 11 pixels, sigma 1.5), mean of the
    channels, mirrored at the border."""
    x, y = before.astype(np.float64), after.astype(np.float64)

    def smooth(image: NDArray[np.float64]) -> NDArray[np.float64]:
        out = cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(out, dtype=np.float64)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return np.asarray(similarity.mean(axis=2), dtype=np.float64)


def foreign_colours(before: Pixels, after: Pixels, old: BoolMask, new: BoolMask, *, reach: float = 0.5) -> float:
    """Share of the vacated pixels (in `old`, not in `new`) whose colour occurs nowhere nearby; NaN where none is.

    Nearby: the untouched photo around the old animal, up to `reach` times the longer side of its box. A hole painted in
    neon green scores 1, one that was filled with the grass around it 0.
    """
    hole = old & ~new
    if not hole.any():
        return math.nan
    rows, columns = np.nonzero(old)
    height, width = old.shape
    far = max(4, round(reach * max(int(np.ptp(rows)), int(np.ptp(columns)))))
    top, bottom = max(0, int(rows.min()) - far), min(height, int(rows.max()) + far + 1)
    left, right = max(0, int(columns.min()) - far), min(width, int(columns.max()) + far + 1)
    around = ~old[top:bottom, left:right]
    if not around.any():
        return math.nan
    near, _ = _colours(before[top:bottom, left:right][around])
    inside, counts = _colours(after[top:bottom, left:right][hole[top:bottom, left:right]])
    # Distinct colours against distinct colours, in slices: a photo has thousands of them.
    slices = np.array_split(inside, max(1, len(inside) * len(near) // 2_000_000))
    least = np.concatenate([((part[:, None, :] - near[None]) ** 2).sum(axis=2).min(axis=1) for part in slices])
    return float(counts[least > FOREIGN**2].sum() / counts.sum())


def _colours(pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The distinct colours of uint8 (n, 3), in CIELAB and in steps of 2: float32 (k, 3), and how often each occurs."""
    lab = cv2.cvtColor(pixels.reshape(1, -1, 3).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    steps, counts = np.unique(np.round(lab / 2).astype(np.int16), axis=0, return_counts=True)
    return steps.astype(np.float32) * 2, counts.astype(np.int64)
