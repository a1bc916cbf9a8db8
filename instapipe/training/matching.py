"""In what real instances differ from those that weights make: how wide legs are at each hundredth of the animal's
height, and how much tones vary from one to the next."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.errors import DataError
from instapipe.structures import BoolMask, Pixels
from instapipe.translation.feet import legs_in

HUNDREDTHS = 24
"""Up to which height: there legs of giraffes are still legs."""
FINE = 4
"""Outlines of what weights make are looked at so many times as finely as they are made."""
_LEAST, _MOST = 0.7, 1.6
"""What nobody would believe of a median is cut off: feet that end in a point have a width of next to nothing."""
_FEWEST = 20
"""Legs that a median is taken of, at least."""
_SHARE = 0.4
"""Of how tones vary: the rest is light, which animals of one photo share; with two thirds some seemed to glow."""


def widths_of(shapes: Iterable[BoolMask]) -> NDArray[np.float32]:
    """Of each leg that can be followed so far its width at each hundredth of the height, in heights, (N, HUNDREDTHS).

    shapes: bool (h, w), an animal each.
    """
    found = []
    for shape in shapes:
        rows = np.flatnonzero(shape.any(axis=1))
        height = int(np.ptp(rows)) + 1 if rows.size else 0
        most = round(HUNDREDTHS * height / 100)
        for leg in legs_in(shape, most):
            if len(leg.widths) >= max(2, most):
                at = (np.arange(HUNDREDTHS) + 0.5) / 100 * height
                found.append(np.interp(at, np.arange(len(leg.widths)) + 0.5, leg.widths) / height)
    return np.array(found, np.float32).reshape(-1, HUNDREDTHS)


def finely(matte: NDArray[np.float32]) -> BoolMask:
    """The outline of a matte, float32 (h, w) in [0, 1], FINE times as fine."""
    size = (FINE * matte.shape[1], FINE * matte.shape[0])
    return np.asarray(cv2.resize(matte, size, interpolation=cv2.INTER_CUBIC) >= 0.5)


def factors(real: NDArray[np.float32], made: NDArray[np.float32]) -> tuple[float, ...]:
    """Medians of the real ones over those of the made ones, (N, HUNDREDTHS) and (M, HUNDREDTHS), smoothed.

    Raises DataError where there are too few.
    """
    for name, legs in (("real", real), ("made", made)):
        if len(legs) < _FEWEST:
            raise DataError(f"{len(legs)} {name} legs can be followed up, {_FEWEST} at least are needed: more photos")
    ratio = np.clip(np.median(real, axis=0) / np.median(made, axis=0), _LEAST, _MOST)
    padded = np.pad(ratio, 1, mode="edge")
    return tuple(round(float(each), 3) for each in (padded[:-2] + padded[1:-1] + padded[2:]) / 3)


def tone_of(pixels: Pixels, shape: BoolMask) -> NDArray[np.float32]:
    """The mean L*, a*, b* of an instance, uint8 (h, w, 3) and bool (h, w): (3,)."""
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.asarray(lab[shape].mean(axis=0), np.float32)


def deviations(real: NDArray[np.float32], made: NDArray[np.float32]) -> tuple[float, float, float]:
    """By how much tones of made instances are to vary more, to vary as real ones of one photo do: of (N, 3), (M, 3)."""
    more = _SHARE * np.sqrt(np.maximum(real.var(axis=0) - made.var(axis=0), 0))
    first, second, third = (round(float(each), 1) for each in more)
    return first, second, third
