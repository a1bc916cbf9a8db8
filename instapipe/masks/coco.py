"""COCO JSON: the masks of many photos in one file, as polygons or as either form of RLE.

The file is indexed once; the masks of a photo are decoded when it is asked for. Labels are the
categories' names. Crowd annotations (`iscrowd`) outline no single instance and are left out. `score` is kept where the
file has one, and so is `number`, which instapipe writes: the instance's number in file names and overlays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from instapipe.errors import MaskError
from instapipe.masks import polygons, rle
from instapipe.masks.names import stem_of
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
    score,
    shorten,
)
from instapipe.structures import Instances, Mask

Form = Literal["rle", "counts", "polygons"]
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Index:
    """One file, taken apart: images by their base name, annotations by image id, category names by id."""

    images: Mapping[str, Sequence[Fields]]
    annotations: Mapping[int | str, Sequence[Fields]]
    categories: Mapping[int, str]


class CocoFile:
    """A COCO JSON file; photos are found by file name, and by folders too where several share a name."""

    def __init__(self, path: Path, document: Fields) -> None:
        self.path = path
        self._index = _index(document, f"masks {str(path)!r}")

    def photos(self) -> Sequence[str]:
        return [str(image["file_name"]) for images in self._index.images.values() for image in images]

    def record(self, photo: Path) -> Record | None:
        image = self._image(photo)
        if image is None:
            return None
        where = f"masks {str(self.path)!r}, photo {image['file_name']!r}"
        wanted = [a for a in self._index.annotations.get(image["id"], ()) if not a.get("iscrowd")]
        check_count(where, len(wanted))
        labels = [self._label(annotation, where) for annotation in wanted]
        size = _stated_size(image, where)
        relevant = [[a.get("segmentation"), a.get("score"), a.get("number")] for a in wanted]
        digest = digest_of("coco", [canonical([size, labels, relevant], where)])
        return Record(digest, lambda photo_size: _decode(wanted, labels, size, photo_size, where))

    def _image(self, photo: Path) -> Fields | None:
        named = self._index.images
        candidates = named.get(photo.name) or named.get(stem_of(photo)) or ()  # some files list names without suffix
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        there = photo.absolute().parts[::-1]
        shared = [_shared(_parts(image["file_name"])[::-1], there) for image in candidates]
        best = max(shared)
        if shared.count(best) > 1:
            raise MaskError(
                f"masks {str(self.path)!r}: {shared.count(best)} images are called {photo.name!r}, and the folder of "
                f"{str(photo)!r} does not tell which one is meant"
            )
        return candidates[shared.index(best)]

    def _label(self, annotation: Fields, where: str) -> str:
        category = annotation.get("category_id")
        name = self._index.categories.get(category) if isinstance(category, int) else None
        if name is None:
            raise MaskError(f"{where}: {_called(annotation)} has category_id {shorten(category)}, which is not listed")
        return name


def _index(document: Fields, where: str) -> Index:
    images: dict[str, list[Fields]] = {}
    known: set[int | str] = set()
    for image in _fields(document, "images", where):
        name, key = image.get("file_name"), image.get("id")
        if not isinstance(name, str) or not name or "\0" in name or not isinstance(key, int | str):
            raise MaskError(f"{where}: an image needs an id and a file_name, got {shorten(image)}")
        if key in known:
            raise MaskError(f"{where}: two images have the id {shorten(key)}")
        known.add(key)
        images.setdefault(_parts(name)[-1], []).append(image)
    annotations: dict[int | str, list[Fields]] = {}
    for annotation in _fields(document, "annotations", where):
        key = annotation.get("image_id")
        if not isinstance(key, int | str) or key not in known:
            raise MaskError(f"{where}: {_called(annotation)} has image_id {shorten(key)}, which is not listed")
        annotations.setdefault(key, []).append(annotation)
    categories: dict[int, str] = {}
    for category in _fields(document, "categories", where):
        name, number = category.get("name"), category.get("id")
        if not isinstance(name, str) or not isinstance(number, int):
            raise MaskError(f"{where}: a category needs an id and a name, got {shorten(category)}")
        categories[number] = name
    return Index(images, annotations, categories)


def _fields(document: Fields, name: str, where: str) -> list[Fields]:
    values = document.get(name)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise MaskError(f"{where}: COCO JSON needs {name!r}, a list of objects; got {shorten(values)}")
    return values


def _parts(name: str) -> tuple[str, ...]:
    """Of a file name that may have been written on Windows."""
    return PurePosixPath(name.replace("\\", "/")).parts or (name,)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts agree from the start."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _called(annotation: Fields) -> str:
    return f"annotation {shorten(annotation.get('id'))}"


def _stated_size(image: Fields, where: str) -> Size | None:
    """(H, W), or None where the image does not say."""
    if image.get("height") is None or image.get("width") is None:
        return None
    return (
        integer(image["height"], f"{where}: height", least=1, most=2**20),
        integer(image["width"], f"{where}: width", least=1, most=2**20),
    )


def _decode(
    annotations: Sequence[Fields], labels: Sequence[str], stated: Size | None, photo: Size | None, where: str
) -> Instances:
    size = check_size(where, stated, photo) if stated else photo
    if size is None:
        raise MaskError(f"{where}: no width and height; give the photos too")
    numbers = [
        integer(a["number"], f"{where}: {_called(a)}: number", most=10**9) if "number" in a else i
        for i, a in enumerate(annotations)
    ]
    if len(set(numbers)) < len(numbers):
        raise MaskError(f"{where}: two annotations have the same number; remove the field 'number', or make it unique")
    masks = [segmentation(a.get("segmentation"), size, f"{where}: {_called(a)}") for a in annotations]
    scores = [
        score(a["score"], f"{where}: {_called(a)}: score") if a.get("score") is not None else 1.0 for a in annotations
    ]
    return build(masks, size, labels, scores, numbers)


def segmentation(value: Any, size: Size, where: str) -> Mask:
    """The mask that the field `segmentation` of an annotation describes, in a photo of `size`. Raises MaskError."""
    if isinstance(value, dict):
        check_size(where, rle.rle_size(value, where), size)
        return Mask.from_dense(rle.decode(value, where))
    if isinstance(value, list) and value:
        return polygons.fill([polygons.points_of(part, where) for part in value], size, where)
    raise MaskError(f"{where}: no segmentation, only a box perhaps: expected polygons or RLE, got {shorten(value)}")


def document(entries: Iterable[Entry], form: Form = "rle") -> Fields:
    """A COCO document of `entries`; ids count from 1, categories are sorted by name."""
    images: list[Fields] = []
    annotations: list[Fields] = []
    labels: list[str] = []
    for entry in entries:
        height, width = entry.instances.size
        images.append({"id": len(images) + 1, "file_name": entry.photo, "width": width, "height": height})
        for annotation in _annotations(entry.instances, form):
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), **annotation})
        labels.extend(entry.instances.labels)
    names = sorted(set(labels))
    ids = {name: number for number, name in enumerate(names, start=1)}
    for annotation, label in zip(annotations, labels, strict=True):
        annotation["category_id"] = ids[label]
    return {
        "info": {"description": "written by instapipe"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": ids[name], "name": name} for name in names],
    }


def _annotations(instances: Instances, form: Form) -> Iterator[Fields]:
    for mask, value, number in zip(instances.masks, instances.scores, instances.numbers, strict=True):
        x0, y0, x1, y1 = mask.box
        yield {
            "segmentation": _encode(mask, form),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": mask.area,
            "iscrowd": 0,
            "score": value,
            "number": number,
        }


def _encode(mask: Mask, form: Form) -> Any:
    # An empty mask has no outline; RLE can say that it is empty.
    if form == "polygons" and mask.area:
        return [points.ravel().round(2).tolist() for points in polygons.trace(mask)]
    return rle.encode_list(mask.dense()) if form == "counts" else rle.encode(mask.dense())


def write(entries: Iterable[Entry], form: Form = "rle") -> Iterator[tuple[str, bytes]]:
    """One file, `instances.json`."""
    yield "instances.json", json.dumps(document(entries, form)).encode()
