"""Where in a photo a new animal belongs: on the feet of the old one, in the photo, beside its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.imaging.windows import Rectangle, hull, inside, placed
from instapipe.pipeline.records import State
from instapipe.structures import BoolMask, Mask
from instapipe.translation.native import extent, nearer
from instapipe.translation.resampling import enlarged_mask, shrink_mask

Depth = Literal["nearer", "before", "behind"]
_FREEDOMS = (1.0, 0.75, 0.5, 0.25, 0.0)
_ASIDE = (0.0, 0.1, -0.1, 0.2, -0.2)
"""How far a new animal may step aside, as shares of its width."""
_MOST_COVERED = 0.02
"""How much of a new animal may lie over others before it is turned, steps aside or becomes narrower."""
_COVERING, _BEHEADED = 3.0, 1.0
"""Grades that are lost where all of an animal lies over others, and where they hide its head or what holds it
together."""
_NARROWING, _STEPPING = 0.1, 0.3
"""The same for all the way to the narrowest, and for a step of its own width."""
_CUT_OFF, _TOP, _HIDDEN = 0.02, 0.2, 0.5
"""A share that hangs together with the rest behind others alone; the part of the height where heads are, and the share
of it that must be hidden to count."""
_LEVEL = 0.03
"""Feet of which the rows differ by less than this share of the height stand beside each other."""
_FINENESS = 2
"""Others are looked at so many times as finely as the generator works."""
_COARSE = 96
"""Pixels along the longer side of what is remembered of an animal: 64 of them are to take no memory."""


@dataclass(frozen=True, slots=True)
class Placed:
    """place: where the generator's window belongs.  mirrored: whether the new animals look the other way there.

    covered: the share of them that lies over others, or behind.
    beheaded: whether most of the upper end of an animal would be hidden, or what holds pieces of it together, its neck
    above all.
    """

    place: Rectangle
    mirrored: bool = False
    covered: float = 0
    beheaded: bool = False

    @property
    def lost(self) -> float:
        """Grades, for that."""
        return _COVERING * self.covered + _BEHEADED * self.beheaded


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """An animal that an earlier step made, as coarsely as suffices. box: (x0, y0, x1, y1) of the photo.

    shape: bool (h, w), what is seen of it in there.
    """

    box: Rectangle
    shape: BoolMask

    @classmethod
    def of(cls, mask: Mask) -> Standing:
        """From the mask of what is seen."""
        scale = min(1.0, _COARSE / max(1, *mask.crop.shape))
        height, width = (max(1, round(scale * side)) for side in mask.crop.shape)
        return cls(mask.box, shrink_mask(mask.crop, (height, width)))

    def behind(self, mask: Mask) -> Standing:
        """What is left of it behind `mask`."""
        x0, y0, x1, y1 = self.box
        left, top, right, bottom = mask.box
        if not (left < x1 and x0 < right and top < y1 and y0 < bottom):
            return self
        height, width = self.shape.shape
        return Standing(self.box, self.shape & ~shrink_mask(mask.window(self.box), (height, width)))

    def beheaded_by(self, mask: Mask) -> bool:
        """Whether `mask` before it would hide its head, or what holds it together."""
        left = self.behind(mask)
        return left is not self and _beheaded(self.shape, left.shape)


def find_place(
    window: Rectangle,
    masks: Sequence[Mask],
    mattes: State,
    painted: NDArray[np.uint16],
    animals: BoolMask | None,
    *,
    turned: Sequence[bool] = (False,),
) -> Placed:
    """In their own proportions where the old ones stood, or as much narrower and as far aside as their neighbours ask;
    of several ways to the side where there is room.

    window: with the placement `ground`.  masks: of the old animals.  mattes: float32 (n, h, w), what was made of it.
    painted: (H, W), what earlier steps made, see :func:`instapipe.translation.native.nearer`.
    animals: bool (H, W), all that the photo had.
    turned: which ways the new ones may look: as they do (False), the other way (True), or both.
    """
    size = (painted.shape[0], painted.shape[1])
    content = extent(mattes)
    if content is None:
        return Placed(window)
    left, top, right, bottom = content
    ways = [(mirrored, (1 - right, top, 1 - left, bottom) if mirrored else content) for mirrored in turned]
    step = (right - left) * (window[2] - window[0])
    tries = [
        (placed(_moved(window, round(aside * step)), size, part, freedom), mirrored,
         _NARROWING * (1 - freedom) + _STEPPING * abs(aside))
        for freedom in _FREEDOMS for aside in _ASIDE for mirrored, part in ways
    ]  # fmt: skip
    x0, y0, x1, y1 = where = inside(reduce(hull, (place for place, _, _ in tries)), size)
    old = together(masks, where)
    made = painted[y0:y1, x0:x1]
    front = nearer(made, old, feet_of(masks))
    others = made > 0 if animals is None else (made > 0) | (animals[y0:y1, x0:x1] & ~old)
    if not others.any():
        return Placed(*tries[0][:2])
    scale = min(1.0, _FINENESS * mattes.shape[1] / (window[3] - window[1]))
    rest, hiding = _reduced(others, scale), _reduced(front, scale)
    shapes = mattes >= 0.5
    best: tuple[float, Placed] | None = None
    for place, mirrored, worse in tries:
        local = (place[0] - x0, place[1] - y0, place[2] - x0, place[3] - y0)
        view = tuple(round(scale * value) for value in local)
        shown = shapes[:, :, ::-1] if mirrored else shapes
        covered = _share(_seen(rest, view, mattes.shape[1:]), np.asarray(shown.any(axis=0)))
        behind = _seen(hiding, view, mattes.shape[1:])
        beheaded = any(_beheaded(shape, shape & ~behind) for shape in shown)
        found = Placed(place, mirrored, covered, beheaded)
        if covered <= _MOST_COVERED and not beheaded:
            return found
        if best is None or found.lost + worse < best[0]:
            best = found.lost + worse, found
    assert best is not None
    return best[1]


def _moved(window: Rectangle, aside: int) -> Rectangle:
    """`window` so many pixels to the right."""
    return window[0] + aside, window[1], window[2] + aside, window[3]


def _reduced(mask: BoolMask, scale: float) -> Mask:
    """`mask` (h, w) at `scale`."""
    if scale < 1 and mask.size:
        height, width = (max(1, round(scale * side)) for side in mask.shape)
        mask = shrink_mask(mask, (height, width))
    return Mask.from_dense(mask)


def _seen(mask: Mask, view: Sequence[int], size: Sequence[int]) -> BoolMask:
    """What is in `view` of `mask`, at `size`."""
    x0, y0, x1, y1 = view
    return shrink_mask(mask.window((x0, y0, max(x0 + 1, x1), max(y0 + 1, y1))), (size[0], size[1]))


def _share(others: BoolMask, shape: BoolMask) -> float:
    """The share of `shape` where `others` are."""
    return float((others & shape).sum() / max(1, shape.sum()))


def find_depth(
    found: Placed, masks: Sequence[Mask], mattes: State, painted: NDArray[np.uint16], standing: Sequence[Standing]
) -> tuple[Depth, Placed]:
    """How deep in the photo the new animals stand, so that nobody's head is hidden, and what is lost then.

    As :func:`instapipe.translation.native.nearer` has it; where that would hide a head, before or behind all others
    that earlier steps made, if that hides none.

    found, masks, mattes, painted: as of :func:`find_place`, the mattes turned as they are `found`.
    """
    size = (painted.shape[0], painted.shape[1])
    new = [enlarged_mask(matte, found.place, size) for matte in mattes] if standing else []
    if found.beheaded:
        if not any(one.beheaded_by(mask) for one in standing for mask in new):
            return "before", replace(found, beheaded=False)
        return "nearer", found
    over = []
    for mask in new:
        x0, y0, x1, y1 = mask.box
        front = nearer(painted[y0:y1, x0:x1], together(masks, mask.box), feet_of(masks))
        over.append(Mask.from_crop(size, (x0, y0), mask.crop & ~front))
    if not any(one.beheaded_by(mask) for one in standing for mask in over):
        return "nearer", found
    for mask in new:
        x0, y0, x1, y1 = mask.box
        if _beheaded(mask.crop, mask.crop & (painted[y0:y1, x0:x1] == 0)):
            return "nearer", replace(found, beheaded=True)
    return "behind", found


def feet_of(masks: Sequence[Mask]) -> float:
    """The row below which an animal has to stand to be clearly nearer than those of `masks`."""
    top, bottom = min(mask.box[1] for mask in masks), max(mask.box[3] for mask in masks)
    return bottom + _LEVEL * (bottom - top)


def together(masks: Sequence[Mask], region: Rectangle) -> BoolMask:
    """Where in `region` any of `masks` is: bool (h, w)."""
    x0, y0, x1, y1 = region
    out = np.zeros((y1 - y0, x1 - x0), dtype=np.bool_)
    for mask in masks:
        out |= mask.window(region)
    return out


def masks_of(
    mattes: State, count: int, place: Rectangle, size: tuple[int, int], hidden: Mask | None = None
) -> tuple[Mask, ...]:
    """The translated mask of each of `count` instances: they share it where there is one matte for all.

    hidden: what is covered by others.
    """
    new = tuple(enlarged_mask(matte, place, size) for matte in mattes)
    if hidden is not None:
        new = tuple(Mask.from_crop(size, mask.box[:2], mask.crop & ~hidden.window(mask.box)) for mask in new)
    return new * count if len(new) < count else new


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
