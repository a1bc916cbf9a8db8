"""Photos with labelled instances, from a COCO file, and the fixed split that keeps the judge independent.

The judge learns from one half of the training photos only: those whose file name hashes to an even first byte
(:func:`in_judge_half`). Whoever makes masks can be trained on the other half, and the halves never depend on the order
of a file. An eighth of the judge's half is kept back to choose thresholds (:func:`in_calibration`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instapipe.errors import DataError
from instapipe.imaging import read_photo
from instapipe.masks.coco import segmentation
from instapipe.structures import Instances, Pixels


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPhoto:
    """One photo of a COCO file.

    instances: what the file lists, in its order, crowds left out.  made_by: per instance who drew it ("human", "model",
    or "" where the file does not say).
    """

    path: Path
    instances: Instances
    made_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name, which decides the split."""
        return self.path.name

    def pixels(self) -> Pixels:
        """uint8 RGB (H, W, 3); raises PhotoError, and DataError where it has another size than listed."""
        photo = read_photo(self.path)
        if photo.size != self.instances.size:
            raise DataError(
                f"photo {str(self.path)!r} is {photo.size[1]}x{photo.size[0]}, "
                f"its data set says {self.instances.size[1]}x{self.instances.size[0]}"
            )
        return photo.pixels


def in_judge_half(name: str) -> bool:
    """Whether the judge may learn from the photo of this file name."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0


def in_calibration(name: str) -> bool:
    """Whether a photo of the judge's half is kept back to choose thresholds."""
    return hashlib.sha256(name.encode()).digest()[1] % 8 == 0


def read_coco(annotations: Path, images: Path) -> list[LabelledPhoto]:
    """The photos of a COCO instance file, in its order, with their masks.

    Raises DataError for a file that is no COCO instance file and for photos that are missing, MaskError for bad masks.
    """
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {str(annotations)!r}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{str(annotations)!r} is not JSON: {error}") from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        raise DataError(f"{str(annotations)!r} is no COCO instance file: it needs images, annotations and categories")
    names = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    listed: dict[int, list[dict[str, Any]]] = {}
    for entry in content["annotations"]:
        if not entry.get("iscrowd"):
            listed.setdefault(int(entry["image_id"]), []).append(entry)
    missing = [entry["file_name"] for entry in content["images"] if not (images / entry["file_name"]).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} photos of {str(annotations)!r} are not in {str(images)!r}, first {missing[0]!r}"
        )
    return [_photo(entry, listed.get(int(entry["id"]), []), names, images) for entry in content["images"]]


def _photo(image: dict[str, Any], entries: list[dict[str, Any]], names: dict[int, str], images: Path) -> LabelledPhoto:
    size = (int(image["height"]), int(image["width"]))
    masks = tuple(segmentation(entry.get("segmentation"), size, f"photo {image['file_name']!r}") for entry in entries)
    kept = [i for i, mask in enumerate(masks) if mask.area]
    instances = Instances(
        size,
        tuple(masks[i] for i in kept),
        tuple(names[int(entries[i]["category_id"])] for i in kept),
        tuple(1.0 for _ in kept),
    )
    return LabelledPhoto(
        images / image["file_name"], instances, tuple(str(entries[i].get("made_by", "")) for i in kept)
    )
