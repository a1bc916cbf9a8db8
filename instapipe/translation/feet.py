"""A new animal stands on all its feet, and they on the ground.

A generator ends legs where it pleases: of 547 giraffes that sheep2giraffe-15 made of training sheep the second, third
and last foot hung 2.0, 5.0 and 8.9 % of the height above the lowest (medians), of 63 real ones with three or four feet
to be seen 0.9, 2.3 and 4.1 %. So they seemed to hover.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.imaging.windows import Rectangle, inside
from instapipe.structures import BoolMask, Pixels

_STAYS = 0.45
"""Of how far a foot hangs above the lowest one, the share that is perspective: makes the figures above those of real
animals."""
_SHANKS, _LEGS = 0.25, 0.38
"""Shares of the height above the lowest foot: what reaches into the first is a foot; in the second legs grow longer."""
_LEAST_FOOT = 1 / 800
"""Of the height squared, what a foot covers at least in the first: else it is a tail."""
_MOST = 0.35
"""By how much of its length a leg grows at most."""
_AT_FOOT, _BELOW = 0.5, 0.22
"""The share of the light that is missing where a foot stands, and under the animal: feet without touch no ground."""
_WIDE, _HIGH = 0.05, 0.014
"""Of what a foot shades, half its width and height, shares of the animal's height."""
_BESIDE, _BEFORE = 0.06, 0.03
"""How far the shade under the animal reaches beyond its feet, to the sides and before and behind, likewise."""
_SEEN = 1 / 100
"""So little is no shade."""


@dataclass(frozen=True, slots=True)
class Foot:
    """left, right: its first and last column.  row: its lowest."""

    left: int
    right: int
    row: int

    @property
    def column(self) -> float:
        """Of its middle."""
        return (self.left + self.right) / 2


def feet_in(shape: BoolMask) -> list[Foot]:
    """The feet of an animal, bool (h, w), from left to right; legs that cross have one together."""
    rows = np.flatnonzero(shape.any(axis=1))
    if rows.size == 0:
        return []
    height = int(rows[-1] - rows[0] + 1)
    top = int(rows[-1]) + 1 - max(1, round(_SHANKS * height))
    _, parts, facts, _ = cv2.connectedComponentsWithStats(shape[top:].astype(np.uint8), connectivity=8)
    feet = []
    for part, (_, y, _, tall, area) in enumerate(facts[1:], start=1):
        if area >= _LEAST_FOOT * height**2:
            row = int(y + tall - 1)
            columns = np.flatnonzero((parts[max(0, row - height // 50) : row + 1] == part).any(axis=0))
            feet.append(Foot(int(columns[0]), int(columns[-1]), top + row))
    return sorted(feet, key=lambda foot: foot.column)


def on_all_feet(
    raw: NDArray[np.float32], mattes: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """raw: float32 (h, w, 3) in [0, 255].  mattes: float32 (n, h, w) in [0, 1], of animals on the ground.

    Returns both with the legs of the one animal longer, so that none hangs far above the lowest foot. Several that
    share a picture stay as they are.
    """
    if len(mattes) != 1:
        return raw, mattes
    shape = np.asarray(mattes[0] >= 0.5)
    feet = feet_in(shape)
    if len(feet) < 2:
        return raw, mattes
    lowest, top = max(foot.row for foot in feet), int(np.flatnonzero(shape.any(axis=1))[0])
    start = lowest - _LEGS * (lowest - top)
    columns = np.arange(shape.shape[1], dtype=np.float32)
    lengths = [foot.row - start for foot in feet]
    longer = [
        min((1 - _STAYS) * (lowest - foot.row), _MOST * length) for foot, length in zip(feet, lengths, strict=True)
    ]
    if max(longer) < 0.5:
        return raw, mattes
    # Each foot as a whole; between two, where there is belly, both in part.
    at = np.maximum.accumulate([column for foot in feet for column in (foot.left, foot.right)])
    length, further = (np.interp(columns, at, np.repeat(each, 2)) for each in (lengths, longer))
    down = np.arange(shape.shape[0], dtype=np.float32)[:, None]
    source = np.where(down > start, start + (down - start) * (length / (length + further)), down).astype(np.float32)
    across = np.broadcast_to(columns, source.shape)
    moved = cv2.remap(mattes[0], across, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    painted = cv2.remap(raw, across, source, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.clip(painted, 0, 255), np.asarray(moved, np.float32)[None]


@dataclass(frozen=True, slots=True, eq=False)
class Shade:
    """box: (x0, y0, x1, y1) of the region.  missing: float32 (h, w) in [0, 1], the share of the light there."""

    box: Rectangle
    missing: NDArray[np.float32]


def shade_of(matte: NDArray[np.float32], place: Rectangle, size: tuple[int, int]) -> Shade | None:
    """What an animal takes of the light where it stands; None where it has no feet to be seen.

    matte: float32 (h, w) in [0, 1].  place: where that belongs in a region of `size` (H, W).
    """
    shape = np.asarray(matte >= 0.5)
    feet = feet_in(shape)
    if not feet:
        return None
    across, down = (place[2] - place[0]) / shape.shape[1], (place[3] - place[1]) / shape.shape[0]
    columns = [place[0] + across * (foot.column + 0.5) for foot in feet]
    rows = [place[1] + down * (foot.row + 1) for foot in feet]
    height = down * np.ptp(np.flatnonzero(shape.any(axis=1)))
    beside, before = max(1.0, _BESIDE * height), max(1.0, _BEFORE * height)
    x0, y0, x1, y1 = box = inside(
        (int(min(columns) - 2 * beside), int(min(rows) - 3 * before),
         int(max(columns) + 2 * beside) + 1, int(max(rows) + 3 * before) + 1),
        size,
    )  # fmt: skip
    if x0 >= x1 or y0 >= y1:
        return None
    x, y = np.arange(x0, x1, dtype=np.float32) + 0.5, np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5
    middle, behind = (columns[0] + columns[-1]) / 2, (min(rows) + max(rows)) / 2
    half, deep = (columns[-1] - columns[0]) / 2 + beside, (max(rows) - min(rows)) / 2 + before
    left = 1 - _BELOW * np.exp(-(((x - middle) / half) ** 4) - ((y - behind) / deep) ** 2)
    wide, high = max(1.0, _WIDE * height), max(1.0, _HIGH * height)
    for column, row in zip(columns, rows, strict=True):
        left *= 1 - _AT_FOOT * np.exp(-(((x - column) / wide) ** 2) - ((y - row + high / 4) / high) ** 2)
    # Not cut off where the region ends.
    missing = (1 - left) * np.clip((size[0] - y) / before, 0, 1)
    return Shade(box, np.where(missing >= _SEEN, missing, 0).astype(np.float32))


def shaded(region: Pixels, shade: Shade, spared: BoolMask) -> tuple[Pixels, BoolMask]:
    """`region`, uint8 (H, W, 3), in that light but for what is `spared`, bool (H, W); and where it changed."""
    x0, y0, x1, y1 = shade.box
    missing = np.where(spared[y0:y1, x0:x1], np.float32(0), shade.missing)
    out, changed = region.copy(), np.zeros(spared.shape, np.bool_)
    dark = out[y0:y1, x0:x1] * (1 - missing)[:, :, None]
    out[y0:y1, x0:x1] = np.rint(dark).astype(np.uint8)
    changed[y0:y1, x0:x1] = missing > 0
    return out, changed
