"""What every mask format is read through: a :class:`MaskSource` lists photos and hands out a :class:`Record` for each.

A record holds the content that belongs to one photo, read once: its digest and its masks come from the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from instapipe.errors import MaskError
from instapipe.masks.names import stem_of
from instapipe.structures import BoolMask, Instances, Mask

Size = tuple[int, int]

MAX_INSTANCES = 1_000
"""More than that in one photo is no set of instances."""
MAX_PHOTO_BYTES = 64 * 2**20
"""What one photo's mask file may weigh: a labelme file carries its photo inside."""
MAX_COLLECTION_BYTES = 2**29
"""What a file about many photos may weigh: the largest COCO set has 450 MB."""
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2


@dataclass(frozen=True, slots=True)
class Record:
    """The masks of one photo, not yet decoded.

    digest: sha256 (hex) of everything that `instances` depends on; no path in it.
    decode: from the photo's (H, W), or None for the size that the masks themselves state, to Instances.
        Raises MaskError.
    """

    digest: str
    decode: Callable[[Size | None], Instances]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written: a photo's base name (with its suffix where that is known) and its masks."""

    photo: str
    instances: Instances

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return stem_of(self.photo)


class MaskSource(Protocol):
    """A file or folder with the masks of any number of photos, in one format."""

    def photos(self) -> Sequence[str]:
        """The names of the photos that are listed, with their suffix where the format knows it."""
        ...

    def record(self, photo: Path) -> Record | None:
        """The masks of `photo` (only its name counts), or None where it is not listed. Raises MaskError."""
        ...


def digest_of(kind: str, parts: Iterable[bytes | str]) -> str:
    """sha256 (hex) of `parts`, each with its length, so that no two lists of parts share one."""
    total = hashlib.sha256(f"instapipe masks 1 {kind}".encode())
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "little"))
        total.update(raw)
    return total.hexdigest()


def build(
    masks: Sequence[BoolMask | Mask],
    size: Size,
    labels: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
    numbers: Sequence[int] | None = None,
) -> Instances:
    """Instances of a photo of `size`; without labels '' (a mask without a class), without scores 1.0."""
    n = len(masks)
    return Instances(
        size,
        tuple(m if isinstance(m, Mask) else Mask.from_dense(np.ascontiguousarray(m)) for m in masks),
        tuple(labels) if labels is not None else ("",) * n,
        tuple(scores) if scores is not None else (1.0,) * n,
        tuple(numbers) if numbers is not None else tuple(range(n)),
    )


def check_size(where: str, own: Size, photo: Size | None) -> Size:
    """The size to decode at; raises MaskError where the masks are of another size than the photo."""
    if photo is None or own == photo:
        return own
    turned = "; they fit the photo before it was turned upright (EXIF)" if own == (photo[1], photo[0]) else ""
    raise MaskError(
        f"{where}: the masks are {own[1]}x{own[0]}, the photo is {photo[1]}x{photo[0]}{turned}; "
        "make the masks at the photo's own size"
    )


def check_count(where: str, count: int) -> None:
    """Raises MaskError for more instances than a photo can sensibly have."""
    if count > MAX_INSTANCES:
        raise MaskError(f"{where}: {count:,} instances; at most {MAX_INSTANCES:,} are read: is this a mask file?")


def read_bytes(path: Path, limit: int = MAX_PHOTO_BYTES) -> bytes:
    """The content of `path`; raises MaskError if it cannot be read or is larger than `limit` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise MaskError(f"cannot read masks {str(path)!r}: {error.strerror or error}") from error
    if len(content) > limit:
        raise MaskError(f"masks {str(path)!r}: larger than {limit // 2**20} MiB, the most that is read")
    return content


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """`content` as a JSON object; raises MaskError for anything else, however deeply nested."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise MaskError(f"{where}: nested too deeply to be a mask file") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, an integer of thousands of digits
        raise MaskError(f"{where}: not JSON: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise MaskError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def integer(value: Any, where: str, *, least: int = 0, most: int = 2**31) -> int:
    """`value` as an int in [least, most]; whole floats pass. Raises MaskError."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise MaskError(f"{where}: expected a whole number from {least} to {most}, got {shorten(value)}")
    return value


def score(value: Any, where: str) -> float:
    """`value` as a score in [0, 1]; raises MaskError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise MaskError(f"{where}: expected a score from 0 to 1, got {shorten(value)}")
    return float(value)


def canonical(value: Any, where: str) -> str:
    """`value` as JSON text that is the same for the same content. Raises MaskError if it is nested too deeply."""
    try:
        return json.dumps(value, sort_keys=True)
    except RecursionError:
        raise MaskError(f"{where}: nested too deeply to be a mask file") from None


def shorten(value: Any) -> str:
    """`value` for a one-line message, however large or deep it is."""
    text = " ".join(_BRIEF.repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
