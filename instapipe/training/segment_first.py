"""Photos without masks: segmented through the same cached stage as in translation, then judged before they teach."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from instapipe import imaging
from instapipe.data.gate import Gate, Judged, judge
from instapipe.data.photos import AnnotatedPhoto, Instance
from instapipe.data.sheet import MOST, tile
from instapipe.errors import DataError, MaskError, PhotoError, UnknownClass
from instapipe.pipeline import stages
from instapipe.pipeline.formats import read_instances
from instapipe.pipeline.models import Models
from instapipe.pipeline.resolve import Found, find_segmenter
from instapipe.pipeline.store import Entry, Store
from instapipe.structures import Instances, Pixels


@dataclass(frozen=True, slots=True)
class Refused:
    """An instance (or a whole photo: number None) that is not learnt from. box: XYXY, pixels."""

    photo: Path
    reason: str
    number: int | None = None
    score: float | None = None
    box: tuple[int, int, int, int] | None = None


@dataclass(slots=True)
class Segmented:
    """What became of a folder of photos. sheet: tiles of what was refused, at most sheet.MOST."""

    segmenter: str
    photos: list[AnnotatedPhoto] = field(default_factory=list)
    accepted: int = 0
    refused: list[Refused] = field(default_factory=list)
    sheet: list[Pixels] = field(default_factory=list)


def segment_first(
    files: Sequence[Path], label: str, gate: Gate, *, segmenter: str | None, store: Store, device: str
) -> Iterator[Segmented]:
    """Segment and judge `files` one by one, yielding after each what there is so far (the same object).

    What was segmented before comes from the store. Raises UnknownClass where the segmenter does not know `label`,
    DataError at the end where nothing was good enough.
    """
    found = find_segmenter(segmenter, label, store)
    if label not in found.classes:
        raise UnknownClass(f"segmenter {found.name!r} has no class {label!r}; it knows {', '.join(found.classes)}")
    out = Segmented(found.name)
    with Models(device) as models:
        for path in files:
            try:
                _one(path, label, gate, found, store, models, out)
            except PhotoError as error:
                out.refused.append(Refused(path, str(error)))
            yield out
    if not out.photos:
        raise DataError(
            f"no instance of {label!r} in {len(files)} photos is good enough to learn from "
            f"({len(out.refused)} refused, such as: {out.refused[0].reason if out.refused else 'none found'}); "
            "loosen data.gate, or give masks"
        )


def _one(path: Path, label: str, gate: Gate, found: Found, store: Store, models: Models, out: Segmented) -> None:
    data = imaging.read_bytes(path)
    photo = stages.PhotoInput(data, str(path), hashlib.sha256(data).hexdigest(), path, max_pixels=imaging.MAX_PIXELS)
    entry = stages.from_segmenter(store, photo, found.fingerprint, lambda decoded: models.segment(found, decoded))
    instances = read_instances(entry.files)
    judged = judge(instances, label, gate)
    refused = [each for each in judged if each.reason is not None]
    kept = len(judged) - len(refused)
    if kept:
        out.photos.append(AnnotatedPhoto(path, str(path), partial(_decode, entry, judged)))
        out.accepted += kept
    for each in refused:
        number, score = instances.numbers[each.index], instances.scores[each.index]
        out.refused.append(Refused(path, each.reason or "", number, score, instances.masks[each.index].box))
    if not judged:
        out.refused.append(Refused(path, f"no {label} found"))
    if kept < max(1, len(judged)) and len(out.sheet) < MOST:
        shown = instances.select(each.index for each in refused)
        reason = refused[0].reason if refused else f"no {label} found"
        out.sheet.append(tile(photo.photo.pixels, shown, reason or ""))


def _decode(entry: Entry, judged: Sequence[Judged], size: tuple[int, int]) -> tuple[Instance, ...]:
    instances: Instances = read_instances(entry.files)
    if instances.size != size:
        raise MaskError(f"segmented at {instances.size}, the photo is {size}: it changed meanwhile; start again")
    return tuple(
        Instance.of(instances.masks[each.index], "centre" if each.reason is None else "refused")
        for each in judged
        if each.reason is None or each.counts
    )
