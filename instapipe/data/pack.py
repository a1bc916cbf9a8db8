"""Windows around instances, resized, in a folder of their own: a training set small enough to be carried elsewhere.

Such a folder is COCO JSON + images, so that `instapipe train` reads it like any other. A window shows `margin` times
the longer side of its instance's box, as far as the photo goes: a training window, which is smaller, lies inside or is
reflected at the same border as in the photo. What rules ask of the photo (sizes there, its border, which window an
instance has as its own) is kept in the JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from instapipe.data.geometry import resize_image, resize_masks
from instapipe.data.photos import COCO_NAME, AnnotatedPhoto, Instance, Role
from instapipe.errors import DataError, OutputError
from instapipe.imaging.cutting import cut
from instapipe.imaging.windows import Framing, Rectangle
from instapipe.masks import Entry
from instapipe.masks.coco import document
from instapipe.structures import Instances, Mask, Pixels

QUALITIES = (95, 90, 85, 80, 70)
"""Of WebP, tried in this order until the pack is small enough."""


@dataclass(frozen=True, slots=True)
class Packing:
    """size: side of a window in the pack, pixels; smaller ones are not enlarged.  margin: window over box.

    min_side: instances whose box has no side this long are left out, pixels of the photo.  max_bytes: of the folder.
    """

    size: int = 160
    margin: float = 2.0
    min_side: int = 32
    max_bytes: int = 25_000_000


@dataclass(frozen=True, slots=True)
class Packed:
    """What a pack holds. companions: annotations of neighbours in others' windows.  left_out: instances by reason."""

    folder: Path
    photos: int
    windows: int
    companions: int
    left_out: dict[str, int]
    quality: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """pixels: uint8 (h, w, 3).  instances: the centre first, in the window's frame.  window: in its photo's frame."""

    pixels: Pixels
    instances: tuple[Instance, ...]
    photo: str
    window: Rectangle


def pack(photos: Iterable[AnnotatedPhoto], label: str, folder: Path, packing: Packing) -> Packed:
    """Write the windows of `photos` to `folder`, which must not exist or be empty; it is whole or absent.

    Raises DataError where there is nothing to pack or it does not fit, OutputError where it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{str(folder)!r} exists and is not an empty folder; name another --output, or delete it")
    left_out: dict[str, int] = {}
    windows = [window for photo in photos for window in _windows(photo, packing, left_out)]
    if not windows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"no instance of {label!r} to pack ({reasons or 'none was found'})")
    description = _description(windows, label, packing)
    quality, pictures = _encode(windows, packing.max_bytes - len(description))
    files = {f"images/{_name(i)}": picture for i, picture in enumerate(pictures)} | {COCO_NAME: description}
    _write(folder, files)
    return Packed(
        folder=folder,
        photos=len({window.photo for window in windows}),
        windows=len(windows),
        companions=sum(len(window.instances) - 1 for window in windows),
        left_out=left_out,
        quality=quality,
        bytes=sum(len(content) for content in files.values()),
    )


def _windows(photo: AnnotatedPhoto, packing: Packing, left_out: dict[str, int]) -> Iterator[_Window]:
    if photo.reach is not None:
        raise DataError(f"{str(photo.path)!r} is a packed window already; pack the photos that it was cut from")
    pixels, instances = photo.read()
    height, width = pixels.shape[:2]
    for centre in (instance for instance in instances if instance.role == "centre"):
        reason = None
        if centre.mask.area == 0:
            reason = "empty mask"
        elif centre.side < packing.min_side:
            reason = f"smaller than {packing.min_side} px"
        if reason is not None:
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        square = Framing(packing.margin).window([centre.mask.box])
        window = (max(0, square[0]), max(0, square[1]), min(width, square[2]), min(height, square[3]))
        factor = min(1.0, packing.size / (square[2] - square[0]))
        size = (max(1, round((window[3] - window[1]) * factor)), max(1, round((window[2] - window[0]) * factor)))
        there = [centre, *(other for other in instances if other is not centre and other.mask.window(window).any())]
        small = resize_masks(np.stack([instance.mask.window(window) for instance in there]), size)
        moved = []
        for mask, instance in zip(small, there, strict=True):
            role: Role = "refused" if instance.role == "refused" else "companion"
            role = "centre" if instance is centre else role
            area = instance.area * factor**2
            moved.append(Instance(Mask.from_dense(mask), instance.side, instance.cut_off, area, role))
        if moved[0].mask.area == 0:
            left_out["vanishes at this size"] = left_out.get("vanishes at this size", 0) + 1
            continue
        present = tuple(instance for instance in moved if instance.mask.area)
        yield _Window(resize_image(cut(pixels, window), size), present, photo.path.name, window)


def _description(windows: list[_Window], label: str, packing: Packing) -> bytes:
    """COCO JSON with the fields that data/coco.py reads besides."""
    entries = []
    for index, window in enumerate(windows):
        height, width = window.pixels.shape[:2]
        masks, n = tuple(instance.mask for instance in window.instances), len(window.instances)
        entries.append(Entry(_name(index), Instances((height, width), masks, (label,) * n, (1.0,) * n)))
    content = document(entries)
    for image, window in zip(content["images"], windows, strict=True):
        image["cut_from"] = {"photo": window.photo, "window": list(window.window), "reach": packing.margin}
    instances = [instance for window in windows for instance in window.instances]
    for annotation, instance in zip(content["annotations"], instances, strict=True):
        annotation["role"] = instance.role
        annotation["whole"] = {
            "side": instance.side,
            "cut_off": round(instance.cut_off, 4),
            "area": round(instance.area, 1),
        }
    return json.dumps(content, separators=(",", ":")).encode()


def _encode(windows: list[_Window], room: int) -> tuple[int, list[bytes]]:
    """The best of QUALITIES at which the pictures fit into `room` bytes. Raises DataError where none does."""
    total = 0
    for quality in QUALITIES:
        pictures = []
        for window in windows:
            _, encoded = cv2.imencode(
                ".webp", cv2.cvtColor(window.pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, quality]
            )
            pictures.append(encoded.tobytes())
        total = sum(len(picture) for picture in pictures)
        if total <= room:
            return quality, pictures
    raise DataError(
        f"{len(windows)} windows need {total / 1e6:.1f} MB at the lowest quality, and {max(0, room) / 1e6:.1f} MB are "
        "left: a smaller --size, a larger --min-side, or more with --max-mb"
    )


def _write(folder: Path, files: dict[str, bytes]) -> None:
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".instapipe-", dir=folder.parent))
        scratch.chmod(0o755)
        (scratch / "images").mkdir()
        for name, content in files.items():
            (scratch / name).write_bytes(content)
        if folder.exists():
            folder.rmdir()  # empty, as checked: renaming onto it is not possible everywhere
        os.replace(scratch, folder)
    except OSError as error:
        raise OutputError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _name(index: int) -> str:
    return f"{index:06d}.webp"
