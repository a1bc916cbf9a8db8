"""Windows to try a network on where no photo is at hand: statistics like those of photos, and always the same bytes.

"Dead leaves" (Lee, Mumford and Huang, IJCV 2001): discs that hide one another, of sizes that follow a power law, have
the edges and the spectrum of natural images. On them stand blobs with legs, and the masks of those.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_LEAVES = 400


def probe_window(size: tuple[int, int], instances: int, seed: int) -> tuple[Array, Array]:
    """An image, float32 (3, H, W), and `instances` masks, float32 (N, H, W) of -1 and 1, both in [-1, 1]."""
    rng = np.random.default_rng(seed)
    canvas = _leaves(size, rng)
    masks = np.full((instances, *size), -1.0, dtype=np.float32)
    for mask in masks:
        shape = _animal(size, instances, rng)
        coat = rng.uniform(90, 240) + rng.normal(0, 12, (*size, 3)) + 25 * (canvas - canvas.mean()) / (canvas.std() + 1)
        canvas = np.where(shape[:, :, None], coat, canvas)
        mask[shape] = 1.0
    canvas = cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), 0.7) + rng.normal(0, 3, canvas.shape)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), masks


def _leaves(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """float64 (H, W, 3) in [0, 255]."""
    height, width = size
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = rng.integers(60, 200, 3, dtype=np.uint8)
    largest = max(height, width) / 3
    radii = 1.0 / np.sqrt(rng.uniform(largest**-2.0, 0.25, _LEAVES))
    for radius in radii:
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        shade, tint = rng.uniform(20, 230), rng.normal(0, 18, 3)
        cv2.circle(canvas, centre, max(1, round(radius)), np.clip(shade + tint, 0, 255).tolist(), -1)
    return canvas.astype(np.float64)


def _animal(size: tuple[int, int], instances: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A body, a head and legs, bool (H, W); the more there are, the smaller each is."""
    height, width = size
    scale = min(height, width) * rng.uniform(0.55, 0.85) / np.sqrt(instances)
    x, y = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.35, 0.6)
    if instances > 1:
        x, y = width * rng.uniform(0.15, 0.85), height * rng.uniform(0.2, 0.75)
    out = np.zeros(size, np.uint8)
    body = (max(2, round(scale * 0.45)), max(2, round(scale * 0.25)))
    cv2.ellipse(out, (round(x), round(y)), body, 0, 0, 360, 1, -1)
    head = (round(x + rng.choice([-1, 1]) * body[0]), round(y - body[1]))
    cv2.ellipse(out, head, (max(1, body[0] // 3), max(1, body[1] // 2)), 30, 0, 360, 1, -1)
    for leg in (-0.7, -0.4, 0.4, 0.7):
        top = (round(x + leg * body[0]), round(y))
        cv2.line(out, top, (top[0], round(y + 2.1 * body[1])), 1, max(1, round(scale / 12)))
    return out.astype(np.bool_)
