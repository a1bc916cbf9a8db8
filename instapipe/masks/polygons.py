"""Polygons to masks, and masks to polygons.

Coordinates are continuous, as in COCO: pixel (x, y) covers [x, x + 1) x [y, y + 1). A polygon is filled by the even-odd
rule (pycocotools does it); the polygons of one instance are joined.

The other way, every 4-connected part of a mask becomes one closed polygon along the borders of its pixels. A hole is
joined to the outline by a bridge that is walked to and fro and so cancels; the outline is simplified as far as the part
keeps :data:`KEPT_IOU`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instapipe.errors import MaskError
from instapipe.masks import rle
from instapipe.masks.records import Size, shorten
from instapipe.structures import BoolMask, Mask

KEPT_IOU = 0.98
TOLERANCES = (1.0, 0.5)
"""How far a simplified outline may lie from the true one, in pixels: tried in order; then the exact one is kept."""
SMALL = 100
"""Parts of fewer pixels have few corners: their outlines stay exact."""
MAX_OUTLINE = 1_000_000
"""Pixels along one polygon: filling costs memory in proportion."""
MAX_PAIRS = 2**17
"""Corners of two loops, multiplied, up to which they are joined where they are nearest: any bridge is right, this one
looks best in an editor."""

Points = NDArray[np.float64]


def points_of(values: Any, where: str) -> Points:
    """float64 (K, 2), x and y, from a flat list [x, y, x, y, ...]. Raises MaskError."""
    if not isinstance(values, list) or len(values) % 2:
        raise MaskError(f"{where}: a polygon is a list x, y, x, y, ...; got {shorten(values)}")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise MaskError(f"{where}: a polygon has something else than numbers: {shorten(values)}")
    try:
        return np.asarray(values, dtype=np.float64).reshape(-1, 2)
    except OverflowError:
        raise MaskError(f"{where}: a polygon has an absurdly large number") from None


def fill(polygons: Sequence[Points], size: Size, where: str) -> Mask:
    """The mask that `polygons` cover together in a photo of `size`; one of fewer than 3 points covers nothing.

    Points may leave the photo by 2 pixels or one in a hundred of its side, and are clipped. Raises MaskError for points
    farther out, which means that the polygons are of another photo or size.
    """
    height, width = size
    solid = [points for points in polygons if len(points) >= 3]
    for points in solid:
        check_inside(points, size, where)
        outline = float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
        if outline > MAX_OUTLINE:
            raise MaskError(
                f"{where}: a polygon's outline is {outline:,.0f} pixels long; at most {MAX_OUTLINE:,} are read"
            )
    if not solid:
        return Mask.from_crop(size, (0, 0), np.zeros((0, 0), dtype=np.bool_))
    clipped = [np.clip(points, 0.0, (width, height)) for points in solid]
    low = np.floor(np.min([points.min(axis=0) for points in clipped], axis=0)).astype(int)
    high = np.ceil(np.max([points.max(axis=0) for points in clipped], axis=0)).astype(int)
    columns, rows = (max(1, int(side)) for side in high - low)
    origin = (min(int(low[0]), width - columns), min(int(low[1]), height - rows))
    return Mask.from_crop(size, origin, _fill([points - origin for points in clipped], (rows, columns)))


def check_inside(points: Points, size: Size, where: str) -> None:
    """Raises MaskError for a point that is farther outside a photo of `size` than :func:`fill` forgives."""
    height, width = size
    corner = np.asarray((width, height), dtype=np.float64)
    slack = np.maximum(2.0, 0.01 * corner)
    # Written so that NaN is outside too.
    inside = ((points >= -slack) & (points - corner <= slack)).all(axis=1)
    if not inside.all():
        x, y = points[int(np.flatnonzero(~inside)[0])]
        raise MaskError(
            f"{where}: polygon point ({x:g}, {y:g}) is outside the photo of {width}x{height}; "
            "are the polygons of another photo or another size?"
        )


def _fill(polygons: Sequence[Points], size: Size) -> BoolMask:
    from pycocotools import mask as coco

    height, width = size
    encoded = coco.frPyObjects([points.ravel().tolist() for points in polygons], height, width)
    return rle.decode(coco.merge(encoded), "polygons")


def trace(mask: Mask) -> list[Points]:
    """One closed polygon for each 4-connected part of `mask`, largest part first, in pixels of the photo."""
    if not mask.area:
        return []
    import cv2

    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.crop.astype(np.uint8), connectivity=4)
    order = sorted(range(1, count), key=lambda part: -int(stats[part, cv2.CC_STAT_AREA]))
    polygons = []
    for part in order:
        x, y, width, height, _ = (int(value) for value in stats[part])
        polygon = _simplified(parts[y : y + height, x : x + width] == part)
        polygons.append(polygon + np.asarray((mask.box[0] + x, mask.box[1] + y), dtype=np.float64))
    return polygons


def joined(polygons: Sequence[Points]) -> Points:
    """All `polygons` as one: the others are hung on the first by bridges, for formats that know one polygon only."""
    path = polygons[0]
    for polygon in polygons[1:]:
        path = _bridged(path, polygon)
    return path


def _simplified(part: BoolMask) -> Points:
    import cv2

    outline, *holes = _loops(part)
    area = int(np.count_nonzero(part))
    for tolerance in TOLERANCES if area >= SMALL else ():
        loops = [cv2.approxPolyDP(loop.astype(np.float32), tolerance, True)[:, 0] for loop in (outline, *holes)]
        if len(loops[0]) < 3:
            continue
        path = joined([loops[0].astype(np.float64), *(loop.astype(np.float64) for loop in loops[1:] if len(loop) > 2)])
        filled = _fill([path], (part.shape[0], part.shape[1]))
        union = int(np.count_nonzero(filled | part))
        if int(np.count_nonzero(filled & part)) >= KEPT_IOU * union:
            return path
    return joined([outline, *holes])


def _loops(part: BoolMask) -> list[Points]:
    """The closed borders of one 4-connected part, the outer one first, corners only; x and y of pixel corners.

    Walks along the cracks between pixels with the part on the right hand. Where two diagonal pixels touch, it turns
    right, so that they stay apart.
    """
    padded = np.pad(part, 1).astype(np.int8)
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}  # at a corner (x, y): the steps (dx, dy) that leave it
    down = np.diff(padded, axis=0)[:, 1:-1]
    across = np.diff(padded, axis=1)[1:-1, :]
    for y, x in np.argwhere(down == 1).tolist():  # the part is below: go right
        ends.setdefault((x, y), []).append((1, 0))
    for y, x in np.argwhere(down == -1).tolist():  # above: go left
        ends.setdefault((x + 1, y), []).append((-1, 0))
    for y, x in np.argwhere(across == 1).tolist():  # to the right: go up
        ends.setdefault((x, y + 1), []).append((0, -1))
    for y, x in np.argwhere(across == -1).tolist():  # to the left: go down
        ends.setdefault((x, y), []).append((0, 1))
    loops: list[Points] = []
    while ends:
        start = min(ends, key=lambda corner: (corner[1], corner[0])) if not loops else next(iter(ends))
        loops.append(_walk(ends, start))
    return loops


def _walk(ends: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> Points:
    """One loop from `start` back to it, taken out of `ends`."""
    corners: list[tuple[int, int]] = []
    (x, y), step = start, (0, 0)
    while True:
        steps = ends[x, y]
        right = (-step[1], step[0])
        following = right if right in steps else steps[0]
        steps.remove(following)
        if not steps:
            del ends[x, y]
        if following != step:
            corners.append((x, y))
        step = following
        x, y = x + step[0], y + step[1]
        if (x, y) == start:
            break
    return np.asarray(corners, dtype=np.float64)


def _bridged(path: Points, loop: Points) -> Points:
    """`path` with `loop` hung on it: from the path's nearest point to the loop, around it, and back."""
    near = first = 0
    if len(path) * len(loop) <= MAX_PAIRS:
        distances = np.abs(path[:, None] - loop[None]).sum(axis=2)
        near, first = (int(i) for i in divmod(int(distances.argmin()), len(loop)))
    around = np.concatenate((loop[first:], loop[: first + 1]))
    return np.concatenate((path[: near + 1], around, path[near:]))
