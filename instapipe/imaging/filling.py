"""Filling a hole in a photo with what lies around it: patches of the photo itself.

A nearest-neighbour field says for each pixel near the hole which patch outside looks like its surroundings; it is found
coarse to fine by randomised search (Barnes et al., "PatchMatch", 2009) in turn with voting (Wexler et al., "Space-time
completion of video", 2007). The field of the finest level is then read at the photo's own scale, so that grass stays as
sharp as grass is. Where there is too little around the hole, OpenCV's Telea fills it smoothly instead.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.structures import BoolMask, Pixels

Plane = NDArray[np.float32]
Places = NDArray[np.intp]

_RADIUS = 3
"""Patches are 7 x 7."""
_WORKING_SIDE = 144
"""The field is computed at this scale at most: a patch is to see a tuft of grass, not a blade."""
_COARSEST_SIDE = 24
_ROUNDS = 4
_PIXELS_AT_ONCE = 1 << 19
"""What is read at the photo's scale at once: the memory of a 20-megapixel hole would be gigabytes."""
_ENOUGH = 400
"""Fewer patches than this outside the hole are no stock to choose from."""


def fill(pixels: Pixels, hole: BoolMask) -> Pixels:
    """`pixels` (H, W, 3) with what lies under `hole` replaced; outside it nothing changes.

    Deterministic. A hole that covers everything leaves the pixels as they are.
    """
    if not hole.any() or hole.all():
        return pixels
    levels = _pyramid(pixels, hole)
    if _sources(levels[-1][1]).sum() < _ENOUGH:
        return _smooth(pixels, hole)
    rng = np.random.default_rng(0)
    image = _smooth(*levels[0]).astype(np.float32)
    field: Places | None = None
    for number, (small, gap) in enumerate(levels):
        if number:
            image = _resized(image, gap.shape)
            image[~gap] = small[~gap]
        if _sources(gap).sum() < _ENOUGH:
            continue
        field = _start(field, gap, rng)
        for _ in range(_ROUNDS if number < len(levels) - 1 else 2):
            field = _search(image, gap, field, rng)
            image = _vote(image, gap, field)
    if field is None:
        return _smooth(pixels, hole)
    return _read(pixels, hole, field)


def _smooth(pixels: Pixels, hole: BoolMask) -> Pixels:
    return np.asarray(cv2.inpaint(pixels, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA), dtype=np.uint8)


def _pyramid(pixels: Pixels, hole: BoolMask) -> list[tuple[Pixels, BoolMask]]:
    """Coarsest first; the finest has a longer side of at most the working one."""
    longer = max(hole.shape)
    side = min(longer, _WORKING_SIDE)
    sides = [side]
    while sides[-1] / 1.6 >= _COARSEST_SIDE:
        sides.append(round(sides[-1] / 1.6))
    covered = hole.astype(np.uint8) * np.uint8(255)
    levels = []
    for target in reversed(sides):
        size = tuple(max(2 * _RADIUS + 2, round(length * target / longer)) for length in hole.shape)
        # A pixel that the hole touches at all is part of it: the old animal must not colour its surroundings.
        touched = cv2.resize(covered, size[::-1], interpolation=cv2.INTER_AREA) > 0
        small = np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
        levels.append((small, np.asarray(touched)))
    return levels


def _sources(gap: BoolMask) -> BoolMask:
    """Centres of patches that lie whole inside the photo and outside the hole."""
    side = 2 * _RADIUS + 1
    bordered = cv2.copyMakeBorder(gap.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    return np.asarray(cv2.dilate(bordered, np.ones((side, side), np.uint8))[1:-1, 1:-1] == 0)


def _near(gap: BoolMask) -> BoolMask:
    """Centres of patches that touch the hole."""
    side = 2 * _RADIUS + 1
    return np.asarray(cv2.dilate(gap.astype(np.uint8), np.ones((side, side), np.uint8)) > 0)


def _start(field: Places | None, gap: BoolMask, rng: np.random.Generator) -> Places:
    """The coarser level's field enlarged, or at random: int (H, W, 2), (y, x) of the source of each pixel."""
    allowed = _sources(gap)
    places = np.argwhere(allowed)
    out = places[rng.integers(len(places), size=gap.shape)]
    if field is not None:
        ratio = np.array(gap.shape) / np.array(field.shape[:2])
        rows = np.minimum((np.arange(gap.shape[0]) / ratio[0]).astype(np.intp), field.shape[0] - 1)
        columns = np.minimum((np.arange(gap.shape[1]) / ratio[1]).astype(np.intp), field.shape[1] - 1)
        here = np.stack(np.meshgrid(np.arange(gap.shape[0]), np.arange(gap.shape[1]), indexing="ij"), axis=-1)
        coarse_here = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        shift = (field[np.ix_(rows, columns)] - coarse_here) * ratio
        moved = np.rint(here + shift).astype(np.intp)
        moved[..., 0] = np.clip(moved[..., 0], 0, gap.shape[0] - 1)
        moved[..., 1] = np.clip(moved[..., 1], 0, gap.shape[1] - 1)
        good = allowed[moved[..., 0], moved[..., 1]]
        out[good] = moved[good]
    return out


def _search(image: Plane, gap: BoolMask, field: Places, rng: np.random.Generator) -> Places:
    """One round: for the pixels near the hole, candidates from the neighbours' sources and at random."""
    allowed = _sources(gap)
    near = np.argwhere(_near(gap))
    patches = _patches(image)
    own = patches[near[:, 0], near[:, 1]]
    best = field[near[:, 0], near[:, 1]]
    cost = _distance(own, patches, best)
    height, width = gap.shape
    index = np.full(gap.shape, -1, dtype=np.intp)
    index[near[:, 0], near[:, 1]] = np.arange(len(near))
    for step in (4, 2, 1):
        for dy, dx in ((0, step), (0, -step), (step, 0), (-step, 0)):
            y, x = np.clip(near[:, 0] + dy, 0, height - 1), np.clip(near[:, 1] + dx, 0, width - 1)
            neighbour = index[y, x]
            candidate = np.where(neighbour[:, None] >= 0, best[neighbour] - (dy, dx), best)
            best, cost = _better(own, patches, allowed, best, cost, candidate)
    reach = max(height, width)
    while reach >= 1:
        jump = np.rint(rng.uniform(-reach, reach, size=best.shape)).astype(np.intp)
        best, cost = _better(own, patches, allowed, best, cost, best + jump)
        reach //= 2
    out = field.copy()
    out[near[:, 0], near[:, 1]] = best
    return out


def _better(
    own: Plane, patches: Plane, allowed: BoolMask, best: Places, cost: Plane, candidate: Places
) -> tuple[Places, Plane]:
    height, width = allowed.shape
    inside = (candidate >= 0).all(axis=1) & (candidate[:, 0] < height) & (candidate[:, 1] < width)
    inside[inside] &= allowed[candidate[inside, 0], candidate[inside, 1]]
    chosen = np.flatnonzero(inside & (candidate != best).any(axis=1))
    if chosen.size == 0:
        return best, cost
    offered = _distance(own[chosen], patches, candidate[chosen])
    wins = offered < cost[chosen]
    best, cost = best.copy(), cost.copy()
    best[chosen[wins]] = candidate[chosen[wins]]
    cost[chosen[wins]] = offered[wins]
    return best, cost


def _patches(image: Plane) -> Plane:
    """A view: float32 (H, W, 7, 7, 3), the patch around each pixel, the border mirrored."""
    border = (_RADIUS, _RADIUS, _RADIUS, _RADIUS)
    padded = np.asarray(cv2.copyMakeBorder(image, *border, cv2.BORDER_REFLECT_101), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * _RADIUS + 1, 2 * _RADIUS + 1), axis=(0, 1))
    return np.asarray(np.moveaxis(windows, 2, -1))


