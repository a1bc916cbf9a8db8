"""What is written for one photo: picture, masks, filmstrip, report. Encoded once, then copied from the cache.

::

    <stem>.png                  the picture
    <stem>.masks/               the translated masks: <stem>_<number>.png, instances.json (COCO)
    <stem>.filmstrip.png        the photo and every step
    <stem>.report.json          `result`: what was made, of what, how; `run`: when, where, how fast
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instapipe import imaging, masks
from instapipe.errors import OutputError
from instapipe.masks import JSON_NAME
from instapipe.masks.names import numbered
from instapipe.pipeline.keys import json_bytes

if TYPE_CHECKING:
    from instapipe.pipeline.rollout import Rollout
    from instapipe.structures import Photo

_STEM = "photo"
"""What the cached files are named after: the cache knows no names."""
_FILMSTRIP = "filmstrip.png"
_PICTURE = "picture"
_STEPS = "steps.json"


@dataclass(frozen=True, slots=True)
class Written:
    """Where the files of one photo are."""

    picture: Path
    masks: Path
    filmstrip: Path
    report: Path


def encoded(photo: Photo, rollout: Rollout, suffix: str) -> dict[str, bytes]:
    """The files of one photo under neutral names. Raises UsageError, OutputError."""
    from instapipe.structures import Instances

    files = {
        _PICTURE + suffix: imaging.encode_image(rollout.pixels, suffix, alpha=photo.alpha),
        _FILMSTRIP: imaging.encode_image(imaging.filmstrip(rollout.frames), ".png"),
        _STEPS: json_bytes(
            [
                {"region": list(region), "chosen": None if chosen is None else asdict(chosen)}
                for region, chosen in zip(rollout.regions, rollout.chosen_tries, strict=True)
            ]
        ),
    }
    document: dict[str, Any] = {}
    for instances in rollout.translated() if rollout.regions else [Instances(photo.size)]:
        step = dict(masks.folder_files(masks.Entry(f"{_STEM}.png", instances)))
        described = json.loads(step.pop(JSON_NAME))
        document = document or {**described, "annotations": []}
        for annotation in described["annotations"]:
            document["annotations"].append({**annotation, "id": len(document["annotations"]) + 1})
        files.update(step)
    files[JSON_NAME] = json_bytes(document)
    return files


def steps(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Of each step the declared `region`, (x0, y0, x1, y1), and which of several tries was `chosen`
    (:class:`instapipe.pipeline.records.ChosenTry`), or null."""
    return list(json.loads(files[_STEPS]))


def picture_bytes(files: Mapping[str, bytes]) -> bytes:
    """The encoded picture."""
    return next(data for name, data in files.items() if name.startswith(f"{_PICTURE}."))


def paths_beside(picture: Path) -> Written:
    """Where the other files lie for a picture at `picture`."""
    folder, stem = picture.parent, picture.stem
    return Written(
        picture,
        folder / imaging.file_name(stem, ".masks"),
        folder / imaging.file_name(stem, ".filmstrip.png"),
        folder / imaging.file_name(stem, ".report.json"),
    )


def write(files: Mapping[str, bytes], picture: Path, report: Mapping[str, Any]) -> Written:
    """Write everything, each file whole or not at all, the picture last: where it is, all is.

    The report comes first: by it a later run knows the other files as outputs. Raises OutputError, also where masks
    lie in the way that may be a photo's own.
    """
    paths = paths_beside(picture)
    if not paths.report.exists() and _holds_a_photos_masks(paths.masks, report["result"]["settings"]["target"]):
        raise OutputError(
            f"{str(paths.masks)!r} holds masks that no translation wrote, maybe edited; give another --output, "
            "or delete them"
        )
    names = {}
    for name in files:
        match = re.fullmatch(rf"{_STEM}_(\d+)\.png", name)
        if match is not None:
            names[name] = imaging.file_name(picture.stem, f"_{match[1]}.png")
    imaging.write_atomically(paths.report, json_bytes(report))
    drop_older_masks(paths.masks, keep=set(names.values()))
    for name, shown in names.items():
        imaging.write_atomically(paths.masks / shown, files[name])
    document = json.loads(files[JSON_NAME])
    for image in document["images"]:
        image["file_name"] = picture.name
    imaging.write_atomically(paths.masks / JSON_NAME, json_bytes(document))
    imaging.write_atomically(paths.filmstrip, files[_FILMSTRIP])
    imaging.write_atomically(picture, picture_bytes(files))
    return paths


def _holds_a_photos_masks(folder: Path, target: str) -> bool:
    """Whether `folder`, which no report lies beside, holds masks that are not all of class `target`, as ours are."""
    labels: set[str] = set()
    try:
        if (folder / JSON_NAME).exists():
            labels = {category["name"] for category in json.loads((folder / JSON_NAME).read_bytes())["categories"]}
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return labels != {target} and bool(labels or (folder.is_dir() and numbered(folder)))


def drop_older_masks(folder: Path, keep: set[str]) -> None:
    """Masks of an earlier run with other instances would be read as this one's. Only in a folder that we wrote."""
    if not (folder / JSON_NAME).is_file():
        return
    try:
        for path in folder.iterdir():
            if path.name not in keep and re.search(r"_\d+\.png$", path.name):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
    except OSError as error:
        raise OutputError(f"cannot clear old masks in {str(folder)!r}: {error.strerror}") from error
