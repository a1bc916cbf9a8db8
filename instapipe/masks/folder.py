"""`<stem>.masks/`: what `instapipe segment` writes for one photo, made to be edited by hand.

`<stem>_<i>.png` holds the pixels of instance i, `instances.json` (COCO) its label and score. The PNGs decide: one that
was painted over counts as painted, one that was deleted is a dropped instance, one that was added has no class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from instapipe.errors import MaskError
from instapipe.imaging import file_name
from instapipe.masks import coco
from instapipe.masks.names import JSON_NAME, SUFFIX, numbered, stem_of
from instapipe.masks.png import decode_all, encode_mask, read_all
from instapipe.masks.records import (
    Entry,
    Record,
    Size,
    build,
    digest_of,
    integer,
    parse_json,
    read_bytes,
    score,
    shorten,
)
from instapipe.structures import Instances

Fields = dict[str, Any]


class MasksFolder:
    """One photo's folder. With no PNG left in it, the photo is listed and has no instance."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stem = path.name.removesuffix(SUFFIX)

    def photos(self) -> Sequence[str]:
        name, _ = self._described()
        return [name or self._stem]

    def record(self, photo: Path) -> Record | None:
        if file_name(stem_of(photo), SUFFIX) != self.path.name:
            # A folder that was named on purpose must not be passed over in silence.
            raise MaskError(f"masks {str(self.path)!r} are not of photo {photo.name!r}, by their name")
        contents = read_all(self.path, self._files(photo))
        _, described = self._described()
        notes = {number: described.get(number, ("", 1.0)) for number in contents}
        parts: list[bytes | str] = []
        for number, (_, content) in contents.items():
            parts += [json.dumps([number, *notes[number]]), content]

        def decode(size: Size | None) -> Instances:
            if not contents:
                return build([], self._size() if size is None else size)
            found = decode_all(contents, size)
            labels = [notes[number][0] for number in found.numbers]
            return build(found.masks, found.size, labels, [notes[n][1] for n in found.numbers], found.numbers)

        return Record(digest_of("masks folder", parts), decode)

    def _files(self, photo: Path) -> dict[int, str]:
        """The PNGs by number, ascending; none is no instance. Raises MaskError where all are of another photo."""
        stem, found = stem_of(photo), numbered(self.path)
        files = dict(found.get(self._stem, {}))
        for named in found.values():
            # Of a long stem names are shortened, differently for numbers of one digit and of two.
            files |= {n: name for n, name in named.items() if name == file_name(stem, f"_{n}.png")}
        if found and not files:
            others = [name for named in found.values() for name in named.values()]
            shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            raise MaskError(
                f"masks {str(self.path)!r}: not of photo {photo.name!r}, by their name: {shown}; "
                f"call them {stem}_<i>.png, or delete them"
            )
        return dict(sorted(files.items()))

    def _described(self) -> tuple[str, dict[int, tuple[str, float]]]:
        """The photo's name, and by number the label and the score, as far as `instances.json` says."""
        where = f"masks {str(self.path / JSON_NAME)!r}"
        categories, annotations, images = self._document()
        names = {str(category.get("id")): str(category.get("name", "")) for category in categories}
        described = {}
        for position, annotation in enumerate(annotations):
            number = integer(annotation.get("number", position), f"{where}: number", most=10**9)
            value = annotation.get("score")
            described[number] = (
                names.get(str(annotation.get("category_id")), ""),
                1.0 if value is None else score(value, f"{where}: score of number {number}"),
            )
        return (str(images[0].get("file_name", "")) if images else ""), described

    def _size(self) -> Size:
        """(H, W) of a photo without masks, from the JSON."""
        _, _, images = self._document()
        sides = (images[0].get("height"), images[0].get("width")) if images else (None, None)
        if None in sides:
            raise MaskError(f"masks {str(self.path)!r}: nothing says how large the photo is; give the photos too")
        height, width = (integer(side, f"masks {str(self.path / JSON_NAME)!r}: size", least=1) for side in sides)
        return height, width

    def _document(self) -> tuple[list[Fields], list[Fields], list[Fields]]:
        """Categories, annotations and images of `instances.json`; all empty where there is none."""
        path = self.path / JSON_NAME
        if not path.exists():
            return [], [], []
        where = f"masks {str(path)!r}"
        document = parse_json(read_bytes(path), where)
        categories, annotations, images = (
            _list(document, name, where) for name in ("categories", "annotations", "images")
        )
        return categories, annotations, images


def _list(document: Fields, name: str, where: str) -> list[Fields]:
    values = document.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise MaskError(f"{where}: expected {name!r} to be a list of objects, got {shorten(values)}")
    return values


def folder_files(entry: Entry) -> Iterator[tuple[str, bytes]]:
    """The files of one photo's folder, by name."""
    for number, mask in zip(entry.instances.numbers, entry.instances.masks, strict=True):
        yield file_name(entry.stem, f"_{number}.png"), encode_mask(mask.dense())
    yield JSON_NAME, json.dumps(coco.document([entry])).encode()


def write(entries: Iterable[Entry]) -> Iterator[tuple[str, bytes]]:
    """A folder `<stem>.masks/` for each photo."""
    for entry in entries:
        for name, content in folder_files(entry):
            yield f"{file_name(entry.stem, SUFFIX)}/{name}", content


class MasksFolders:
    """A folder of `<stem>.masks/` folders: the output of `instapipe segment` on many photos."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def photos(self) -> Sequence[str]:
        folders = sorted(path for path in self.path.iterdir() if path.name.endswith(SUFFIX) and path.is_dir())
        return [name for folder in folders for name in MasksFolder(folder).photos()]

    def record(self, photo: Path) -> Record | None:
        folder = self.path / file_name(stem_of(photo), SUFFIX)
        return MasksFolder(folder).record(photo) if folder.is_dir() else None
