"""Photos with instance masks, out of a COCO JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instapipe.errors import DataError
from instapipe.masks import coco
from instapipe.structures import BoolMask, Pixels


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """pixels: uint8 (H, W, 3) RGB.  masks: bool (N, H, W).  labels: int64 (N,), class indices from 1."""

    pixels: Pixels
    masks: BoolMask
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Record:
    """One photo of the set, not yet read; annotations as in the JSON."""

    path: Path
    size: tuple[int, int]
    annotations: tuple[dict[str, Any], ...]


class CocoSet:
    """The photos of a COCO JSON, by id; crowd annotations (which outline no single animal) are left out.

    A photo whose size is not what the JSON says, or an annotation without a mask, is a DataError that names it.
    """

    def __init__(self, source: Path, images: Path) -> None:
        try:
            content = json.loads(source.read_text(encoding="utf-8"))
            categories = sorted(content["categories"], key=lambda c: int(c["id"]))
            photos = {int(i["id"]): i for i in content["images"]}
            found: dict[int, list[dict[str, Any]]] = {photo: [] for photo in photos}
            self.classes = tuple(str(c["name"]) for c in categories)
            self._index = {int(c["id"]): i + 1 for i, c in enumerate(categories)}
            for annotation in content["annotations"]:
                if int(annotation["category_id"]) not in self._index or int(annotation["image_id"]) not in photos:
                    raise DataError(f"{source}: annotation {annotation.get('id')} names an unknown photo or category")
                if not annotation.get("iscrowd"):
                    found[int(annotation["image_id"])].append(annotation)
            self.records = tuple(
                Record(images / photos[i]["file_name"], (int(photos[i]["height"]), int(photos[i]["width"])), tuple(a))
                for i, a in sorted(found.items())
            )
        except OSError as error:
            raise DataError(f"cannot read {str(source)!r}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{str(source)!r} is no COCO instance JSON: {error!r}") from error
        if not any(record.annotations for record in self.records):
            raise DataError(f"{str(source)!r} holds no instances")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Sample:
        """Raises DataError."""
        record = self.records[i]
        pixels = read_pixels(record)
        masks = [decode(annotation, record) for annotation in record.annotations]
        stack = np.stack(masks) if masks else np.zeros((0, *record.size), dtype=np.bool_)
        return Sample(pixels, stack, self.labels(record))

    def labels(self, record: Record) -> NDArray[np.int64]:
        """Class index, from 1, of each annotation."""
        return np.asarray([self._index[int(a["category_id"])] for a in record.annotations], dtype=np.int64)

    def shares(self) -> Tensor:
        """How often each photo is drawn, float64 (len,), so that rare classes are seen more often than they occur.

        A photo counts by its rarest class, 1 / sqrt(photos with that class); one without instances is not drawn.
        """
        present = [set(self.labels(record).tolist()) for record in self.records]
        counts = [sum(label in labels for labels in present) for label in range(len(self.classes) + 1)]
        shares = [max((counts[label] ** -0.5 for label in labels), default=0.0) for labels in present]
        return torch.tensor(shares, dtype=torch.float64)


def read_pixels(record: Record) -> Pixels:
    """uint8 (H, W, 3) RGB, in the frame of the annotations: as stored, EXIF orientation not applied."""
    try:
        data = np.frombuffer(record.path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot read photo {str(record.path)!r}: {error.strerror}") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if image is None:
        raise DataError(f"cannot decode photo {str(record.path)!r}")
    if image.shape[:2] != record.size:
        raise DataError(
            f"photo {str(record.path)!r} is {image.shape[1]}x{image.shape[0]}, its JSON says "
            f"{record.size[1]}x{record.size[0]}"
        )
    return np.ascontiguousarray(image[:, :, ::-1]).astype(np.uint8, copy=False)


def decode(annotation: dict[str, Any], record: Record) -> BoolMask:
    """Bool (H, W), from polygons or either form of RLE; raises MaskError."""
    where = f"{record.path.name}: annotation {annotation.get('id')}"
    return coco.segmentation(annotation.get("segmentation"), record.size, where).dense()
