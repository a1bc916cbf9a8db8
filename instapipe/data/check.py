"""The mask doctor: what is wrong with a training set before hours are spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.data.coco import is_pack
from instapipe.data.findings import Finding, Kind
from instapipe.data.geometry import outline_on_border
from instapipe.data.listing import Listed, listing
from instapipe.data.photos import Form, coco_file, form_of, upright_size
from instapipe.data.sheet import MOST, tile
from instapipe.errors import MaskError, PhotoError
from instapipe.imaging import read_photo
from instapipe.structures import Instances, Mask, Pixels

FEW = 100
"""Instances of a side below which it is told."""
HASH_SIDE = 16
NEAR = 6
"""Bits of 256 in which the hashes of nearly the same photos differ at most."""


@dataclass(slots=True)
class Report:
    """What was found at one path.

    photos: that can be read.  classes: instances by class, '' for masks without one.  counts: per photo with at least
    one instance of `label`, how many.  sheet: tiles, photos with findings first.
    """

    source: Path
    label: str | None
    form: Form
    photos: int = 0
    instances: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    counts: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    sheet: list[Pixels] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing that must be mended."""
        return not any(finding.problem for finding in self.findings)


@dataclass(slots=True)
class _Seen:
    """Photos so far, to find those that come twice: names by digest, and hashes by photo."""

    digests: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    hashes: list[NDArray[np.bool_]] = field(default_factory=list)


def check(
    source: Path, label: str | None, *, masks: Path | None = None, min_side: int = 48, max_cut: float = 0.3
) -> Iterator[Report]:
    """Look at everything at `source`, yielding after each photo what is known so far (the same object).

    label: the class that is meant; None: all.  min_side, max_cut: as in the settings of training; a pack was made of
    photos, where such things are looked for.
    Raises DataError where there is nothing of a known form.
    """
    report = Report(source, label, form_of(source, masks))
    packed = report.form == "coco" and is_pack(coco_file(source))
    if packed:
        min_side, max_cut = 0, 1.0  # of the photos, not of their windows
    seen = _Seen()
    good: list[Pixels] = []
    for each in listing(source, report.form, masks):
        if isinstance(each, Finding):
            report.findings.append(each)
            continue
        before = len(report.findings)
        picture = _photo(each, report, seen, min_side, max_cut)
        if picture is not None:
            (report.sheet if len(report.findings) > before else good).append(picture)
            del report.sheet[MOST:], good[MOST:]
        yield report
    if not packed:
        _near(seen, report)
    _side(report)
    report.sheet = (report.sheet + good)[:MOST]
    yield report


def _photo(listed: Listed, report: Report, seen: _Seen, min_side: int, max_cut: float) -> Pixels | None:
    """Judge one photo; its tile for the contact sheet, where there is something to see on it."""
    name, add = listed.name, report.findings.append
    try:
        photo = read_photo(listed.path)
        size, orientation = upright_size(listed.path)
    except PhotoError as error:
        add(Finding("unreadable photo", name, str(error)))
        return None
    report.photos += 1
    twin = seen.digests.setdefault(photo.digest, name)
    if twin != name:
        add(Finding("same photo twice", name, f"has the bytes of {twin}"))
    before = len(report.findings)
    if listed.fault is not None:
        add(Finding("unreadable masks", name, listed.fault))
    instances = _decode(listed, size, add_to=report.findings)
    if instances is None:
        instances = Instances(size)
    elif orientation != 1 and len(instances):
        add(Finding("look at orientation", name, f"EXIF orientation {orientation}"))
    report.classes.update(instances.labels)
    chosen = instances.select(i for i, own in enumerate(instances.labels) if report.label in (None, own) or own == "")
    report.instances += len(chosen)
    if len(chosen):
        report.counts.append(len(chosen))
    if twin == name and (len(chosen) or report.form == "photos"):
        seen.names.append(name)
        seen.hashes.append(_hash(photo.pixels))
    for finding in _instances(chosen, name, min_side, max_cut):
        add(finding)
    told = report.findings[before:]
    if not len(chosen) and not told:
        return None
    worst = next((f for f in told if f.problem), told[0] if told else None)
    return tile(photo.pixels, chosen, worst.kind if worst else name)


