"""YOLO-seg: one text file for each photo, one line for each instance: class number, then x y x y ... from 0 to 1.

The class numbers get their names from `classes.txt` (a name a line) or `data.yaml` (`names`), in the folder of the
labels or up to two above. The format knows one polygon for each instance: several parts are joined by bridges. A line
may end with a score. An empty file is a photo without instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from instapipe.config import parse_yaml
from instapipe.errors import MaskError
from instapipe.masks import polygons
from instapipe.masks.names import files_in, stem_of
from instapipe.masks.records import Entry, Record, Size, build, canonical, check_count, digest_of, read_bytes, shorten
from instapipe.masks.records import score as as_score
from instapipe.structures import Instances

CLASSES = "classes.txt"
YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
MAX_NAMES_BYTES = 2**20


class YoloFolder:
    """A folder of `<stem>.txt`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def photos(self) -> Sequence[str]:
        return [path.stem for path in files_in(self.path, ".txt")]

    def record(self, photo: Path) -> Record | None:
        path = self.path / f"{stem_of(photo)}.txt"
        return read(path) if path.name != CLASSES and path.is_file() else None


def read(path: Path) -> Record:
    """The record of one label file. Raises MaskError."""
    where = f"masks {str(path)!r}"
    try:
        lines = [line.split() for line in read_bytes(path).decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise MaskError(f"{where}: not a text file") from error
    check_count(where, len(lines))
    names = _names(path.parent) if lines else {}
    labels = [_label(words[0], names, f"{where}, line {number}") for number, words in enumerate(lines, start=1)]
    digest = digest_of("yolo", [canonical([labels, [words[1:] for words in lines]], where)])
    return Record(digest, lambda size: _decode(lines, labels, where, size))


def _decode(lines: Sequence[Sequence[str]], labels: Sequence[str], where: str, size: Size | None) -> Instances:
    if size is None:
        raise MaskError(f"{where}: YOLO labels do not say how large the photo is; give the photos too")
    masks, scores = [], []
    for number, (_, *words) in enumerate(lines, start=1):
        here = f"{where}, line {number}"
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise MaskError(f"{here}: expected numbers, got {shorten(' '.join(words))}") from error
        if len(values) in (4, 5):
            raise MaskError(f"{here}: a box, not a polygon; these are labels for detection, not for segmentation")
        scores.append(as_score(values.pop(), f"{here}: score") if len(values) % 2 else 1.0)
        with np.errstate(over="ignore"):  # an absurd number becomes infinite, and is refused as outside
            points = polygons.points_of(values, here) * (size[1], size[0])
        masks.append(polygons.fill([points], size, here))
    return build(masks, size, labels, scores)


def _label(word: str, names: dict[int, str], where: str) -> str:
    if not word.isdecimal() or len(word) > 6:
        raise MaskError(f"{where}: expected a class number, got {shorten(word)}")
    if int(word) not in names:
        raise MaskError(
            f"{where}: class {word} has no name; put {CLASSES} (a name a line) or data.yaml beside the labels"
        )
    return names[int(word)]


def _names(folder: Path) -> dict[int, str]:
    """Class names by number, from the nearest file that has them; empty where there is none."""
    absolute = folder.absolute()
    for place in [absolute, *list(absolute.parents)[:2]]:
        path = place / CLASSES
        if path.is_file():
            text = read_bytes(path, MAX_NAMES_BYTES).decode("utf-8-sig", errors="replace")
            return dict(enumerate(line.strip() for line in text.splitlines()))
        for name in YAML_NAMES:
            if (place / name).is_file():
                return _yaml_names(place / name)
    return {}


def _yaml_names(path: Path) -> dict[int, str]:
    where = f"class names {str(path)!r}"
    try:
        content = parse_yaml(read_bytes(path, MAX_NAMES_BYTES))
    except ValueError as error:
        raise MaskError(f"{where}: not YAML: {' '.join(str(error).split())[:200]}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise MaskError(f"{where}: expected `names`, a list or a mapping from numbers, got {shorten(names)}")
    return {key: str(name) for key, name in names.items()}


def write(entries: Iterable[Entry]) -> Iterator[tuple[str, bytes]]:
    """`<stem>.txt` for each photo, and `classes.txt`. An empty mask has no outline and is left out."""
    numbers: dict[str, int] = {}
    for entry in entries:
        height, width = entry.instances.size
        lines = []
        for mask, label in zip(entry.instances.masks, entry.instances.labels, strict=True):
            parts = polygons.trace(mask)
            if parts:
                number = numbers.setdefault(label, len(numbers))
                values = (polygons.joined(parts) / np.asarray((width, height))).ravel()
                lines.append(f"{number} " + " ".join(f"{value:.6f}" for value in values))
        yield f"{entry.stem}.txt", "".join(f"{line}\n" for line in lines).encode()
    yield CLASSES, "".join(f"{name}\n" for name in numbers).encode()
