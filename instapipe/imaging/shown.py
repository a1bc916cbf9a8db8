"""What networks are shown of a photo's masks, in training and in translation alike."""

from __future__ import annotations

import numpy as np

from instapipe.config import Shown
from instapipe.structures import BoolMask


def shown_masks(masks: BoolMask, shown: Shown) -> BoolMask:
    """bool (N, H, W) -> (N, H, W) of `instances`, else (1, H, W): the `union` of all, or (`none`) a :func:`frame`."""
    if shown == "union":
        return np.asarray(masks.any(axis=0, keepdims=True))
    if shown == "none":
        return frame((masks.shape[1], masks.shape[2]))[None]
    return masks


def frame(size: tuple[int, int]) -> BoolMask:
    """bool `size` (H, W), the same for every photo: what a set network is given where it is to be given no mask.

    Everything but a border of an eighth. Not simply everything: instance norm makes of a constant mask nothing but
    rounding errors, and in a few layers makes those as large as features.
    """
    height, width = size
    out = np.zeros(size, dtype=np.bool_)
    out[height // 8 : height - height // 8, width // 8 : width - width // 8] = True
    return out
