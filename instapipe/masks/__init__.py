"""Masks that the user has, in any of the field's formats, as :class:`~instapipe.structures.Instances`.

A mask without a class has the label '': it counts as the source class that was asked for.
"""

from __future__ import annotations

from pathlib import Path

from instapipe.masks.detect import find, open_source
from instapipe.masks.folder import files as folder_files
from instapipe.masks.records import Entry, MaskSource, Record
from instapipe.structures import Instances

__all__ = ["Entry", "MaskSource", "Record", "digest", "find", "folder_files", "load", "open_source", "record"]


def record(source: Path, photo_path: Path) -> Record | None:
    """The masks of one photo, read but not decoded, with their digest; None where `source` does not list the photo.

    Raises MaskError for what cannot be read. The digest depends on content alone, never on a path.
    """
    return open_source(source).record(photo_path)


def load(source: Path, photo_path: Path, size: tuple[int, int]) -> Instances | None:
    """The instances of a photo of `size` (H, W); empty where it is listed without one, None where it is not listed.

    Raises MaskError, one line that names the file, the value and the way out.
    """
    found = record(source, photo_path)
    return None if found is None else found.decode(size)


def digest(source: Path, photo_path: Path) -> str | None:
    """sha256 (hex) of what :func:`load` depends on besides the size; None where the photo is not listed."""
    found = record(source, photo_path)
    return None if found is None else found.digest
