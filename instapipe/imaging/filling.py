"""Filling a hole in a photo with what lies around it: patches of the photo itself.

A nearest-neighbour field says for each pixel near the hole which patch outside looks like its surroundings; it is found
coarse to fine by randomised search (Barnes et al., "PatchMatch", 2009) in turn with voting (Wexler et al., "Space-time
completion of video", 2007). The field of the finest level is then read at the photo's own scale, so that grass stays as
sharp as grass is. Where there is too little around the hole, OpenCV's Telea fills it smoothly instead.

Patches are compared by their lower frequencies alone, which is 34 numbers instead of 147, and 12 at the finest level,
where what goes on through the hole is settled already.
"""

from __future__ import annotations

import cv2
import numpy as np

from instapipe.imaging.copies import Places, Plane, read_field, smooth
from instapipe.structures import BoolMask, Pixels

_RADIUS = 3
"""Patches are 7 x 7."""
_SIDE = 2 * _RADIUS + 1
_BORDER = 4
"""Around the image, so that no patch and no neighbour of a pixel lies outside the array."""
_NOWHERE = -(1 << 20)
"""The source of the border: no place, however it is shifted."""
_STEPS = (4, 2, 1, 1, 1, 1)
"""How far away the neighbours are whose sources are tried, in turn: the last ones let pieces grow together."""
_APART = 0.25
"""What each of a pixel's four neighbours costs that is copied from elsewhere, in medians of the patches' distances.
What is copied pixel by pixel looks like its source in every patch, and is a weave of it; in pieces, grass is grass. At
a higher cost fences and horizons fall to pieces as well."""
_WORKING_SIDE = 144
"""The field is computed at this scale at most: a patch is to see a tuft of grass, not a blade."""
_COARSEST_SIDE = 24
_ROUNDS = 4
_FINEST_ROUNDS = 2
_SETTLED = 1.0
"""A round that changes the hole by less than this, of 255, is the level's last."""
_FREQUENCIES = (6, 1, 1)
_FINEST_FREQUENCIES = (2, 1, 1)
"""The highest (the sum of both directions) by which patches are compared: in lightness, in each of two colours. With
less at the coarser levels stripes do not go on."""
_ENOUGH = 400
"""Fewer patches than this outside the hole are no stock to choose from."""
_STOCK = 1.5
"""The search begins at the coarsest level with so many for each pixel of the hole: where a few stand for all, what is
flat is copied everywhere, and what the rows said is forgotten."""


