"""labelme: one JSON file for each photo, `<stem>.json`, with polygons, rectangles, circles or bitmaps.

Shapes of one label that share a `group_id` are the parts of one instance. Points and lines have no area and are
refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instapipe.errors import MaskError
from instapipe.masks import polygons
from instapipe.masks.names import files_in, stem_of
from instapipe.masks.png import decode_mask, png_size
from instapipe.masks.records import (
    Entry,
    Record,
    Size,
    build,
    canonical,
    check_count,
    check_size,
    digest_of,
    integer,
    parse_json,
    read_bytes,
    score,
    shorten,
)
from instapipe.structures import Instances, Mask

Fields = dict[str, Any]
CORNERS_OF_CIRCLE = 128
MAX_SHAPES = 10_000


class LabelmeFolder:
    """A folder of `<stem>.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def photos(self) -> Sequence[str]:
        files = files_in(self.path, ".json")
        return [photo_name(path, parse_json(read_bytes(path), f"masks {str(path)!r}")) for path in files]

    def record(self, photo: Path) -> Record | None:
        path = self.path / f"{stem_of(photo)}.json"
        return read(path, parse_json(read_bytes(path), f"masks {str(path)!r}")) if path.is_file() else None


def photo_name(path: Path, document: Fields) -> str:
    """The photo's name: the file's own stem, with the suffix of the photo that it was drawn on where it is known."""
    drawn_on = document.get("imagePath")
    suffix = Path(drawn_on.replace("\\", "/")).suffix if isinstance(drawn_on, str) else ""
    return path.stem + suffix


def read(path: Path, document: Fields) -> Record:
    """The record of one labelme file. Raises MaskError."""
    where = f"masks {str(path)!r}"
    shapes = document.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise MaskError(f"{where}: labelme JSON needs 'shapes', a list of objects; got {shorten(shapes)}")
    if len(shapes) > MAX_SHAPES:
        raise MaskError(f"{where}: {len(shapes):,} shapes; at most {MAX_SHAPES:,} are read")
    sides = [document.get(side) for side in ("imageHeight", "imageWidth")]
    stated = None
    if None not in sides:
        stated = (
            integer(sides[0], f"{where}: imageHeight", least=1),
            integer(sides[1], f"{where}: imageWidth", least=1),
        )
    wanted = ("label", "points", "group_id", "shape_type", "mask", "score")
    digest = digest_of(
        "labelme", [canonical([stated, [[shape.get(key) for key in wanted] for shape in shapes]], where)]
    )
    return Record(digest, lambda size: _decode(shapes, stated, where, size))


def _decode(shapes: Sequence[Fields], stated: Size | None, where: str, photo: Size | None) -> Instances:
    size = check_size(where, stated, photo) if stated else photo
    if size is None:
        raise MaskError(f"{where}: no imageHeight and imageWidth; give the photos too")
    groups: dict[tuple[str, str], list[int]] = {}
    for position, shape in enumerate(shapes):
        group = shape.get("group_id")
        if group is not None and not isinstance(group, int | str):
            raise MaskError(f"{where}: shape {position}: expected a group_id, got {shorten(group)}")
        key = f"alone {position}" if group is None else f"group {group}"
        groups.setdefault((key, _label(shape, f"{where}: shape {position}")), []).append(position)
    check_count(where, len(groups))
    masks, scores = [], []
    for positions in groups.values():
        parts = [_shape(shapes[position], size, f"{where}: shape {position}") for position in positions]
        masks.append(_union(parts, size))
        given = shapes[positions[0]].get("score")
        scores.append(1.0 if given is None else score(given, f"{where}: shape {positions[0]}: score"))
    return build(masks, size, [label for _, label in groups], scores)


def _label(shape: Fields, where: str) -> str:
    label = shape.get("label")
    if label is not None and not isinstance(label, str):
        raise MaskError(f"{where}: expected a label, got {shorten(label)}")
    return label or ""


def _shape(shape: Fields, size: Size, where: str) -> Mask:
    kind = shape.get("shape_type") or "polygon"
    given = shape.get("points")
    if not isinstance(given, list) or not all(isinstance(point, list) and len(point) == 2 for point in given):
        raise MaskError(f"{where}: points: expected a list of [x, y], got {shorten(given)}")
    points = polygons.points_of([value for point in given for value in point], where)
    if kind == "polygon":
        return polygons.fill([points], size, where)
    if kind not in ("rectangle", "circle", "mask"):
        raise MaskError(f"{where}: a {shorten(kind)} has no area; draw a polygon, or delete it")
    if len(points) != 2:
        raise MaskError(f"{where}: a {kind} has 2 points, got {len(points)}")
    polygons.check_inside(points, size, where)
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        return polygons.fill([np.asarray([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])], size, where)
    if kind == "circle":
        return polygons.fill([_circle(points, size)], size, where)
    return _bitmap(shape.get("mask"), points, size, where)


def _circle(points: polygons.Points, size: Size) -> polygons.Points:
    """A circle of (centre, a point on it), cut at the photo's border."""
    angles = np.linspace(0.0, 2.0 * math.pi, CORNERS_OF_CIRCLE, endpoint=False)
    around = points[0] + math.dist(points[0], points[1]) * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    inside: polygons.Points = np.clip(around, 0.0, (size[1], size[0]))
    return inside


def _bitmap(encoded: Any, points: polygons.Points, size: Size, where: str) -> Mask:
    """A PNG in base64 that fills the box of `points`, the last row and column included."""
    if not isinstance(encoded, str):
        raise MaskError(f"{where}: a mask needs a PNG in base64, got {shorten(encoded)}")
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MaskError(f"{where}: the mask is not base64: {error}") from error
    (x0, y0), (x1, y1) = np.rint(points).astype(np.int64).tolist()
    height, width = check_size(f"{where}: its mask", png_size(content, where), (y1 - y0 + 1, x1 - x0 + 1))
    if x0 < 0 or y0 < 0 or x0 + width > size[1] or y0 + height > size[0]:
        raise MaskError(f"{where}: its mask reaches out of the photo of {size[1]}x{size[0]}")
    return Mask.from_crop(size, (x0, y0), decode_mask(content, where))


def _union(parts: Sequence[Mask], size: Size) -> Mask:
    if len(parts) == 1:
        return parts[0]
    whole = np.zeros(size, dtype=np.bool_)
    for part in parts:
        x0, y0, x1, y1 = part.box
        whole[y0:y1, x0:x1] |= part.crop
    return Mask.from_dense(whole)


def write(entries: Iterable[Entry]) -> Iterator[tuple[str, bytes]]:
    """`<stem>.json` beside which labelme expects the photo. An empty mask has no outline and is left out."""
    for entry in entries:
        height, width = entry.instances.size
        document: Fields = {
            "version": "5.5.0",
            "flags": {},
            "shapes": list(_shapes(entry.instances)),
            "imagePath": entry.photo,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        yield f"{entry.stem}.json", json.dumps(document).encode()


def _shapes(instances: Instances) -> Iterator[Fields]:
    for i, (mask, label, value) in enumerate(zip(instances.masks, instances.labels, instances.scores, strict=True)):
        parts = polygons.trace(mask)
        for points in parts:
            yield {
                "label": label,
                "points": points.tolist(),
                "group_id": i if len(parts) > 1 else None,
                "shape_type": "polygon",
                "flags": {},
                "score": value,
            }
