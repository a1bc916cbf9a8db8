"""`instapipe segment`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from instapipe import imaging, masks
from instapipe.cli import requests as ask
from instapipe.errors import InstapipeError, MaskError, OutputError, UnknownClass, UsageError
from instapipe.masks.names import JSON_NAME, NAME, files_in, own_folder, stem_of
from instapipe.masks.records import parse_json, read_bytes
from instapipe.pipeline import stages
from instapipe.pipeline.batch import exit_code
from instapipe.pipeline.formats import read_instances
from instapipe.pipeline.jobs import Inputs, find_inputs
from instapipe.pipeline.keys import json_line
from instapipe.pipeline.models import Models
from instapipe.pipeline.outputs import drop_older_masks
from instapipe.pipeline.resolve import Found, find_segmenter
from instapipe.pipeline.store import Store
from instapipe.structures import Instances


def command(
    photos: Annotated[list[str], typer.Argument(help="Photos, folders or globs.", metavar="PHOTO|FOLDER|GLOB")],
    classes: Annotated[str | None, typer.Option("--classes", help="Only these. None: all.", metavar="C[,C]")] = None,
    segmenter: ask.SegmenterName = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.", metavar="DIR")] = Path(),
    score: Annotated[float, typer.Option("--score", min=0, max=1, help="Lowest score.", metavar="T")] = 0.5,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or auto.", metavar="D")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that were edited.")] = False,
    cache: ask.Cache = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a photo on stdout, nothing else there.")
    ] = False,
) -> None:
    """Find the instances in photos.

    For each photo NAME.masks/ holds one PNG an instance (NAME_<number>.png) and instances.json (COCO, RLE, scores);
    NAME.overlay.png shows them with their numbers. Edit the PNGs in any editor, then give the folder to
    `instapipe translate --masks`: only the steps that changed run again.

    Exit codes: 0 found in all; 3 some photos without instance; 4 some failed; 1 nothing done; 2 wrong request.
    """
    wanted = [name.strip() for name in classes.split(",") if name.strip()] if classes is not None else []
    if classes is not None and not wanted:
        raise UsageError(f"--classes {classes!r} names no class")
    store = ask.open_store(cache)
    output = Path(os.path.expanduser(output))
    inputs = find_inputs(photos, skip=output)
    folders = _folders(inputs, output)
    found = find_segmenter(segmenter, wanted[0] if wanted else None, store)
    unknown = [name for name in wanted if name not in found.classes]
    if unknown:
        raise UnknownClass(f"segmenter {found.name!r} has no class {unknown[0]!r}; it knows {', '.join(found.classes)}")
    statuses: list[str] = []
    with Models(device) as models:
        for path, folder in folders.items():
            name = path.relative_to(inputs.base).as_posix()
            facts: dict[str, object]
            try:
                instances = _find(path, found, store, models, wanted, score)
                _write(path, instances, folder, overwrite)
                status = "found" if len(instances) else "no instances"
                facts = {"masks": str(folder), "instances": [_fact(instances, i) for i in range(len(instances))]}
            except UsageError:
                raise
            except InstapipeError as error:
                if inputs.single:
                    raise
                status, facts = "failed", {"error": str(error)}
            statuses.append(status)
            if as_json:
                typer.echo(json_line({"photo": str(path), "status": status, **facts}))
            elif status == "failed":
                typer.echo(f"error: {name}: {facts['error']}", err=True)
            else:
                typer.echo(f"{name}: {len(instances)} found -> {facts['masks']}")
                for number, label, value in zip(instances.numbers, instances.labels, instances.scores, strict=True):
                    typer.echo(f"  {number} {label} {value:.2f}")
    raise typer.Exit(exit_code(statuses))


def _folders(inputs: Inputs, output: Path) -> dict[Path, Path]:
    """The masks folder of each photo. Raises UsageError where two photos would share one."""
    folders = {photo: own_folder(output / photo.relative_to(inputs.base)) for photo in inputs.photos}
    owners: dict[Path, Path] = {}
    for photo, folder in folders.items():
        other = owners.setdefault(folder, photo)
        if other != photo:
            raise UsageError(f"{str(other)!r} and {str(photo)!r} would share the masks {str(folder)!r}; rename one")
    return folders


def _find(path: Path, found: Found, store: Store, models: Models, wanted: list[str], score: float) -> Instances:
    """The instances of the wanted classes, with their numbers in the unfiltered order. Raises InputError."""
    data = imaging.read_bytes(path)
    photo = stages.PhotoInput(data, str(path), hashlib.sha256(data).hexdigest(), path, max_pixels=imaging.MAX_PIXELS)
    entry = stages.from_segmenter(store, photo, found.fingerprint, lambda decoded: models.segment(found, decoded))
    instances = read_instances(entry.files)
    return instances.select(
        i
        for i in range(len(instances))
        if instances.scores[i] >= score and (not wanted or instances.labels[i] in wanted)
    )


def _write(path: Path, instances: Instances, folder: Path, overwrite: bool) -> None:
    """Masks folder and overlay. Raises OutputError, also where edited masks would be lost."""
    files = dict(masks.folder_files(masks.Entry(path.name, instances)))
    if not overwrite and folder.is_dir() and _holds_others(folder, files):
        raise OutputError(
            f"{str(folder)!r} holds other masks, maybe edited, maybe of another photo: --overwrite, or another --output"
        )
    drop_older_masks(folder, keep=set(files))
    for name, data in files.items():
        imaging.write_atomically(folder / name, data)
    shown = imaging.overlay(imaging.read_photo(path).pixels, instances)
    overlay = folder.parent / imaging.file_name(stem_of(path), ".overlay.png")
    imaging.write_atomically(overlay, imaging.encode_image(shown, ".png"))


def _holds_others(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether `folder` holds masks, labels or deletions that writing `files` would undo."""
    described = (folder / JSON_NAME).exists()
    present = {path.name for path in files_in(folder, ".png") if NAME.fullmatch(path.name)}
    if not present and not described:
        return False
    if present != set(files) - {JSON_NAME} or any(read_bytes(folder / name) != files[name] for name in present):
        return True
    try:
        return described and parse_json(read_bytes(folder / JSON_NAME), "") != json.loads(files[JSON_NAME])
    except MaskError:
        return True


def _fact(instances: Instances, index: int) -> dict[str, object]:
    return {
        "number": instances.numbers[index],
        "label": instances.labels[index],
        "score": round(instances.scores[index], 4),
        "box": list(instances.masks[index].box),
        "area": instances.masks[index].area,
    }
