"""COCO JSON + images, as a list of annotated photos of one class."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from instapipe.errors import DataError
from instapipe.structures import BoolMask


@dataclass(frozen=True, slots=True)
class AnnotatedPhoto:
    """One photo and the annotations of the wanted class.

    path: the image file.  size: (H, W).  segmentations: RLE or polygons, as in the JSON.
    """

    path: Path
    size: tuple[int, int]
    segmentations: tuple[Any, ...]

    def masks(self) -> list[BoolMask]:
        """Each bool (H, W)."""
        return [decode(segmentation, self.size) for segmentation in self.segmentations]


def decode(segmentation: Any, size: tuple[int, int]) -> BoolMask:
    """Polygons or either RLE form -> bool (H, W)."""
    height, width = size
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return np.asarray(coco_mask.decode(rle), dtype=np.bool_)


def read_class(path: Path, label: str) -> list[AnnotatedPhoto]:
    """The photos of a COCO JSON that show `label`, crowd annotations left out, in the order of the file.

    Images are looked for beside the JSON and in `images/` beside it. Raises DataError where the file is no COCO JSON,
    knows no such class, has no photo of it, or an image is missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = {str(c["name"]): int(c["id"]) for c in content["categories"]}
        images = {int(i["id"]): i for i in content["images"]}
        annotations = content["annotations"]
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{str(path)!r} is no COCO JSON (images, annotations, categories): {error!r}") from error
    if label not in categories:
        raise DataError(f"{str(path)!r} has no class {label!r}; it has: {', '.join(sorted(categories))}")
    found: dict[int, list[Any]] = {}
    for annotation in annotations:
        if int(annotation["category_id"]) == categories[label] and not annotation.get("iscrowd"):
            found.setdefault(int(annotation["image_id"]), []).append(annotation["segmentation"])
    if not found:
        raise DataError(f"{str(path)!r} has no instance of {label!r}")
    folders = [path.parent / "images", path.parent]
    photos = []
    for image_id, segmentations in found.items():
        image = images[image_id]
        file = next((f / image["file_name"] for f in folders if (f / image["file_name"]).is_file()), None)
        if file is None:
            raise DataError(f"image {image['file_name']!r} of {str(path)!r} is neither in {folders[0]} nor beside it")
        photos.append(AnnotatedPhoto(file, (int(image["height"]), int(image["width"])), tuple(segmentations)))
    return photos
