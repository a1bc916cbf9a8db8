"""From dense maps to instances: every animal pixel goes to the centre that its offset points at."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.structures import BoolMask

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One grouped instance.

    mask: bool (h, w).  centre: its centre's probability.  classes: float32 (classes,), mean over the mask, sum 1.
    solidity: mean probability over the mask of being an animal at all.
    """

    mask: BoolMask
    centre: float
    classes: NDArray[np.float32]
    solidity: float


def peaks(centre: Map, threshold: float, reach: int, most: int) -> NDArray[np.int64]:
    """(n, 2) rows and columns of the local maxima of (h, w) over `threshold`, none within `reach` of a higher one,
    highest first, at most `most`."""
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    top = (centre >= cv2.dilate(centre, window)) & (centre > threshold)
    found = np.argwhere(top)
    order = np.argsort(-centre[top], kind="stable")
    return found[order][:most]


def group(
    semantic: Map,
    centre: Map,
    offset: Map,
    *,
    threshold: float = 0.15,
    reach: int = 6,
    most: int = 40,
    smallest: int = 12,
) -> list[Group]:
    """Instances out of maps of one photo, highest centre first.

    semantic: (1 + classes, h, w) probabilities, background first.  centre: (h, w) probabilities.  offset: (2, h, w), in
    pixels of these maps.  Animal pixels without any centre above `threshold` belong to none; instances of fewer
    than `smallest` pixels are dropped.
    """
    foreground = semantic[0] < 0.5
    centres = peaks(centre, threshold, reach, most)
    if not len(centres) or not foreground.any():
        return []
    rows, columns = np.nonzero(foreground)
    aim_y = rows + offset[0][foreground]
    aim_x = columns + offset[1][foreground]
    distances = (aim_y[:, None] - centres[:, 0]) ** 2 + (aim_x[:, None] - centres[:, 1]) ** 2
    owner = distances.argmin(axis=1)
    found = []
    for number, (y, x) in enumerate(centres):
        mine = owner == number
        if int(mine.sum()) < smallest:
            continue
        mask = np.zeros(foreground.shape, dtype=np.bool_)
        mask[rows[mine], columns[mine]] = True
        inside = semantic[:, mask]
        classes = inside[1:].mean(axis=1)
        found.append(
            Group(mask, float(centre[y, x]), (classes / classes.sum()).astype(np.float32), float(1 - inside[0].mean()))
        )
    return found
