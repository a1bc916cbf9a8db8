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


def same_ridge(centre: Map, one: NDArray[np.int64], other: NDArray[np.int64], valley: float) -> bool:
    """Whether the heat between two peaks never falls under `valley` times the lower one.

    A long animal can have a ridge of peaks; between the centres of two animals the heat falls to nothing.
    """
    steps = int(np.abs(one - other).max()) + 1
    rows, columns = (np.rint(np.linspace(one[k], other[k], steps)).astype(int) for k in (0, 1))
    lower = min(centre[one[0], one[1]], centre[other[0], other[1]])
    return bool(centre[rows, columns].min() >= valley * lower)


def group(
    semantic: Map,
    centre: Map,
    offset: Map,
    *,
    threshold: float = 0.25,
    valley: float = 0.35,
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
    # Each peak belongs to the highest one that it shares a ridge with, and to that one's own.
    leader = np.arange(len(centres))
    for i in range(len(centres)):
        leader[i] = leader[next((k for k in range(i) if same_ridge(centre, centres[k], centres[i], valley)), i)]
    rows, columns = np.nonzero(foreground)
    aim_y = rows + offset[0][foreground]
    aim_x = columns + offset[1][foreground]
    distances = (aim_y[:, None] - centres[:, 0]) ** 2 + (aim_x[:, None] - centres[:, 1]) ** 2
    owner = distances.argmin(axis=1)
    found = []
    for number, (y, x) in enumerate(centres):
        mine = np.isin(owner, np.flatnonzero(leader == number))
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
