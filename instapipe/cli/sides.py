"""The two sides of a training set, read with progress: shared by `train` and `data`."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instapipe.cli.requests import open_store
from instapipe.imaging import encode_image, write_atomically

if TYPE_CHECKING:
    from instapipe.data.gate import Gate
    from instapipe.data.photos import AnnotatedPhoto
    from instapipe.training.segment_first import Segmented


@dataclass(frozen=True, slots=True)
class Side:
    """Photos of one class, from wherever they came. segmented: where they had no masks."""

    label: str
    photos: list[AnnotatedPhoto]
    segmented: Segmented | None = None


@dataclass(frozen=True, slots=True)
class Segmenting:
    """How photos without masks get them."""

    segmenter: str | None
    cache: Path | None
    device: str


def read_side(source: Path, label: str, masks: Path | None, gate: Gate, how: Segmenting, console: Any) -> Side:
    """The photos at `source` that show `label`, segmented first where they have no masks. Raises InstapipeError."""
    from instapipe.data.photos import form_of, photo_files, read_photos

    form = form_of(source, masks)
    if form != "photos":
        photos = read_photos(source, label, masks=masks)
        if form == "masks" and len(photos) < (there := len(photo_files(source))):
            console.print(f"{label}: {there - len(photos)} of {there} photos have no mask of it and are left out")
        return Side(label, photos)
    from rich.progress import track

    from instapipe.training.segment_first import segment_first

    files = photo_files(source)
    store = open_store(how.cache)
    steps = segment_first(files, label, gate, segmenter=how.segmenter, store=store, device=how.device)
    title = f"segmenting {label}"
    done: Segmented
    shown = track(steps, title, total=len(files), console=console, transient=True, disable=not console.is_terminal)
    *_, done = shown  # one object, filled as it goes
    console.print(
        f"{label}: {len(files)} photos without masks, segmented by {done.segmenter}: {done.accepted} instances in "
        f"{len(done.photos)} photos are good enough, {len(done.refused)} refused",
        soft_wrap=True,
    )
    return Side(label, done.photos, done)


def write_refused(folder: Path, sides: tuple[Side, ...]) -> Path | None:
    """`refused.csv`, and per side `refused-<class>.png`, into `folder`; None where no photo had to be segmented."""
    from instapipe.data.sheet import contact_sheet

    if all(side.segmented is None for side in sides):
        return None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "photo", "number", "score", "box", "reason"])
    for side in sides:
        if side.segmented is None:
            continue
        for each in side.segmented.refused:
            score = "" if each.score is None else f"{each.score:.3f}"
            box = " ".join(map(str, each.box or ()))
            writer.writerow(
                [side.label, each.photo, "" if each.number is None else each.number, score, box, each.reason]
            )
        if side.segmented.sheet:
            picture = encode_image(contact_sheet(side.segmented.sheet), ".png")
            write_atomically(folder / f"refused-{side.label}.png", picture)
    path = folder / "refused.csv"
    write_atomically(path, text.getvalue().encode())
    return path
