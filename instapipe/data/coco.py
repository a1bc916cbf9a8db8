"""COCO JSON + images, as annotated photos of one class.

A pack (`instapipe data pack`) is such a file with three fields more, which keep for its windows what was true of the
photos they were cut from: `cut_from` of an image, `whole` and `role` of an annotation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from instapipe.data.photos import AnnotatedPhoto, Instance
from instapipe.errors import DataError, MaskError
from instapipe.masks.coco import segmentation
from instapipe.masks.records import MAX_COLLECTION_BYTES, check_size, parse_json, read_bytes

Fields = dict[str, Any]


def read_class(path: Path, label: str) -> list[AnnotatedPhoto]:
    """The photos of a COCO JSON that show `label`, crowd annotations left out, in the order of the file.

    Images are looked for in `images/` beside the JSON and beside it. Raises DataError where the file is no COCO JSON,
    knows no such class, has no photo of it, or an image is missing.
    """
    try:
        content = parse_json(read_bytes(path, MAX_COLLECTION_BYTES), f"data {str(path)!r}")
        categories = {str(category["name"]): category["id"] for category in content["categories"]}
        images = {image["id"]: image for image in content["images"]}
        found: dict[Any, list[Fields]] = {}
        for annotation in content["annotations"]:
            if annotation["category_id"] == categories.get(label) and not annotation.get("iscrowd"):
                found.setdefault(annotation["image_id"], []).append(annotation)
    except MaskError as error:
        raise DataError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{str(path)!r} is no COCO JSON (images, annotations, categories): {error!r}") from error
    if label not in categories:
        raise DataError(f"{str(path)!r} has no class {label!r}; it has: {', '.join(sorted(categories))}")
    if not found:
        raise DataError(f"{str(path)!r} has no instance of {label!r}")
    missing = [key for key in found if key not in images]
    if missing:
        raise DataError(f"{str(path)!r}: annotations of image {missing[0]!r}, which is not listed")
    return [_photo(path, images[key], annotations) for key, annotations in found.items()]


def is_pack(path: Path) -> bool:
    """Whether the JSON at `path` describes packed windows; False too for what cannot be read."""
    try:
        images = parse_json(read_bytes(path, MAX_COLLECTION_BYTES), "").get("images")
    except MaskError:
        return False
    return isinstance(images, list) and any(isinstance(image, dict) and "cut_from" in image for image in images)


def find_image(path: Path, name: str) -> Path | None:
    """The image that the JSON at `path` calls `name`."""
    places = (path.parent / "images" / name, path.parent / name)
    return next((place for place in places if place.is_file()), None)


def _photo(path: Path, image: Fields, annotations: list[Fields]) -> AnnotatedPhoto:
    name = str(image.get("file_name", ""))
    file = find_image(path, name) if name else None
    if file is None:
        raise DataError(
            f"image {name!r} of {str(path)!r} is neither in {path.parent / 'images'} nor beside the JSON; "
            f"see: instapipe data check {path}"
        )
    origin = image.get("cut_from") or {}
    stated = (image["height"], image["width"]) if "height" in image and "width" in image else None
    decode = partial(_decode, annotations, stated, f"data {str(path)!r}, photo {name!r}")
    return AnnotatedPhoto(file, str(origin.get("photo", file)), decode, origin.get("reach"))


def _decode(
    annotations: list[Fields], stated: tuple[int, int] | None, where: str, size: tuple[int, int]
) -> tuple[Instance, ...]:
    if stated is not None:
        check_size(where, stated, size)
    instances = []
    for annotation in annotations:
        mask = segmentation(annotation.get("segmentation"), size, f"{where}: annotation {annotation.get('id')}")
        whole = annotation.get("whole")
        if whole is None:
            instances.append(Instance.of(mask))
        else:
            role = annotation.get("role", "centre")
            instances.append(Instance(mask, whole["side"], whole["cut_off"], whole["area"], role))
    return tuple(instances)
