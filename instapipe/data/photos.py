"""Photos with the instances of one class, whatever form they come in: what training sets are cut from.

::

    photos.json             COCO JSON; images beside it or in images/
    photos/                 a folder with instances.json (COCO; what `instapipe data pack` writes)
    photos/                 a folder of photos; masks in photos_seg/<stem>_<i>.png (InstaGAN's layout), in
                            photos/<stem>.masks/, or wherever `masks` says, in any format of instapipe.masks
    photos/                 a folder of photos alone: segmented first (training/segment_first.py)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from instapipe import masks as mask_formats
from instapipe.data.geometry import outline_on_border
from instapipe.errors import DataError, PhotoError
from instapipe.imaging import PHOTO_SUFFIXES, read_photo
from instapipe.structures import Instances, Mask, Pixels

Form = Literal["coco", "masks", "photos"]
"""COCO JSON; a folder of photos with masks; a folder of photos without any."""
Role = Literal["centre", "companion", "refused"]

COCO_NAME = "instances.json"
OVERLAY = ".overlay.png"
"""Ending of the pictures that `instapipe segment` writes: no photos."""
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One instance, with what the rules of cutting ask about it.

    side: the longer side of its box, pixels of the photo that it was found in.
    cut_off: share of its box's outline on that photo's border.  area: of the whole mask, pixels of this picture.
    role: `centre` may have a window of its own, `companion` can only join others' windows, `refused` only crowds them.
    """

    mask: Mask
    side: float
    cut_off: float
    area: float
    role: Role = "centre"

    @classmethod
    def of(cls, mask: Mask, role: Role = "centre") -> Instance:
        """As the mask itself tells, in a photo that is whole."""
        x0, y0, x1, y1 = mask.box
        return cls(mask, max(x1 - x0, y1 - y0), outline_on_border(mask), mask.area, role)


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedPhoto:
    """One picture and its instances of one class; nothing is decoded before :meth:`read`.

    origin: the photo that it was cut from: pictures of one origin are held out together.
    decode: from (H, W) of the upright picture to its instances. Raises MaskError.
    reach: for a packed window, how many times the longer side of its instance it shows; None for a whole photo.
    """

    path: Path
    origin: str
    decode: Callable[[tuple[int, int]], tuple[Instance, ...]]
    reach: float | None = None

    def read(self) -> tuple[Pixels, tuple[Instance, ...]]:
        """uint8 (H, W, 3), upright sRGB as in translation, and the instances. Raises PhotoError, MaskError."""
        pixels = read_photo(self.path).pixels
        return pixels, self.decode((pixels.shape[0], pixels.shape[1]))


def form_of(source: Path, masks: Path | None = None) -> Form:
    """In which form the photos at `source` are. Raises DataError, naming the way out."""
    if source.is_file():
        if source.suffix.lower() != ".json":
            raise DataError(f"data {str(source)!r}: expected COCO JSON or a folder of photos")
        return "coco"
    if not source.is_dir():
        raise DataError(f"no data at {str(source)!r}: expected COCO JSON or a folder of photos")
    if masks is not None:
        return "masks"
    if (source / COCO_NAME).is_file():
        return "coco"
    return "masks" if any(mask_formats.find(photo) is not None for photo in photo_files(source)) else "photos"


def read_photos(source: Path, label: str, *, masks: Path | None = None) -> list[AnnotatedPhoto]:
    """The photos at `source` that show `label`, in the order of the file or by name.

    masks: where the masks of a folder's photos are, if not beside it; those without a class count as `label`.
    Raises DataError where there is none or the photos have no masks, MaskError and PhotoError for what cannot be read.
    """
    form = form_of(source, masks)
    if form == "coco":
        from instapipe.data.coco import read_class

        return read_class(coco_file(source), label)
    if form == "photos":
        raise DataError(f"the photos in {str(source)!r} have no masks; expected {source.name}_seg/ or <photo>.masks/")
    found = list(_with_masks(source, label, masks))
    if not found:
        raise DataError(f"no photo in {str(source)!r} has a mask of {label!r}")
    return found


def coco_file(source: Path) -> Path:
    """The JSON that `source` (itself, or a folder with it inside) means."""
    return source / COCO_NAME if source.is_dir() else source


def photo_files(folder: Path) -> list[Path]:
    """The photos in `folder`, by name. Raises DataError where there are none."""
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()]
    found = [path for path in found if not path.name.lower().endswith(OVERLAY)]
    if not found:
        below = sorted(path.name for path in folder.iterdir() if path.is_dir() and _has_photo(path))
        hint = f"; its folders {', '.join(below[:6])} have: name one of them" if below else ""
        raise DataError(f"no photos in the folder {str(folder)!r}{hint}")
    return found


def upright_size(path: Path) -> tuple[tuple[int, int], int]:
    """(H, W) of a photo once it is turned upright, and its EXIF orientation (1: upright as it lies), from the header.

    Raises PhotoError.
    """
    try:
        with Image.open(path) as image:
            orientation = int(image.getexif().get(0x0112, 1))
            height, width = image.height, image.width
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError(f"photo {str(path)!r} cannot be read: {reason}") from error
    return ((width, height) if orientation in _TURNED else (height, width)), orientation


def of_label(instances: Instances, label: str) -> list[Mask]:
    """The masks of `label`, those without a class among them."""
    return [m for m, own in zip(instances.masks, instances.labels, strict=True) if own in (label, "")]


def _with_masks(folder: Path, label: str, masks: Path | None) -> Iterator[AnnotatedPhoto]:
    for path in photo_files(folder):
        source = masks or mask_formats.find(path)
        record = None if source is None else mask_formats.record(source, path)
        if record is None:
            continue
        size, _ = upright_size(path)
        # Decoded here to know whether the photo shows the class at all, and again when it is cut: masks of big photos
        # are not kept.
        if of_label(record.decode(size), label):
            yield AnnotatedPhoto(path, str(path), partial(_decode, record, label))


def _decode(record: mask_formats.Record, label: str, size: tuple[int, int]) -> tuple[Instance, ...]:
    return tuple(Instance.of(mask) for mask in of_label(record.decode(size), label))


def _has_photo(folder: Path) -> bool:
    return not folder.name.endswith("_seg") and any(p.suffix.lower() in PHOTO_SUFFIXES for p in folder.iterdir())
