"""One PNG for each photo, `<stem>.png`, whose values name the instances: 0 is background.

Grey maps of 8 or 16 bits and palette maps count their values (in a palette map 255 is the `void` of Pascal VOC and left
out); in a colour map every colour is an instance, black is background (COCO panoptic: R + 256 G + 65536 B). Instances
come in the order of their values, without a class. Where written masks overlap, the later one wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instapipe import imaging
from instapipe.masks.names import files_in, stem_of
from instapipe.masks.png import decode_pixels, encode_deep, png_size
from instapipe.masks.records import Entry, Record, Size, build, check_count, check_size, digest_of, read_bytes
from instapipe.structures import Instances, Mask

VOID = 255


class LabelMaps:
    """A folder of label maps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def photos(self) -> Sequence[str]:
        return [path.stem for path in files_in(self.path, ".png")]

    def record(self, photo: Path) -> Record | None:
        path = self.path / f"{stem_of(photo)}.png"
        return read(path) if path.is_file() else None


def read(path: Path) -> Record:
    """The record of one label map. Raises MaskError."""
    where = f"label map {str(path)!r}"
    content = read_bytes(path)
    return Record(digest_of("label map", [content]), lambda size: _decode(content, where, size))


def _decode(content: bytes, where: str, size: Size | None) -> Instances:
    size = check_size(where, png_size(content, where), size)
    values, is_palette = decode_pixels(content, where, indices=True)
    if values.ndim == 3:
        values = _numbers_of_colours(values)
    found = [int(value) for value in np.unique(values) if value]
    if is_palette and len(found) > 1 and VOID in found:
        found.remove(VOID)
    check_count(where, len(found))
    return build([Mask.from_dense(values == value) for value in found], size)


def _numbers_of_colours(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """One number a pixel from (H, W, 2 to 4): grey or red, green, blue, and perhaps alpha; transparent is 0."""
    channels = values.shape[2]
    numbers = np.zeros(values.shape[:2], dtype=np.uint32)
    for channel in range(3 if channels > 2 else 1):
        numbers |= values[..., channel].astype(np.uint32) << np.uint32(8 * channel)
    if channels in (2, 4):
        numbers[values[..., -1] == 0] = 0
    return numbers


def write(entries: Iterable[Entry]) -> Iterator[tuple[str, bytes]]:
    """`<stem>.png`, value i + 1 for the i-th instance; 16 bits where there are more than 255."""
    for entry in entries:
        deep = len(entry.instances) > 255
        values = np.zeros(entry.instances.size, dtype=np.uint16 if deep else np.uint8)
        for value, mask in enumerate(entry.instances.masks, start=1):
            x0, y0, x1, y1 = mask.box
            values[y0:y1, x0:x1][mask.crop] = value
        encoded = encode_deep(values) if deep else imaging.encode_image(values.astype(np.uint8), ".png", flat=True)
        yield f"{entry.stem}.png", encoded
