"""Compositing at the photo's own scale: what the model painted at its size becomes part of a window of the photo.

Every function returns where it was allowed to change pixels; everywhere else the window comes back bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.config import CompositingConfig
from instapipe.imaging.filling import fill
from instapipe.imaging.windows import Rectangle
from instapipe.structures import BoolMask, Mask, Pixels
from instapipe.translation.feet import Shade, shaded
from instapipe.translation.resampling import crisp_edge, enlarged, laid, missing_sharpness

Background = Literal["natural", "exact"]
_FAINT = 0.02
"""A matte below this is nothing: a tanh never quite reaches its ends, and the changed region must have one."""
_FEATHER = 1 / 16
"""Width of the soft border of a window that replaces the photo's, as a share of its shorter side."""
_MATTE_FEATHER = 1 / 48
"""The same where an animal that is painted by its matte leaves the window."""
_SOLID = 0.25
_MOST_UNFIT = 0.85
"""Where hole and animals cover more of a window than this, animals may be copied from after all."""
_LEAST_PART = 1 / 20
"""A part of a matte apart from its largest one and smaller than this share of it is a sliver, not a leg."""
_LEAST_PIECE = 1 / 6
"""The same where the old animal was in one piece: then the new one is, too."""
_FLAT = 1 / 20
"""An animal that leaves its window over more than this share of the upper side has a head that is cut off."""
_FINE, _CRISP = 1.0, 0.7
"""Detail finer than so many pixels of the photo (the deviation of a Gaussian), and how much of it is added to what is
upscaled: that had 0.64 of what real giraffes in photos have of it, and as much as they of what is coarser; an observer
liked 15 of 20 better so, and none less (docs/training-log.md)."""
CUT_OFF = 1.0
"""Grades that are lost for that; an outline's grade hardly knows it."""


@dataclass(frozen=True, slots=True)
class Blend:
    """How a step is blended into the photo.

    compositing: as the weights were trained.  background: `natural`: just so; `exact`: nothing changes outside old and
    new masks and a seam.  seam: its width in model pixels.
    """

    compositing: CompositingConfig
    background: Background = "natural"
    seam: int = 5


def distance(mask: BoolMask) -> NDArray[np.float32]:
    """Pixels to the nearest True of `mask`, float32 (H, W); infinite where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    outside = (~mask).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_5), dtype=np.float32)


def without_slivers(matte: NDArray[np.float32], old: BoolMask) -> NDArray[np.float32]:
    """A matte, float32 (h, w) in [0, 1], without the small parts that lie apart from the animal.

    old: bool (h, w), the mask that it was made from. Behind a post an animal comes in several pieces, and the new may.
    """
    _, areas = _parts(old)
    pieces = int((areas >= _LEAST_PART * areas.max(initial=0)).sum())
    least = _LEAST_PIECE if pieces == 1 else _LEAST_PART
    parts, areas = _parts(matte >= _SOLID)
    small = [part for part, area in enumerate(areas, start=1) if area < least * areas.max()]
    if not small:
        return matte
    slivers = np.isin(parts, small)
    # With their faint edge, but nothing of the animal's own.
    edge = cv2.dilate(slivers.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    kept = (parts > 0) & ~slivers
    near = cv2.dilate(kept.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.where(edge & ~near | slivers, np.float32(0), matte)


def _parts(mask: BoolMask) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The connected parts of `mask`: int32 (h, w), numbered from 1, 0 outside; and the area of each in pixels."""
    _, parts, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(parts, np.int32), np.asarray(facts[1:, cv2.CC_STAT_AREA], np.int32)


