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
from instapipe.masks.names import SUFFIX, own_folder
from instapipe.pipeline.ledger import NAME as LEDGER
from instapipe.pipeline.outputs import paths_beside


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

    Masks and our own outputs are left out, but for a single file or folder that was named: several may be a shell's
    `photos/*`. skip: a folder of outputs that may lie inside an input folder. Raises PhotoError for a photo that is
    not there, InputError where there is none.
    """
    photos: dict[Path, None] = {}
    folders: list[Path] = []
    patterns = left_out = False
    several = len(arguments) > 1
    for argument in arguments:
        # A file may be called `~x`; paths that differ by `..` alone must have their folder in common.
        given = argument if os.path.lexists(argument) else os.path.expanduser(argument)
        path = Path(os.path.abspath(given))
        if path.is_dir():
            if several and _is_masks_folder(path):
                left_out = True
                continue
            folders.append(path)
            photos.update(dict.fromkeys(_walk(path, skip)))
        elif glob.has_magic(argument) and not os.path.lexists(path):
            patterns = True
            found = sorted(Path(os.path.abspath(match)) for match in glob.glob(given, recursive=True))
            kept = [match for match in found if not (match.is_dir() or _is_ours(match))]
            left_out = left_out or len(kept) < len(found)
            photos.update(dict.fromkeys(kept))
        elif not several and not os.path.lexists(path):
            raise PhotoError(f"no photo {argument!r}")
        elif several and _is_ours(path):
            left_out = True
        else:
            photos[path] = None
    if not photos:
        shown = ", ".join(map(repr, arguments[:3])) + (", ..." if len(arguments) > 3 else "")
        raise InputError(f"no photos in {shown}{'; outputs, masks and folders in a glob are none' if left_out else ''}")
    single = not several and not folders and not patterns
    base = folders[0] if folders and not several else Path(os.path.commonpath([photo.parent for photo in photos]))
    return Inputs(tuple(photos), base, single)


def single_job(photo: Path, output: str | None, target: str) -> Job:
    """`output`: a file by its ending, else a folder; none: the current folder.

    Raises UsageError, also where the photo or its masks would be overwritten.
    """
    default = imaging.file_name(photo.stem, f"_{slug(target)}.png")
    if output is None:
        picture = Path.cwd() / default
    else:
        given = Path(os.path.expanduser(output))
        if given.is_dir() or output.endswith(("/", os.sep)) or not given.suffix:
            picture = given.absolute() / default
        elif given.suffix.lower() in imaging.picture_suffixes():
            picture = given.absolute()
        else:
            known = ", ".join(imaging.picture_suffixes())
            raise UsageError(f"cannot write pictures as {given.suffix!r}; one of {known}, or a folder")
    if _same(picture, photo):
        raise UsageError(f"--output {output!r} is the input; photos are never overwritten")
    own = own_folder(photo)
    if paths_beside(picture).masks.name == own.name and photo.exists() and _same(picture.parent, photo.parent):
        raise UsageError(
            f"--output {output!r}: its masks would be the input's own, {own.name!r}, which are never overwritten; "
            "give another name or folder"
        )
    return Job(photo, photo.name, picture)


def folder_jobs(inputs: Inputs, output: Path, target: str, taken: Mapping[str, str]) -> list[Job]:
    """A job per photo: subfolders kept, no two with the same picture or masks, none that are an input's.

    taken: photo's name -> picture's path below `output`, from earlier runs: those stay as they are.
    """
    used = {_place(output / picture) for picture in taken.values()} | {_place(photo) for photo in inputs.photos}
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
        picture = next(path for path in (output / each for each in candidates) if _place(path) not in used)
        used.add(_place(picture))
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
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not _is_masks_folder(here / name)
            and not (skip is not None and _same(here / name, skip))
        )
        for name in sorted(files):
            path = here / name
            if not name.startswith(".") and path.suffix.lower() in imaging.PHOTO_SUFFIXES and not _is_output(path):
                yield path


def _is_masks_folder(path: Path) -> bool:
    photos = path.name.removesuffix("_seg")
    return path.name.endswith(SUFFIX) or (photos not in ("", path.name) and path.with_name(photos).is_dir())


def _is_ours(path: Path) -> bool:
    """Whether `path` is an output or lies among masks."""
    beside = path.name == LEDGER or path.name.endswith(".report.json")
    mask = path.suffix.lower() in (".png", ".json") and _is_masks_folder(path.parent)
    return beside or mask or _is_output(path)


def _is_output(path: Path) -> bool:
    """Whether `path` was written by a translation or segmentation: its report or masks lie beside it."""
    for ending in (".filmstrip.png", ".overlay.png"):
        if path.name.endswith(ending):
            stem = path.name.removesuffix(ending)
            # What lies beside a shortened name is shortened otherwise; nobody else gives such names.
            shortened = len(os.fsencode(path.name)) > 250 and re.search(r"-[0-9a-f]{8}$", stem) is not None
            return shortened or any((path.parent / (stem + other)).exists() for other in (".report.json", SUFFIX))
    return (path.parent / imaging.file_name(path.stem, ".report.json")).exists()


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return os.path.abspath(a) == os.path.abspath(b)


def _place(photo: Path) -> str:
    """The masks folder of a photo or picture: equal for two that would share one, on any file system."""
    return unicodedata.normalize("NFC", str(own_folder(photo))).casefold()
