"""How much wider legs of real instances are than those that weights make, at each hundredth of the animal's height."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.errors import DataError
from instapipe.structures import BoolMask
from instapipe.translation.feet import legs_in

HUNDREDTHS = 24
"""Up to which height: there legs of giraffes are still legs."""
FINE = 4
"""Outlines of what weights make are looked at so many times as finely as they are made."""
_LEAST, _MOST = 0.7, 1.6
"""What nobody would believe of a median is cut off: feet that end in a point have a width of next to nothing."""
_FEWEST = 20
"""Legs that a median is taken of, at least."""


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