def blend(
    region: Pixels,
    old: BoolMask,
    raw: NDArray[np.float32],
    mattes: NDArray[np.float32],
    settings: Blend,
    *,
    place: Rectangle | None = None,
    open_sides: tuple[bool, bool, bool, bool] = (False, False, False, False),
    painted: BoolMask | None = None,
    animals: BoolMask | None = None,
    in_front: BoolMask | None = None,
    fineness: int = 1,
    shade: Shade | None = None,
) -> tuple[Pixels, BoolMask]:
    """Blend one step's output into a region of the photo.

    region: uint8 (H, W, 3), the photo's own scale.  old: bool (H, W), the step's masks together.
    raw: float32 (h, w, 3) in [0, 255], the generator's image.  mattes: float32 (n, h, w) in [0, 1].
    fineness: how many of their pixels one of the model's has along a side: they may be upscaled.
    place: (x0, y0, x1, y1) of the region, where the generator's image belongs; none: everywhere.
    open_sides: (left, top, right, bottom): where that ends inside the photo, so that a border would show.
    painted: bool (H, W), the animals that earlier steps made: no hole is filled over them.
    animals: bool (H, W), all that is no background: no hole is filled with it.
    in_front: bool (H, W), what a matte does not change (see :func:`nearer`).
    shade: of the new animals, on what is no animal, where the background is natural.

    Returns the new region, uint8 (H, W, 3), and where it may differ, bool (H, W).
    """
    size = (region.shape[0], region.shape[1])
    x0, y0, x1, y1 = place or (0, 0, size[1], size[0])
    corner, span = (x0, y0), (y1 - y0, x1 - x0)
    scale = max(1.0, fineness * max(span[0] / mattes.shape[1], span[1] / mattes.shape[2]))
    if settings.compositing.mode == "matte":
        weight = crisp_edge(soft_union(mattes, settings.compositing.soften), span)
        # A neck that leaves the window fades out there instead of being cut; what ends before it stays as it is.
        fading = _ramp(span, _left_by(mattes, open_sides), _MATTE_FEATHER)
        weight = laid(np.clip((weight - _FAINT) / (1 - 2 * _FAINT), 0, 1) * fading, corner, size)
        if in_front is not None and in_front.any():
            width = max(1, round(settings.compositing.soften * scale))
            weight *= 1 - cv2.blur(in_front.astype(np.float32), (width, width))
    else:
        natural = settings.background == "natural"
        weight = _ramp(span, open_sides, _FEATHER) if natural else np.ones(span, np.float32)
        weight = laid(weight, corner, size)
    rim = settings.compositing.dilate * scale
    if settings.background == "exact":
        seam = settings.seam * scale
        rim = min(rim, seam)
        new = laid(enlarged(mattes.max(axis=0, initial=0), span) >= 0.5, corner, size)
        weight *= np.clip(1 - distance(old | new) / (seam + 1), 0, 1)
    if settings.compositing.mode == "matte":
        background, hole = remove_instances(region, old, rim=rim, painted=painted, animals=animals)
        changed = hole | (weight > 0)
        if shade is not None and settings.background == "natural":
            spared = np.zeros_like(old)
            for each in (painted, animals if animals is None else animals & ~old):
                if each is not None:
                    spared |= each
            background, dark = shaded(background, shade, spared)
            changed |= dark
    else:
        background, changed = region, weight > 0
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    out = region.copy()
    if rows.size == 0:
        return out, changed
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    weight, where = weight[part], changed[part]
    start, part_size = (x0 - int(columns[0]), y0 - int(rows[0])), weight.shape
    sharpness = laid(missing_sharpness(raw, span), start, part_size)
    near = np.maximum(cv2.GaussianBlur(weight, (0, 0), _FINE), 1e-3) if fineness > 1 else None
    # One channel at a time: on 20 megapixels three float planes together would be the peak of the memory.
    for channel in range(3):
        fresh = laid(enlarged(np.ascontiguousarray(raw[:, :, channel]), span, smooth=True), start, part_size)
        if near is not None:
            # Colours of the animal alone: what lies around it makes no edge.
            fresh += _CRISP * (fresh - cv2.GaussianBlur(weight * fresh, (0, 0), _FINE) / near)
        mixed = weight * (fresh + sharpness) + (1 - weight) * background[:, :, channel][part]
        target = out[:, :, channel][part]
        target[where] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)[where]
    return out, changed


def nearer(made: NDArray[np.uint16], old: BoolMask, feet: float) -> BoolMask:
    """Which of the animals that earlier steps made stay in front of one made from `old`; bool (H, W).

    The larger ones, which come first, are taken for the nearer ones. But masks show what is visible in a photo: where
    `old` is, nothing was in front of it, and there the new animal may cover others, those that stand higher than it.

    made: (H, W), for each pixel the row of the feet of the animal that was painted there, 0: none.  feet: its own.
    """
    return np.asarray((made > 0) & (~old | (made > feet)))