def _distance(own: Plane, patches: Plane, places: Places) -> Plane:
    """Sum of squared differences between patches: (M, 7, 7, 3) against those at `places` (M, 2)."""
    difference = own - patches[places[:, 0], places[:, 1]]
    return np.asarray(np.einsum("mijc,mijc->m", difference, difference), dtype=np.float32)


def _vote(image: Plane, gap: BoolMask, field: Places) -> Plane:
    """Each pixel of the hole: the mean of what the patches around it say it is."""
    height, width = gap.shape
    rows, columns = np.nonzero(gap)
    near = _near(gap)
    total = np.zeros((len(rows), 3), dtype=np.float32)
    count = np.zeros(len(rows), dtype=np.float32)
    for dy in range(-_RADIUS, _RADIUS + 1):
        for dx in range(-_RADIUS, _RADIUS + 1):
            y, x = rows + dy, columns + dx
            ok = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            ok[ok] &= near[y[ok], x[ok]]
            source = field[y[ok], x[ok]] - (dy, dx)
            total[ok] += image[source[:, 0], source[:, 1]]
            count[ok] += 1
    out = image.copy()
    out[rows, columns] = total / np.maximum(count, 1)[:, None]
    return out


def _read(pixels: Pixels, hole: BoolMask, field: Places) -> Pixels:
    """The field at the photo's scale: each pixel of the hole is copied from its source's place.

    Between the pixels of the field four copies are blended, so that sources that do not meet show no edge.
    """
    out = pixels.copy()
    lost = np.zeros(hole.shape, dtype=np.bool_)
    rows_at_once = max(1, _PIXELS_AT_ONCE // hole.shape[1])
    for top in range(0, hole.shape[0], rows_at_once):
        rows, columns = np.nonzero(hole[top : top + rows_at_once])
        here = np.stack([rows + top, columns], axis=1)
        colour, found = _copies(pixels, hole, field, here)
        out[here[found, 0], here[found, 1]] = colour[found]
        lost[here[~found, 0], here[~found, 1]] = True
    return _smooth(out, lost) if lost.any() else out


def _copies(pixels: Pixels, hole: BoolMask, field: Places, here: Places) -> tuple[Pixels, BoolMask]:
    """For the pixels at `here` (M, 2): their colours, uint8 (M, 3), and for which there is one, bool (M,)."""
    small = np.array(field.shape[:2])
    scale = np.array(hole.shape) / small
    centre = (here + 0.5) / scale - 0.5
    low = np.floor(centre).astype(np.intp)
    share = centre - low
    total = np.zeros((len(here), 3), dtype=np.float32)
    weights = np.zeros(len(here), dtype=np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            knot = np.clip(low + np.array((dy, dx)), 0, small - 1)
            shift = (field[knot[:, 0], knot[:, 1]] - knot) * scale
            source = np.clip(np.rint(here + shift).astype(np.intp), 0, np.array(hole.shape) - 1)
            weight = np.abs(1 - dy - share[:, 0]) * np.abs(1 - dx - share[:, 1])
            # What lies under the hole is never a source: rounding may point there at its rim.
            weight = (weight * ~hole[source[:, 0], source[:, 1]]).astype(np.float32)
            total += weight[:, None] * pixels[source[:, 0], source[:, 1]]
            weights += weight
    colour = np.rint(total / np.maximum(weights, 1e-6)[:, None]).astype(np.uint8)
    return colour, weights > 1e-6


def _resized(image: Plane, size: tuple[int, ...]) -> Plane:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