def fill(pixels: Pixels, hole: BoolMask) -> Pixels:
    """`pixels` (H, W, 3) with what lies under `hole` replaced; outside it nothing changes.

    Deterministic. A hole that covers everything leaves the pixels as they are.
    """
    if not hole.any() or hole.all():
        return pixels
    levels = _pyramid(pixels, hole)
    first = next((number for number, (_, gap) in enumerate(levels) if _stocked(gap)), len(levels) - 1)
    levels = levels[first:]
    if _sources(levels[-1][1]).sum() < _ENOUGH:
        return smooth(pixels, hole)
    rng = np.random.default_rng(0)
    image = _across(*levels[0])
    field: Places | None = None
    for number, (small, gap) in enumerate(levels):
        if number:
            image = np.asarray(cv2.resize(image, gap.shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32)
            image[~gap] = small[~gap]
        finest = number == len(levels) - 1
        level = _Level(image, gap, field, rng, _FINEST_FREQUENCIES if finest else _FREQUENCIES)
        level.search(rng)
        for _ in range((_FINEST_ROUNDS if finest else _ROUNDS) - 1):
            if level.vote() < _SETTLED:
                break
            level.search(rng)
        field = level.field()
        if not finest:  # of the finest the field is read, not the image
            level.vote()
            image = level.image
    assert field is not None
    return read_field(pixels, hole, field)


def _across(pixels: Pixels, hole: BoolMask) -> Plane:
    """`pixels` with the hole filled along its rows, between what lies left and right of it: float32 (H, W, 3).

    What a search starts from decides where sky ends and grass begins; horizons, fences and shores run across a photo
    more often than not.
    """
    out = smooth(pixels, hole).astype(np.float32)
    columns = np.arange(hole.shape[1])
    for row in np.flatnonzero(hole.any(axis=1) & ~hole.all(axis=1)):
        inside = hole[row]
        for channel in range(3):
            out[row, inside, channel] = np.interp(columns[inside], columns[~inside], pixels[row, ~inside, channel])
    return out


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
    bordered = cv2.copyMakeBorder(gap.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    return np.asarray(cv2.dilate(bordered, np.ones((_SIDE, _SIDE), np.uint8))[1:-1, 1:-1] == 0)


def _stocked(gap: BoolMask) -> bool:
    """Whether there are patches enough outside the hole for all that is missing inside it."""
    return bool(_sources(gap).sum() >= max(_ENOUGH, _STOCK * gap.sum()))


def _near(gap: BoolMask) -> BoolMask:
    """Centres of patches that touch the hole."""
    return np.asarray(cv2.dilate(gap.astype(np.uint8), np.ones((_SIDE, _SIDE), np.uint8)) > 0)


class _Level:
    """One scale: its image, and for each pixel near the hole the pixel whose patch it takes.

    All are flat, with a border of `_BORDER` pixels around the image, so that a neighbour is a place plus a number.
    """

    def __init__(
        self,
        image: Plane,
        gap: BoolMask,
        coarser: Places | None,
        rng: np.random.Generator,
        frequencies: tuple[int, int, int],
    ) -> None:
        """image: float32 (H, W, 3).  coarser: the field of the level before, at any size."""
        self._shape = gap.shape
        self._frequencies = frequencies
        border = (_BORDER, _BORDER, _BORDER, _BORDER)
        self._stride = gap.shape[1] + 2 * _BORDER
        inner = np.zeros((gap.shape[0] + 2 * _BORDER, self._stride), dtype=np.bool_)
        self._part = np.s_[_BORDER:-_BORDER, _BORDER:-_BORDER]
        inner[self._part] = True
        # One more channel counts: the border adds nothing to a vote.
        self._colours = np.zeros((inner.size, 4), dtype=np.float32)
        self._colours[inner.reshape(-1)] = cv2.merge([image, np.ones(gap.shape, np.float32)]).reshape(-1, 4)
        self._allowed = cv2.copyMakeBorder(_sources(gap).astype(np.uint8), *border, cv2.BORDER_CONSTANT).reshape(-1) > 0
        near = _near(gap)
        self._near = self._places(near)
        self._gap = self._places(gap)
        # Any other pixel is its own source, which is none for its neighbours near the hole; the border has none at all.
        self._field = np.where(inner.reshape(-1), np.arange(inner.size), _NOWHERE)
        self._field[self._near] = self._start(coarser, near, rng)
        self._stock = _rows(self._compared())

    @property
    def image(self) -> Plane:
        """As it is now: float32 (H, W, 3)."""
        return np.ascontiguousarray(self._colours.reshape(-1, self._stride, 4)[self._part][..., :3])

    def field(self) -> Places:
        """The source of each pixel, as (y, x): (H, W, 2)."""
        rows, columns = np.divmod(self._field.reshape(-1, self._stride)[self._part], self._stride)
        return np.stack([rows - _BORDER, columns - _BORDER], axis=-1)

    def _compared(self) -> list[Plane]:
        border = (_BORDER, _BORDER, _BORDER, _BORDER)
        image = np.asarray(cv2.copyMakeBorder(self.image, *border, cv2.BORDER_REFLECT_101), dtype=np.float32)
        return _frequencies_of(image, self._frequencies)

    def _places(self, where: BoolMask) -> Places:
        rows, columns = np.nonzero(where)
        return np.asarray((rows + _BORDER) * self._stride + columns + _BORDER, dtype=np.intp)

    def _start(self, coarser: Places | None, near: BoolMask, rng: np.random.Generator) -> Places:
        """For the pixels near the hole: the coarser level's field enlarged, or at random."""
        sources = np.flatnonzero(self._allowed)
        out = sources[rng.integers(len(sources), size=len(self._near))]
        if coarser is None:
            return out
        here = np.argwhere(near)
        ratio = np.array(self._shape) / coarser.shape[:2]
        there = np.minimum((here / ratio).astype(np.intp), np.array(coarser.shape[:2]) - 1)
        moved = here + np.rint((coarser[there[:, 0], there[:, 1]] - there) * ratio).astype(np.intp)
        moved = np.clip(moved, 0, np.array(self._shape) - 1) + _BORDER
        places = moved[:, 0] * self._stride + moved[:, 1]
        return np.where(self._allowed.take(places), places, out)

    def search(self, rng: np.random.Generator) -> None:
        """One round: for the pixels near the hole, candidates from the neighbours' sources and at random."""
        own = _rows([plane.take(self._near) for plane in self._compared()])
        best = self._field.take(self._near)
        cost = _distance(own, self._stock.take(best, axis=0))
        self._apart = _APART * float(np.median(cost))
        for step in _STEPS:
            for shift in (step, -step, step * self._stride, -step * self._stride):
                self._try(own, best, cost, self._field.take(self._near + shift) - shift)
        reach = max(self._shape)
        while reach >= 1:
            down, right = rng.integers(-reach, reach + 1, size=(2, len(best)))
            # One that leaves the image at a side comes back at the other: as random as any.
            self._try(own, best, cost, best + (down * self._stride + right))
            reach //= 2

    def _try(self, own: Plane, best: Places, cost: Plane, candidate: Places) -> None:
        """Take the candidates where they are better: changes `best`, `cost` and the field."""
        # The first place lies in the border, and so does whatever leaves the array.
        chosen = np.flatnonzero(self._allowed.take(candidate, mode="clip") & (candidate != best))
        offered = candidate.take(chosen)
        distance = _distance(own.take(chosen, axis=0), self._stock.take(offered, axis=0))
        at = self._near.take(chosen)
        wins = distance + self._strangers(at, offered) < cost.take(chosen) + self._strangers(at, best.take(chosen))
        chosen, offered = chosen[wins], offered[wins]
        best[chosen] = offered
        cost[chosen] = distance[wins]
        self._field[at[wins]] = offered

    def _strangers(self, at: Places, source: Places) -> Plane:
        """What it costs that neighbours of the places `at` are not copied from beside their `source`."""
        count = np.zeros(len(at), dtype=np.float32)
        for shift in (1, -1, self._stride, -self._stride):
            theirs = self._field.take(at + shift)
            count += (theirs - shift != source) & (theirs != _NOWHERE)
        return self._apart * count

    def vote(self) -> float:
        """Each pixel of the hole: the mean of what the patches around it say it is. Returns the mean change."""
        total = np.zeros((len(self._gap), 4), dtype=np.float32)
        for down in range(-_RADIUS, _RADIUS + 1):
            for right in range(-_RADIUS, _RADIUS + 1):
                shift = down * self._stride + right
                total += self._colours.take(self._field.take(self._gap + shift) - shift, axis=0, mode="clip")
        voted = total / total[:, 3:]
        change = float(np.abs(voted - self._colours.take(self._gap, axis=0)).mean())
        self._colours[self._gap] = voted
        return change


def _frequencies_of(image: Plane, highest: tuple[int, int, int]) -> list[Plane]:
    """The frequencies up to `highest` of the patch around each pixel of `image` (H, W, 3): F planes, float32 (H * W,).

    Squared differences of them add up to those of the patches, (7, 7, 3), but for the higher frequencies' share.
    """
    grey = 1 / np.sqrt(3)
    colours = np.array(
        [[grey, grey, grey], [np.sqrt(0.5), 0, -np.sqrt(0.5)], [1 / np.sqrt(6), -2 / np.sqrt(6), 1 / np.sqrt(6)]]
    )
    planes = cv2.split(cv2.transform(image, colours.astype(np.float32)))
    waves = [np.cos(np.pi * (np.arange(_SIDE) + 0.5) * number / _SIDE) for number in range(_SIDE)]
    waves = [(wave / np.linalg.norm(wave)).astype(np.float32) for wave in waves]
    return [
        np.asarray(cv2.sepFilter2D(plane, cv2.CV_32F, waves[right], waves[down]), dtype=np.float32).reshape(-1)
        for plane, most in zip(planes, highest, strict=True)
        for down in range(most + 1)
        for right in range(most + 1 - down)
    ]


def _rows(planes: list[Plane]) -> Plane:
    """As the rows of one array: planes of (M,) to (M, F)."""
    out = np.empty((len(planes[0]), len(planes)), dtype=np.float32)
    for number, plane in enumerate(planes):
        out[:, number] = plane
    return out


def _distance(one: Plane, other: Plane) -> Plane:
    """Sum of squared differences of rows: (M, F) against (M, F)."""
    difference = one - other
    return np.asarray(np.einsum("mf,mf->m", difference, difference), dtype=np.float32)
