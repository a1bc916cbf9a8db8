"""There and back and there again: what a generator made, through the other one and through it once more.

A generator's animal keeps what is odd about the one it was made of: legs hidden in grass, a body cut short. What the
other generator makes of it is an animal as it likes them best, and what is made of that stands on four legs more often
(docs/training-log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instapipe.config import CompositingConfig
from instapipe.imaging.telea import grow, smoothly_filled
from instapipe.translation.native import soft_union

StepFunction = Callable[[NDArray[np.float32], NDArray[np.bool_]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""One step of a translator, at the model's size: from pixels, float32 (h, w, 3) in [0, 255], and masks, bool (n, h, w),
to the generator's image, float32 (h, w, 3) in [0, 255], and the mattes, float32 (n, h, w) in [0, 1]; or (1, h, w), one
for all."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What a step was given and what it made of it; all as of :data:`StepFunction`."""

    pixels: NDArray[np.float32]
    masks: NDArray[np.bool_]
    raw: NDArray[np.float32]
    mattes: NDArray[np.float32]

    @classmethod
    def of(cls, step: StepFunction, pixels: NDArray[np.float32], masks: NDArray[np.bool_]) -> Turn:
        """What `step` makes."""
        return cls(pixels, masks, *step(pixels, masks))

    def onward(self, step: StepFunction, compositing: CompositingConfig) -> Turn | None:
        """The next one: `step` is given the composite that training would show it, and hard masks of what was made.

        None where an instance is gone.
        """
        made = self.mattes >= 0.5
        if not made.any(axis=(1, 2)).all():
            return None
        return Turn.of(step, self.composite(compositing), made)

    def composite(self, compositing: CompositingConfig) -> NDArray[np.float32]:
        """What was made, before what lies behind the old instances; float32 (h, w, 3) in [0, 255]."""
        old = np.asarray(self.masks.any(axis=0))
        hole = grow(old, compositing.dilate)
        pixels = np.rint(self.pixels).clip(0, 255).astype(np.uint8)
        filled = smoothly_filled(pixels, hole, np.zeros_like(hole), compositing.inpaint_radius)
        behind = np.where(hole[:, :, None], filled, self.pixels)
        matte = soft_union(self.mattes, compositing.soften)[:, :, None]
        return np.asarray(matte * self.raw + (1 - matte) * behind, dtype=np.float32)


def round_trip(turn: Turn, there: StepFunction, back: StepFunction, compositing: CompositingConfig) -> Turn | None:
    """What `there` makes of what `back` makes of what `turn` has made; None where an instance is lost on the way."""
    returned = turn.onward(back, compositing)
    return None if returned is None else returned.onward(there, compositing)
