"""Which way an animal looks, by its outline alone."""

from __future__ import annotations

import numpy as np

from instapipe.structures import BoolMask

_TOP = 0.25
"""Share of the box's height in which a head is looked for."""


def faces_left(mask: BoolMask) -> bool:
    """Whether the top of the instance lies left of the middle of its box: bool (H, W) -> bool.

    The head of an animal that stands is what is highest. An empty mask does not face left; mirrored masks give opposite
    answers but for exact symmetry.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return False
    height = max(1, int((rows[-1] - rows[0] + 1) * _TOP))
    across = np.nonzero(mask[rows[0] : rows[0] + height])[1]
    return bool(2 * across.mean() < columns[0] + columns[-1])
