"""What files of masks are called, and where they are looked for unasked.

Names alone: a run that finds everything in the cache needs them, and no numpy.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path, PurePath

from instapipe.errors import MaskError
from instapipe.imaging import PHOTO_SUFFIXES, file_name

NAME = re.compile(r"(?P<stem>.+)_(?P<number>\d{1,9})\.png", re.IGNORECASE | re.DOTALL)
SUFFIX = ".masks"
"""Of the folder with the masks of one photo."""
JSON_NAME = "instances.json"
"""In it: labels and scores."""
NO_MASKS = re.compile(r"\..*|classes\.txt|(readme|notice|licen[cs]e)\b.*", re.IGNORECASE)
"""Files that may lie in a folder of masks and are none."""


def find(photo: Path) -> Path | None:
    """The masks that lie beside `photo`: `<stem>.masks/`, else `<folder>_seg/` where it has some; else None."""
    own = own_folder(photo)
    if own.is_dir():
        return own
    folder = Path(os.path.abspath(photo)).parent
    beside = folder.with_name(f"{folder.name}_seg") if folder.name else folder
    return beside if beside.is_dir() and stem_of(photo) in numbered(beside) else None


def own_folder(photo: Path) -> Path:
    """`<stem>.masks` beside `photo`, whether it is there or not."""
    return photo.parent / file_name(stem_of(photo), SUFFIX)


def stem_of(photo: str | PurePath) -> str:
    """The base name of a photo without its suffix; what follows the last dot of `img.v2` is none."""
    path = PurePath(photo)
    return path.stem if path.suffix.lower() in PHOTO_SUFFIXES else path.name


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The mask files of `folder` that end with `suffix`, by name. Raises MaskError if it cannot be listed."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() == suffix and not NO_MASKS.fullmatch(p.name))
    except OSError as error:
        raise MaskError(f"cannot read the folder of masks {str(folder)!r}: {error.strerror or error}") from error


def numbered(folder: Path) -> dict[str, dict[int, str]]:
    """Per stem the files `<stem>_<i>.png` of `folder` by i, ascending. Raises MaskError for two files of one number."""
    try:
        changed = folder.stat().st_mtime_ns
    except OSError as error:
        raise MaskError(f"cannot read the folder of masks {str(folder)!r}: {error.strerror or error}") from error
    return _numbered(folder, changed)


@lru_cache(maxsize=64)
def _numbered(folder: Path, changed: int) -> dict[str, dict[int, str]]:
    """Once per state of the folder: asking for each of its photos in turn must not list it each time."""
    found: dict[str, dict[int, str]] = {}
    for name in (path.name for path in files_in(folder, ".png")):
        match = NAME.fullmatch(name)
        if match is None:
            continue
        files, number = found.setdefault(match["stem"], {}), int(match["number"])
        if number in files:
            raise MaskError(f"masks {str(folder)!r}: {files[number]} and {name} have the same number; delete one")
        files[number] = name
    return {stem: dict(sorted(files.items())) for stem, files in found.items()}
