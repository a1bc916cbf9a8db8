"""Where in a photo a new animal belongs: on the feet of the old one, in the photo, beside its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import cv2
import numpy as np

from instapipe.imaging.windows import Rectangle, hull, inside, placed
from instapipe.pipeline.records import State
from instapipe.structures import BoolMask, Mask
from instapipe.translation.native import extent, in_front
from instapipe.translation.resampling import shrink_mask

_FREEDOMS = (1.0, 0.75, 0.5, 0.25, 0.0)
_MOST_COVERED = 0.02
"""How much of a new animal may lie over others before it is turned or becomes narrower."""
_CUT_OFF, _TOP, _HIDDEN = 0.02, 0.2, 0.5
"""A share that hangs together with the rest behind others alone; the part of the height where heads are, and the share
of it that must be hidden to count."""


@dataclass(frozen=True, slots=True)
class Placed:
    """place: where the generator's window belongs.  mirrored: whether the new animals look the other way there.

    covered: the share of them that lies over others, or behind.
    beheaded: whether those in front hide most of the upper end of one, or what holds pieces of it together, its neck
    above all.
    """

    place: Rectangle
    mirrored: bool = False
    covered: float = 0
    beheaded: bool = False


def find_place(
    window: Rectangle,
    masks: Sequence[Mask],
    mattes: State,
    painted: BoolMask,
    animals: BoolMask | None,
    *,
    turned: Sequence[bool] = (False,),
) -> Placed:
    """In their own proportions, or as much narrower as their neighbours ask; of several ways to the side where there is
    room.

    window: with the placement `ground`.  masks: of the old animals.  mattes: float32 (n, h, w), what was made of it.
    painted: bool (H, W), what earlier steps made.  animals: bool (H, W), all that the photo had.
    turned: which ways the new ones may look: as they do (False), the other way (True), or both.
    """
    size = (painted.shape[0], painted.shape[1])
    content = extent(mattes)
    if content is None:
        return Placed(window)
    left, top, right, bottom = content
    ways = [(mirrored, (1 - right, top, 1 - left, bottom) if mirrored else content) for mirrored in turned]
    tries = [(placed(window, size, part, freedom), mirrored)
             for freedom in _FREEDOMS for mirrored, part in ways]  # fmt: skip
    x0, y0, x1, y1 = where = inside(reduce(hull, (place for place, _ in tries)), size)
    old = together(masks, where)
    front = in_front(painted[y0:y1, x0:x1], old)
    others = front if animals is None else front | (animals[y0:y1, x0:x1] & ~old)
    rest, hidden = (Mask.from_crop(size, (x0, y0), part) for part in (others, front))
    new = mattes.max(axis=0) >= 0.5
    over = []
    for place, mirrored in tries:
        shape = new[:, ::-1] if mirrored else new
        over.append(int((shrink_mask(rest.window(place), new.shape) & shape).sum()))
        if over[-1] <= _MOST_COVERED * new.sum():
            chosen = len(over) - 1
            break
    else:
        chosen = min(range(len(tries) - len(ways), len(tries)), key=over.__getitem__)  # of the narrowest
    place, mirrored = tries[chosen]
    behind = shrink_mask(hidden.window(place), new.shape)
    shapes = (mattes[:, :, ::-1] if mirrored else mattes) >= 0.5
    beheaded = any(_beheaded(shape, shape & ~behind) for shape in shapes)
    return Placed(place, mirrored, over[chosen] / max(1, new.sum()), beheaded)


def together(masks: Sequence[Mask], region: Rectangle) -> BoolMask:
    """Where in `region` any of `masks` is: bool (h, w)."""
    x0, y0, x1, y1 = region
    out = np.zeros((y1 - y0, x1 - x0), dtype=np.bool_)
    for mask in masks:
        out |= mask.window(region)
    return out


def _beheaded(shape: BoolMask, visible: BoolMask) -> bool:
    rows = np.flatnonzero(shape.any(axis=1))
    if rows.size == 0:
        return False
    upper = np.s_[rows[0] : rows[0] + max(1, round(_TOP * rows.size))]
    hidden = 1 - visible[upper].sum() / shape[upper].sum()
    return bool(hidden > _HIDDEN or _apart(visible) - _apart(shape) > _CUT_OFF)


def _apart(shape: BoolMask) -> float:
    """The share of `shape` outside its largest piece."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(shape.astype(np.uint8), connectivity=8)
    pieces = stats[1:, cv2.CC_STAT_AREA]
    return float(1 - pieces.max() / pieces.sum()) if len(pieces) else 0.0
