"""What one step of a translation did, in memory and in the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from instapipe.pipeline.formats import (
    masks_bytes,
    npz_arrays,
    npz_bytes,
    pixels_bytes,
    read_masks,
    read_pixels,
)
from instapipe.pipeline.keys import json_bytes
from instapipe.structures import Mask, Pixels

State = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ChosenTry:
    """Which of several tries was taken.

    grade: of its outline by the weights' grader, about 0 (broken) to 2 (sound), less what it lost for how it stands
    among the others and for a head that its window cuts off; None where every try was a speck.
    tried: how many there were.  window: what it saw, (x0, y0, x1, y1).  round_trips: after the first translation.
    mirrored: whether it looks the other way than it was made.
    """

    grade: float | None
    tried: int
    window: tuple[int, int, int, int]
    round_trips: int
    mirrored: bool


@dataclass(frozen=True, slots=True, eq=False)
class StepRecord:
    """What one step did; what the cache keeps of it.

    masks: the translated masks, in the photo's frame.  changed: where pixels were allowed to change.
    patch: uint8 (h, w, 3), the pixels of the box of `changed`.
    state: float32 (H, W, 3) in [0, 255], where the rollout is one of floats; there is no patch then.
    chosen: where there were several tries.
    """

    masks: tuple[Mask, ...]
    changed: Mask
    patch: Pixels | None
    state: State | None = None
    chosen: ChosenTry | None = None

    def files(self) -> dict[str, bytes]:
        """As files of a cache entry: `masks.npz` (first where pixels changed, then the masks) and the pixels."""
        files = {"masks.npz": masks_bytes(self.changed.size, [self.changed, *self.masks])}
        if self.state is not None:
            files["state.npz"] = npz_bytes({"state": self.state})
        elif self.patch is not None:
            files["patch.png"] = pixels_bytes(self.patch)
        if self.chosen is not None:
            files["chosen.json"] = json_bytes(asdict(self.chosen))
        return files

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> StepRecord:
        """From :meth:`files`."""
        changed, *masks = read_masks(files["masks.npz"])
        if "state.npz" in files:
            return cls(tuple(masks), changed, None, npz_arrays(files["state.npz"])["state"])
        x0, y0, x1, y1 = changed.box
        chosen = None
        if "chosen.json" in files:
            facts = json.loads(files["chosen.json"])
            chosen = ChosenTry(**{**facts, "window": tuple(facts["window"])})
        return cls(tuple(masks), changed, read_pixels(files["patch.png"], (y1 - y0, x1 - x0)), chosen=chosen)
