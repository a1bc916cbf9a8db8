"""What one step of a translation did, in memory and in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instapipe.pipeline.formats import masks_bytes, npz_arrays, npz_bytes, pixels_bytes, read_masks, read_pixels
from instapipe.structures import Mask, Pixels

State = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class StepRecord:
    """What one step did; what the cache keeps of it.

    masks: the translated masks, in the photo's frame.  changed: where pixels were allowed to change.
    patch: uint8 (h, w, 3), the pixels of the box of `changed`.
    state: float32 (H, W, 3) in [0, 255], where the rollout is one of floats; there is no patch then.
    """

    masks: tuple[Mask, ...]
    changed: Mask
    patch: Pixels | None
    state: State | None = None

    def files(self) -> dict[str, bytes]:
        """As files of a cache entry: `masks.npz` (first where pixels changed, then the masks) and the pixels."""
        files = {"masks.npz": masks_bytes(self.changed.size, [self.changed, *self.masks])}
        if self.state is not None:
            files["state.npz"] = npz_bytes({"state": self.state})
        elif self.patch is not None:
            files["patch.png"] = pixels_bytes(self.patch)
        return files

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> StepRecord:
        """From :meth:`files`."""
        changed, *masks = read_masks(files["masks.npz"])
        if "state.npz" in files:
            return cls(tuple(masks), changed, None, npz_arrays(files["state.npz"])["state"])
        x0, y0, x1, y1 = changed.box
        return cls(tuple(masks), changed, read_pixels(files["patch.png"], (y1 - y0, x1 - x0)))
