"""Pieces of windows that show a part of an animal: what an upscaler learns from."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Part = Literal["head", "legs", "body"]
PARTS: tuple[Part, ...] = ("head", "legs", "body", "body")
"""What pieces show; bodies are large, and have two."""
_TOP, _DOWN, _UP, _JITTER = 0.14, 0.10, 0.20, 1 / 10
"""Shares of an animal's height: the part at the top that tells where its head is; how far under its top and above its
feet the middles of the pieces lie. And how far from there, in sides of a piece."""
_AWAY = 1 / 6
"""How far from a pixel of the instance the middle of a piece of its body lies at most, in sides of a piece."""


def corner(part: Part, mask: NDArray[np.bool_], side: int, rng: np.random.Generator) -> tuple[int, int]:
    """(y, x) of a piece of `side` squared that shows a part of the instance `mask` (H, W), which looks to the right,
    inside the window; somewhere, where there is none."""
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return int(rng.integers(mask.shape[0] - side + 1)), int(rng.integers(mask.shape[1] - side + 1))
    top, feet = int(rows.min()), int(rows.max()) + 1
    if part == "body":
        chosen, far = rng.integers(rows.size), _AWAY
        y, x = float(rows[chosen]), float(columns[chosen])
    elif part == "legs":
        y, x, far = feet - _UP * (feet - top), (columns.min() + columns.max()) / 2, _JITTER
    else:
        there = columns[rows < top + max(2, _TOP * (feet - top))]
        y, x, far = top + _DOWN * (feet - top), (there.max() + there.mean()) / 2, _JITTER
    y, x = (middle - side / 2 + side * rng.uniform(-far, far) for middle in (y, x))
    return min(max(round(y), 0), mask.shape[0] - side), min(max(round(x), 0), mask.shape[1] - side)
