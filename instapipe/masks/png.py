"""One PNG for each instance: `<stem>_<i>.png`, InstaGAN's layout.

Two kinds of folder hold them. A flat one (`photos_seg/`) has the masks of many photos. `<stem>.masks/` has those of
one, with an optional `instances.json` (COCO) for labels and scores: there the PNGs are the truth, so that a mask can be
painted over in any editor, and a deleted PNG is a dropped instance.

A pixel belongs to the instance where it is brighter than half of the brightest: 0/1, 0/255 and 16-bit masks all read
the same. The numbers may start anywhere and have gaps. Masks of another size than the photo are refused, not resized.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instapipe import imaging
from instapipe.errors import MaskError
from instapipe.masks.names import NAME, numbered, stem_of
from instapipe.masks.records import Entry, Record, Size, build, check_count, check_size, digest_of, read_bytes
from instapipe.structures import BoolMask, Instances, Mask

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"IEND\xaeB`\x82"


class PngFolder:
    """A flat folder of `<stem>_<i>.png` for any number of photos; the masks have no class."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = numbered(path)

    def photos(self) -> Sequence[str]:
        return list(self._files)

    def record(self, photo: Path) -> Record | None:
        files = self._files.get(stem_of(photo))
        if files is None:
            return None
        contents = read_all(self.path, files)
        parts = [part for number, (_, content) in contents.items() for part in (str(number), content)]
        return Record(digest_of("png", parts), lambda size: decode_all(contents, size))


def read_one(path: Path) -> Record:
    """A single PNG as the only instance of its photo. Raises MaskError."""
    match = NAME.fullmatch(path.name)
    number = int(match["number"]) if match else 0
    contents = read_all(path.parent, {number: path.name})
    content = contents[number][1]
    return Record(digest_of("png", [str(number), content]), lambda size: decode_all(contents, size))


def read_all(folder: Path, files: dict[int, str]) -> dict[int, tuple[str, bytes]]:
    """By number what to call the file in messages, and its content."""
    check_count(f"masks {str(folder)!r}", len(files))
    return {number: (f"mask {str(folder / name)!r}", read_bytes(folder / name)) for number, name in files.items()}


def decode_all(contents: dict[int, tuple[str, bytes]], size: Size | None) -> Instances:
    """Instances without a class from PNGs by number; at least one, or the size given."""
    masks: list[Mask] = []
    for where, content in contents.values():
        size = check_size(where, png_size(content, where), size)
        masks.append(Mask.from_dense(decode_mask(content, where)))  # made small before the next is decoded
    if size is None:
        raise ValueError("no mask, so the size must be given")
    return build(masks, size, numbers=list(contents))


def png_size(content: bytes, where: str) -> Size:
    """(H, W) from the header, before anything is allocated. Raises MaskError if `content` is no PNG."""
    if not content.startswith(SIGNATURE):
        raise MaskError(f"{where}: {'not a PNG' if content else 'empty file'}")
    if END not in content or len(content) < 33:
        raise MaskError(f"{where}: damaged or cut off: no end chunk")
    width, height = struct.unpack(">II", content[16:24])
    return int(height), int(width)


def decode_pixels(content: bytes, where: str, *, indices: bool = False) -> tuple[NDArray[np.integer], bool]:
    """Values, (H, W) or (H, W, channels), and whether they are indices into a palette: never, unless `indices`.

    Raises MaskError for what cannot be decoded whole.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
            file.load()
            image: Image.Image = file
            palette = image.mode == "P"
            if palette and not indices:
                image = image.convert("RGBA" if "transparency" in image.info else "RGB")
            values = np.asarray(image)
    except Exception as error:  # Pillow's reader raises nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MaskError(f"{where}: damaged or cut off: {reason}") from error
    return values.astype(np.uint8) if values.dtype == np.bool_ else values, palette and indices


def decode_mask(content: bytes, where: str) -> BoolMask:
    """Bool (H, W): brighter than half of the brightest pixel. Transparent pixels count as dark."""
    values, _ = decode_pixels(content, where)
    if values.ndim == 3:
        colours, alpha = (values, None) if values.shape[2] == 3 else (values[..., :-1], values[..., -1])
        values = colours.max(axis=2)
        if alpha is not None:
            # Paint of one colour on a transparent ground: the paint is the mask.
            painted = values.max() == values.min() and alpha.max() > alpha.min()
            values = alpha if painted else np.where(alpha > alpha.max() // 2, values, 0)
    mask: BoolMask = values > values.max() // 2
    return mask


def encode_mask(mask: BoolMask) -> bytes:
    """A grey PNG of 8 bits, 0 outside and 255 inside: what every editor can paint on."""
    return imaging.encode_image(mask.astype(np.uint8) * np.uint8(255), ".png", flat=True)


def encode_deep(values: NDArray[np.uint16]) -> bytes:
    """A grey PNG of 16 bits, (H, W)."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(values).save(out, format="PNG")
    return out.getvalue()


def write(entries: Iterable[Entry]) -> Iterator[tuple[str, bytes]]:
    """`<stem>_<i>.png` for each instance, i its number."""
    for entry in entries:
        for number, mask in zip(entry.instances.numbers, entry.instances.masks, strict=True):
            yield f"{entry.stem}_{number}.png", encode_mask(mask.dense())
