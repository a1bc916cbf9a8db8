"""Which format a mask file or folder is in, and where masks are looked for unasked."""

from __future__ import annotations

from pathlib import Path

from instapipe.errors import MaskError
from instapipe.masks.coco import CocoFile
from instapipe.masks.folder import SUFFIX, MasksFolder, MasksFolders
from instapipe.masks.png import PngFolder, numbered
from instapipe.masks.records import MaskSource


def find(photo: Path) -> Path | None:
    """The masks that lie beside `photo`: `<stem>.masks/`, else `<folder>_seg/` where it has some; else None."""
    own = photo.parent / f"{photo.stem}{SUFFIX}"
    if own.is_dir():
        return own
    folder = photo.absolute().parent
    beside = folder.with_name(f"{folder.name}_seg") if folder.name else folder
    return beside if beside.is_dir() and photo.stem in numbered(beside) else None


def open_source(path: Path) -> MaskSource:
    """`path` as a source of masks; raises MaskError where it is of no known format."""
    if path.is_dir():
        if path.name.endswith(SUFFIX):
            return MasksFolder(path)
        if any(child.name.endswith(SUFFIX) and child.is_dir() for child in path.iterdir()):
            return MasksFolders(path)
        return PngFolder(path)
    if not path.exists():
        raise MaskError(f"no masks at {str(path)!r}")
    if path.suffix.lower() == ".json":
        return CocoFile(path)
    raise MaskError(f"masks {str(path)!r}: not a format that is known")
