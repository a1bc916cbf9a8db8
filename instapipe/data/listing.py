"""Everything that lies at a path, good or bad: what the check looks at (training reads only what is whole)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from instapipe import masks as mask_formats
from instapipe.data.coco import find_image
from instapipe.data.findings import Finding
from instapipe.data.photos import Form, coco_file, photo_files
from instapipe.errors import DataError, MaskError
from instapipe.imaging import PHOTO_SUFFIXES
from instapipe.masks import Record, open_source
from instapipe.masks.names import SUFFIX, stem_of


@dataclass(frozen=True, slots=True)
class Listed:
    """A photo that is there. record: its masks; None where it has none.  fault: why they could not be read."""

    path: Path
    name: str
    record: Record | None
    fault: str | None = None


def listing(source: Path, form: Form, masks: Path | None) -> Iterator[Listed | Finding]:
    """Every photo at `source`, and a finding for whatever has lost its other half."""
    if form == "coco":
        yield from _coco(coco_file(source))
    else:
        yield from _folder(source, form, masks)


def _coco(path: Path) -> Iterator[Listed | Finding]:
    try:
        opened = open_source(path)
        names = opened.photos()
    except MaskError as error:
        yield Finding("unreadable masks", path.name, str(error))
        return
    known: set[Path] = set()
    for name in names:
        file = find_image(path, name)
        if file is None:
            yield Finding("masks without photo", name, "listed in the JSON, but not in images/ nor beside it")
            continue
        known.add(file)
        yield _listed(file, name, path, fault_of=True)
    for folder in (path.parent / "images", path.parent):
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            if file.suffix.lower() in PHOTO_SUFFIXES and file not in known:
                yield Finding("photo not listed", file.name)


def _folder(source: Path, form: Form, masks: Path | None) -> Iterator[Listed | Finding]:
    try:
        files = photo_files(source)
    except DataError as error:
        yield Finding("no photo", source.name, str(error))
        return
    for file in files:
        if form == "photos":
            yield Listed(file, file.name, None)
            continue
        place = masks or mask_formats.find(file)
        listed = Listed(file, file.name, None) if place is None else _listed(file, file.name, place)
        if listed.record is None and listed.fault is None:
            yield Finding("photo without masks", file.name)
        yield listed
    stems = {stem_of(file) for file in files}
    folder = source.absolute().with_name(f"{source.absolute().name}_seg")
    try:
        names = list(open_source(masks or folder).photos()) if masks or folder.is_dir() else []
    except MaskError as error:
        yield Finding("unreadable masks", (masks or folder).name, str(error))
        names = []
    names += [path.name.removesuffix(SUFFIX) for path in sorted(source.glob(f"*{SUFFIX}")) if path.is_dir()]
    for name in names:
        if stem_of(Path(name).name) not in stems:
            yield Finding("masks without photo", name, "no photo of this name")


def _listed(file: Path, name: str, masks: Path, *, fault_of: bool = False) -> Listed:
    try:
        # A COCO file knows its photos by the name that it lists, wherever they lie.
        return Listed(file, name, mask_formats.record(masks, Path(name) if fault_of else file))
    except MaskError as error:
        return Listed(file, name, None, str(error))
