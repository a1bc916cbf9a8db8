"""How many instances a photo shows: if that tells the domains apart, a discriminator need not look at shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NOTABLE = 0.6
"""A separation above this is told."""


def separation(source: Sequence[int], target: Sequence[int]) -> float:
    """How well the count alone tells the domains apart: area under the ROC curve, 0.5 (not at all) to 1 (always).

    Raises ValueError for an empty side.
    """
    if not source or not target:
        raise ValueError(f"counts of both sides are needed, got {len(source)} and {len(target)}")
    ours, theirs = np.asarray(source)[:, None], np.asarray(target)[None]
    area = float((ours > theirs).mean() + 0.5 * (ours == theirs).mean())
    return max(area, 1 - area)
