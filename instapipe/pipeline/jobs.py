"""From what was typed (photos, folders, globs) to photos and the pictures that they become."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instapipe import imaging
from instapipe.errors import InputError, PhotoError, UsageError


@dataclass(frozen=True, slots=True)
class Job:
    """One photo. name: its path below the common folder, with slashes.  picture: where it goes."""

    photo: Path
    name: str
    picture: Path


@dataclass(frozen=True, slots=True)
class Inputs:
    """photos: absolute, in order.  base: the folder that they have in common.  single: one photo, named as such."""

    photos: tuple[Path, ...]
    base: Path
    single: bool


def find_inputs(arguments: Sequence[str], *, skip: Path | None = None) -> Inputs:
    """The photos that `arguments` (files, folders, globs) mean.

    skip: a folder of outputs that may lie inside an input folder. Raises PhotoError for a photo that is not there,
    InputError where folders or globs hold none.
    """
    photos: dict[Path, None] = {}
    folders: list[Path] = []
    patterns = False
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_dir():
            folders.append(path.absolute())
            photos.update(dict.fromkeys(_walk(path.absolute(), skip)))
        elif glob.has_magic(argument) and not os.path.lexists(path):
            patterns = True
            found = sorted(Path(match).absolute() for match in glob.glob(str(path), recursive=True))
            photos.update(dict.fromkeys(match for match in found if not _is_output(match)))
        elif len(arguments) == 1 and not os.path.lexists(path):
            raise PhotoError(f"no photo {argument!r}")
        else:
            photos[path.absolute()] = None
    if not photos:
        raise InputError(f"no photos in {', '.join(repr(argument) for argument in arguments)}")
    single = len(arguments) == 1 and not folders and not patterns
    if len(folders) == 1 and len(arguments) == 1:
        base = folders[0]
    else:
        base = Path(os.path.commonpath([photo.parent for photo in photos]))
    return Inputs(tuple(photos), base, single)


def single_job(photo: Path, output: str | None, target: str) -> Job:
    """`output`: a file by its ending, else a folder; none: the current folder. Raises UsageError."""
    default = imaging.file_name(photo.stem, f"_{slug(target)}.png")
    if output is None:
        picture = Path.cwd() / default
    else:
        given = Path(output).expanduser()
        if given.is_dir() or output.endswith(("/", os.sep)) or not given.suffix:
            picture = given.absolute() / default
        elif given.suffix.lower() in imaging.picture_suffixes():
            picture = given.absolute()
        else:
            known = ", ".join(imaging.picture_suffixes())
            raise UsageError(f"cannot write pictures as {given.suffix!r}; one of {known}, or a folder")
    if _same(picture, photo):
        raise UsageError(f"--output {output!r} is the input; photos are never overwritten")
    return Job(photo, photo.name, picture)


def folder_jobs(inputs: Inputs, output: Path, target: str, taken: Mapping[str, str]) -> list[Job]:
    """A job per photo: subfolders kept, no two with the same picture, none that is an input.

    taken: photo's name -> picture's path below `output`, from earlier runs: those stay as they are.
    """
    used = {_comparable(str(output / picture)) for picture in taken.values()}
    used |= {_comparable(str(photo)) for photo in inputs.photos}
    jobs = []
    for photo in inputs.photos:
        relative = Path(os.path.relpath(photo, inputs.base))
        name = relative.as_posix()
        if name in taken:
            jobs.append(Job(photo, name, output / taken[name]))
            continue
        ending = f"_{slug(target)}.png"
        # Of two photos with one stem the second keeps its own ending in its name, and so on.
        candidates = _names(relative, ending)
        picture = next(path for path in (output / each for each in candidates) if _comparable(str(path)) not in used)
        used.add(_comparable(str(picture)))
        jobs.append(Job(photo, name, picture))
    return jobs


def default_folder(inputs: Inputs, target: str) -> Path:
    """Where the pictures of a folder run go unless told: `<folder>_<target>` in the current folder."""
    return Path.cwd() / imaging.file_name(inputs.base.name or "photos", f"_{slug(target)}")


def slug(label: str) -> str:
    """A class name as part of a file name."""
    return re.sub(r"[^\w-]+", "-", label).strip("-") or "target"


def _names(relative: Path, ending: str) -> Iterator[Path]:
    yield relative.with_name(imaging.file_name(relative.stem, ending))
    yield relative.with_name(imaging.file_name(relative.name, ending))
    number = 2
    while True:
        yield relative.with_name(imaging.file_name(f"{relative.name}-{number}", ending))
        number += 1


def _walk(folder: Path, skip: Path | None) -> Iterator[Path]:
    """Photos below `folder` by their endings, sorted; hidden files, masks and our own outputs left out."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        names = set(folders)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not name.endswith(".masks")
            and not (name.endswith("_seg") and name.removesuffix("_seg") in names)
            and not (skip is not None and _same(here / name, skip))
        )
        for name in sorted(files):
            path = here / name
            if not name.startswith(".") and path.suffix.lower() in imaging.PHOTO_SUFFIXES and not _is_output(path):
                yield path


def _is_output(path: Path) -> bool:
    """Whether `path` was written by a translation or segmentation: its report or masks lie beside it."""
    for ending in (".filmstrip.png", ".overlay.png"):
        if path.name.endswith(ending):
            stem = path.name.removesuffix(ending)
            return any((path.parent / (stem + other)).exists() for other in (".report.json", ".masks"))
    return (path.parent / imaging.file_name(path.stem, ".report.json")).exists()


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return os.path.abspath(a) == os.path.abspath(b)


def _comparable(path: str) -> str:
    """Two paths that are one on some file system compare equal."""
    return unicodedata.normalize("NFC", path).casefold()