def _decode(listed: Listed, size: tuple[int, int], add_to: list[Finding]) -> Instances | None:
    """The instances of a photo of `size`; None, and a finding, where they do not fit it."""
    if listed.record is None:
        return None
    try:
        return listed.record.decode(size)
    except MaskError as error:
        message = str(error)
    kind: Kind = "unreadable masks"
    try:
        own = listed.record.decode(None).size
        if own != size:
            kind = "turned" if own == (size[1], size[0]) else "misaligned"
            message = f"masks are {own[1]}x{own[0]}, the photo is {size[1]}x{size[0]}"
    except MaskError:
        pass  # unreadable at any size
    add_to.append(Finding(kind, listed.name, message))
    return None


def _instances(instances: Instances, name: str, min_side: int, max_cut: float) -> Iterator[Finding]:
    for mask, number in zip(instances.masks, instances.numbers, strict=True):
        x0, y0, x1, y1 = mask.box
        if mask.area == 0:
            yield Finding("empty mask", name, f"number {number}", number)
            continue
        around = _inverted(mask)
        if around is not None:
            yield Finding("inverted", name, f"number {number} covers {around}", number)
        elif max(x1 - x0, y1 - y0) < min_side:
            side = max(x1 - x0, y1 - y0)
            yield Finding("too small", name, f"number {number}: {side} px, less than {min_side}", number)
        elif (border := outline_on_border(mask)) > max_cut:
            yield Finding("cut off", name, f"number {number}: {border:.0%} of its outline on the border", number)
        elif (parts := _parts(mask)) > 1:
            yield Finding("scattered", name, f"number {number}: {parts} parts of similar size", number)
    for i, mask in enumerate(instances.masks):
        for j in range(i):
            if mask.area and (iou := mask.iou(instances.masks[j])) > 0.9:
                pair = f"{instances.numbers[j]} and {instances.numbers[i]}"
                yield Finding("same mask twice", name, f"numbers {pair}: IoU {iou:.2f}", instances.numbers[i])


def _inverted(mask: Mask) -> str | None:
    """What speaks for a mask of the background: it holds most of the border and of the photo, and all corners."""
    dense = mask.dense()
    corners = dense[[0, 0, -1, -1], [0, -1, 0, -1]]
    edge = np.concatenate([dense[0], dense[-1], dense[:, 0], dense[:, -1]])
    share = mask.area / dense.size
    if corners.sum() >= 3 and edge.mean() > 0.6 and share > 0.4:
        return f"{share:.0%} of the photo and {edge.mean():.0%} of its border"
    return None


def _parts(mask: Mask) -> int:
    """Connected parts of at least a quarter of the mask each."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.crop.astype(np.uint8), connectivity=8)
    return int((stats[1:, cv2.CC_STAT_AREA] >= 0.25 * mask.area).sum())


def _hash(pixels: Pixels) -> NDArray[np.bool_]:
    """Difference hash, bool (256,): which of two neighbours is brighter, on 17 x 16 grey pixels."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.asarray(small[:, 1:] > small[:, :-1]).ravel()


def _near(seen: _Seen, report: Report) -> None:
    if len(seen.hashes) < 2:
        return
    hashes = np.stack(seen.hashes).astype(np.float32)
    # Bits that differ: by two products, all pairs at once.
    different = hashes @ (1 - hashes).T
    different += different.T
    near = np.tril(different <= NEAR, -1)
    for i in np.flatnonzero(near.any(axis=1)):
        report.findings.append(Finding("nearly the same photo", seen.names[i], f"like {seen.names[near[i].argmax()]}"))


def _side(report: Report) -> None:
    what = repr(report.label) if report.label is not None else "anything"
    if report.form == "photos":
        return
    if not report.instances:
        known = ", ".join(sorted(filter(None, report.classes)))
        detail = f"no instance of {what}" + (f"; there are: {known}" if known else "")
        report.findings.append(Finding("empty side", report.source.name, detail))
    elif report.instances < FEW:
        report.findings.append(Finding("few instances", report.source.name, f"{report.instances} instances of {what}"))