def remove_instances(
    window: Pixels,
    old: BoolMask,
    *,
    rim: float,
    painted: BoolMask | None = None,
    animals: BoolMask | None = None,
) -> tuple[Pixels, BoolMask]:
    """`window` with what lies under `old` filled in from around it, and where it changed.

    The hole reaches `rim` pixels further than `old`, but not into what earlier steps `painted`; over the rim the
    filling fades into the photo. What it is filled with comes from outside `animals` wherever there is enough of that.
    """
    away = distance(old)
    hole = away <= rim if rim >= 1 else old
    if painted is not None:
        hole = hole & ~painted
    if not hole.any() or hole.all():
        return window, np.zeros(old.shape, dtype=np.bool_)
    unfit = np.zeros_like(old)
    for each in (painted, animals):
        if each is not None:
            unfit |= each
    # With their rim: a mask's border is never exact, and a painted one is soft.
    wider = hole | (distance(unfit) <= rim)
    filled = fill(window, wider if wider.mean() <= _MOST_UNFIT else hole)
    out = window.copy()
    fade = np.clip((rim + 1 - away) / (rim / 2 + 1), 0, 1)[hole]
    for channel in range(3):
        mixed = fade * filled[:, :, channel][hole] + (1 - fade) * window[:, :, channel][hole]
        out[:, :, channel][hole] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return out, hole


def extent(mattes: NDArray[np.float32]) -> tuple[float, float, float, float] | None:
    """(left, top, right, bottom) of what mattes, float32 (n, h, w), show, as shares of their sides; None: nothing."""
    there = Mask.from_dense(mattes.max(axis=0) >= _SOLID)
    if not there.area:
        return None
    (height, width), (x0, y0, x1, y1) = there.size, there.box
    return x0 / width, y0 / height, x1 / width, y1 / height


def cut_above(mattes: NDArray[np.float32]) -> bool:
    """Whether the window's upper side cuts off what one of the mattes shows, float32 (n, h, w)."""
    return bool(((mattes[:, 0] >= 0.5).mean(axis=1) > _FLAT).any())


def soft_union(mattes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """The soft union that training blends by (translation.step.union_matte): (n, h, w) -> (h, w), softened."""
    keep = np.ones(mattes.shape[1:], dtype=np.float32)
    ones = np.ones(mattes.shape[1:], dtype=np.float32)
    for matte in mattes:
        if width > 1:
            # Divided by the filtered ones: the border is not darkened.
            total = cv2.boxFilter(matte, -1, (width, width), normalize=False, borderType=cv2.BORDER_CONSTANT)
            count = cv2.boxFilter(ones, -1, (width, width), normalize=False, borderType=cv2.BORDER_CONSTANT)
            matte = total / count
        keep *= 1 - matte
    return np.clip(1 - keep, 0, 1)


def _left_by(mattes: NDArray[np.float32], open_sides: tuple[bool, bool, bool, bool]) -> tuple[bool, bool, bool, bool]:
    """Over which of the `open_sides` of the window an animal leaves it."""
    made = mattes.max(axis=0, initial=0) >= 0.5
    left, top, right, bottom = (bool(side.any()) for side in (made[:, 0], made[0], made[:, -1], made[-1]))
    return open_sides[0] and left, open_sides[1] and top, open_sides[2] and right, open_sides[3] and bottom


def _ramp(size: tuple[int, int], open_sides: tuple[bool, bool, bool, bool], share: float) -> NDArray[np.float32]:
    """1 inside, falling to nearly 0 over a `share` of the shorter side towards each open side: float32 (H, W)."""
    feather = max(1.0, min(size) * share)
    left, top, right, bottom = open_sides
    lines = []
    for length, first, last in ((size[0], top, bottom), (size[1], left, right)):
        line = np.ones(length, dtype=np.float32)
        position = np.arange(length, dtype=np.float32)
        if first:
            line = np.minimum(line, (position + 0.5) / feather)
        if last:
            line = np.minimum(line, (length - position - 0.5) / feather)
        lines.append(line)
    return np.outer(lines[0], lines[1]).astype(np.float32)
