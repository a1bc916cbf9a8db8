"""Coats differ in tone from one animal to the next, as those of real animals do.

A generator that has learnt one coat paints all in its tone: of 591 giraffes that sheep2giraffe-15 made the mean colours
vary by 0.9 of CIELAB's L*, 0.3 of a* and b* (standard deviations), of real ones by 10.9, 4.4 and 7.1. Where such ones
overlap, nobody sees where one ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.structures import Pixels

_STEPS = (0.618034, 0.754878, 0.569840)
"""From one animal to the next, of a whole turn: consecutive ones are far apart, and none comes twice (sequences of the
golden ratio and of the plastic number)."""
_SPARSE, _MIDDLE = 16, 50.0
"""Pixels, and the lightness that changes by just what is asked."""


@dataclass(frozen=True, slots=True)
class Match:
    """In what what is made is made like real ones.

    leg_widths: see :func:`instapipe.translation.feet.with_leg_widths`.
    tones: standard deviations of L*, a*, b* from one animal to the next.
    """

    leg_widths: tuple[float, ...] = ()
    tones: tuple[float, float, float] = (0, 0, 0)


def toned(raw: NDArray[np.float32], tones: tuple[float, float, float], number: int) -> NDArray[np.float32]:
    """raw: float32 (h, w, 3) in [0, 255], RGB. Returns it in the tone of animal `number`; lightness is scaled, so dark
    stays dark."""
    if not any(tones):
        return raw
    turns = (2 * ((number * step) % 1) - 1 for step in _STEPS)
    lightness, *colours = (3**0.5 * deviation * turn for deviation, turn in zip(tones, turns, strict=True))
    lab = np.asarray(cv2.cvtColor(raw / np.float32(255), cv2.COLOR_RGB2LAB), np.float32)
    lab = lab * np.array([1 + lightness / _MIDDLE, 1, 1], np.float32) + np.array([0, *colours], np.float32)
    return np.asarray(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * np.float32(255), np.float32)


def first_of(photo: Pixels) -> int:
    """The number of the first animal of a photo, uint8 (H, W, 3): of each photo another."""
    return int(photo[::_SPARSE, ::_SPARSE].sum())
