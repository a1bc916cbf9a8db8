"""From any mask format to any other. The result is whole or absent: it is written beside its place, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from instapipe.errors import MaskError, OutputError, UsageError
from instapipe.imaging import PHOTO_SUFFIXES, read_photo, write_atomically
from instapipe.masks import coco, folder, labelmap, labelme, png, yolo
from instapipe.masks.detect import open_source
from instapipe.masks.records import Entry, MaskSource
from instapipe.structures import Instances

Writer = Callable[[Iterable[Entry]], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True, slots=True)
class Target:
    """A format to write. labels: whether it states the class of every mask. single: whether it is one file."""

    write: Writer
    labels: bool = False
    single: bool = False


TARGETS: dict[str, Target] = {
    "png": Target(png.write),
    "folder": Target(folder.write),
    "labelmap": Target(labelmap.write),
    "coco": Target(coco.write, labels=True, single=True),
    "coco-counts": Target(partial(coco.write, form="counts"), labels=True, single=True),
    "coco-polygons": Target(partial(coco.write, form="polygons"), labels=True, single=True),
    "yolo": Target(yolo.write, labels=True),
    "labelme": Target(labelme.write, labels=True),
}


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written, and how much of it."""

    path: Path
    photos: int
    instances: int


def convert(
    source: Path,
    destination: Path,
    to: str,
    *,
    format: str | None = None,
    photos: Path | None = None,
    label: str | None = None,
) -> Converted:
    """Read the masks at `source` and write them in the format `to`, into a new folder or file `destination`.

    format: what `source` is in, where it does not show.  photos: the photos or a folder of them, for their sizes and
    names; those that `source` does not list are left out.  label: the class of masks that have none.
    Raises UsageError, MaskError, PhotoError or OutputError; then nothing was written.
    """
    if to not in TARGETS:
        raise UsageError(f"no mask format {to!r}; known: {', '.join(TARGETS)}")
    target = TARGETS[to]
    opened = open_source(source, format)
    entries = _Entries(opened, source, _photo_files(photos) if photos else None, label, needs_label=target.labels)
    if target.single and destination.suffix.lower() == ".json":
        _write_file(destination, target.write(entries))
    else:
        _write_folder(destination, target.write(entries))
    return Converted(destination, entries.photos, entries.instances)


class _Entries:
    """What is converted, one photo at a time; counts as it goes."""

    def __init__(
        self, source: MaskSource, path: Path, files: list[Path] | None, label: str | None, *, needs_label: bool
    ) -> None:
        self._source, self._path, self._files = source, path, files
        self._label, self._needs_label = label, needs_label
        self.photos = self.instances = 0

    def __iter__(self) -> Iterator[Entry]:
        seen: set[str] = set()
        for name, instances in self._found():
            if name in seen:
                raise OutputError(f"two photos are called {name!r}; rename one, or convert them apart")
            seen.add(name)
            instances = self._labelled(instances, name)
            self.photos += 1
            self.instances += len(instances)
            yield Entry(name, instances)
        if not self.photos:
            raise MaskError(f"masks {str(self._path)!r}: no photo is listed{' of those given' if self._files else ''}")

    def _found(self) -> Iterator[tuple[str, Instances]]:
        if self._files is None:
            for listed in self._source.photos():
                record = self._source.record(Path(listed))
                if record is not None:
                    yield PurePosixPath(listed.replace("\\", "/")).name, record.decode(None)
            return
        for file in self._files:
            record = self._source.record(file)
            if record is not None:
                yield file.name, record.decode(read_photo(file).size)

    def _labelled(self, instances: Instances, name: str) -> Instances:
        if "" not in instances.labels:
            return instances
        if self._label is None:
            if self._needs_label:
                raise UsageError(
                    f"masks {str(self._path)!r}, photo {name!r}: masks without a class; name it: --label CLASS"
                )
            return instances
        return replace(instances, labels=tuple(label or self._label for label in instances.labels))


def _photo_files(photos: Path) -> list[Path]:
    if not photos.exists():
        raise UsageError(f"no photos at {str(photos)!r}")
    if not photos.is_dir():
        return [photos]
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    if not files:
        raise UsageError(f"no photos in the folder {str(photos)!r}")
    return files


def _write_file(destination: Path, files: Iterator[tuple[str, bytes]]) -> None:
    if destination.exists():
        raise OutputError(f"{str(destination)!r} exists; name another file, or delete it")
    for _, content in files:
        write_atomically(destination, content)


def _write_folder(destination: Path, files: Iterator[tuple[str, bytes]]) -> None:
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise OutputError(f"{str(destination)!r} exists and is not an empty folder; name another, or delete it")
    around = None
    try:
        # In the nearest folder that exists: the same disk, and no empty folders are left behind by an error.
        existing = next(folder for folder in destination.absolute().parents if folder.is_dir())
        around = Path(tempfile.mkdtemp(prefix=".instapipe-", dir=existing))
        scratch = around / "masks"
        scratch.mkdir()
        for name, content in files:
            path = scratch / name
            if path.exists():
                raise OutputError(f"two photos would both be written as {name!r}; rename one, or convert them apart")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        if destination.exists():
            destination.rmdir()  # empty, as checked: renaming onto it is not possible everywhere
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch, destination)
    except OSError as error:
        raise OutputError(f"cannot write {str(destination)!r}: {error.strerror or error}") from error
    finally:
        if around is not None:
            shutil.rmtree(around, ignore_errors=True)
