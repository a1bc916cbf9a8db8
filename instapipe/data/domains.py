"""The two domains of a training run: samples for learning, others held out for the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from instapipe.config import Facing, Placement, Shown, Strict
from instapipe.data.balance import Matching, paste
from instapipe.data.geometry import resize_image, resize_masks
from instapipe.data.noise import NONE, MaskNoise, read_noise
from instapipe.data.photos import AnnotatedPhoto, Instance
from instapipe.data.samples import Batch, Crop, Order, Sample, sample_batch
from instapipe.errors import DataError
from instapipe.imaging.facing import faces_left
from instapipe.imaging.seen import seen
from instapipe.imaging.windows import Framing


class Cutting(Strict):
    """How samples are cut from the photos.

    `photo`: the whole photo, resized to `load_size` squared, a random crop of `size` (the paper).
    `window`: around an instance (imaging.windows.Framing), with a random crop.
    """

    mode: Literal["photo", "window"] = "photo"
    size: int = Field(200, ge=16, le=1024, multiple_of=4, description="side of a training sample, pixels")
    load_size: int = Field(220, ge=16, le=1280, description="side before the random crop, pixels")
    window_scale: float = Field(1.25, ge=1.0, le=4.0)
    window_height_scale: float = Field(
        0, ge=0, le=4.0, description="window height / height of the instance's box, at least (`window` only)"
    )
    least_aspect: float = Field(
        0,
        ge=0,
        le=4.0,
        description="width / height of the instance's box at least, as shown: narrower ones, seen from the front, are "
        "shown wider (`window` only)",
    )
    smallest_crop: float = Field(
        0.82, ge=0.5, le=1, description="share of its side that a window's random crop keeps at least (`window` only)"
    )
    placement: Placement = Field(
        "centre", description="`ground`: every animal's feet are in the same place of its window (`window` only)"
    )
    max_instances: int = Field(4, ge=1, le=64)
    order: Order = "largest"
    masks: Shown = Field(
        "instances", description="what the networks are shown of them; other than `instances`: whole photos only"
    )
    mask_noise: str = Field(
        NONE, description="errors added to what generators are given: of `instapipe data noise`, a name or a path"
    )
    min_side: int = Field(0, ge=0, description="instances whose box has no side this long are not learnt from, pixels")
    max_cut: float = Field(1.0, ge=0, le=1, description="share of the box's outline that may lie on the photo's border")
    narrowest: float = Field(
        0, ge=0, le=1, description="instances whose box has a smaller width / height are not learnt from"
    )
    max_company: float = Field(
        1.0, ge=0, le=1, description="share of the window that other instances of the class may cover (`window` only)"
    )
    facing: Facing = Field(
        "any", description="`right`: every window is mirrored so that its animal looks right, by its outline"
    )

    @property
    def framing(self) -> Framing:
        """How a window is put around an instance."""
        return Framing(self.window_scale, self.window_height_scale, self.least_aspect, self.placement)

    @model_validator(mode="after")
    def _crop_fits(self) -> Cutting:
        if self.load_size < self.size:
            raise ValueError(f"load_size {self.load_size} is smaller than size {self.size}")
        if self.masks != "instances" and self.mode != "photo":
            raise ValueError(f"masks: {self.masks} needs mode: photo, a window is cut around one instance")
        if self.placement != "centre" and self.mode != "window":
            raise ValueError(f"placement: {self.placement} needs mode: window, a photo is taken as it is")
        if self.facing != "any" and self.mode != "window":
            raise ValueError(f"facing: {self.facing} needs mode: window, the animals of a photo look both ways")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """Samples of one class.

    dropped: how many instances were left out, by reason.  matching: counts to reach by pasting; None: as photographed.
    noise: errors for the masks that generators are given; None: none.
    """

    label: str
    cutting: Cutting
    learning: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    dropped: dict[str, int]
    matching: Matching | None = None
    noise: MaskNoise | None = None

    def counts(self) -> list[int]:
        """How many instances each sample to learn from shows to the networks."""
        most = self.cutting.max_instances if self.cutting.masks == "instances" else 1
        return [min(len(sample.masks), most) for sample in self.learning]

    def batch(self, step: int, size: int, *, seed: int) -> Batch:
        """The batch of `step` (0-based): a function of step and seed alone, so that a resumed run goes on exactly.

        Samples come in a new random order each epoch.
        """
        chosen = [self.learning[self._index(step * size + k, seed)] for k in range(size)]
        if self.matching is not None:
            # A draw of its own: with and without pasting, a step has the same samples and crops.
            rng = torch.Generator().manual_seed(derive(seed, self.label, "paste", step))
            chosen = [self._pasted(sample, self.matching, rng) for sample in chosen]
        rng = torch.Generator().manual_seed(derive(seed, self.label, "crop", step))
        batch = sample_batch(
            chosen,
            self._crop,
            rng,
            size=self.cutting.size,
            max_instances=self.cutting.max_instances,
            order=self.cutting.order,
            shown=self.cutting.masks,
        )
        if self.noise is None:
            return batch
        return self.noise.worsen(batch, np.random.default_rng(derive(seed, self.label, "noise", step)))

    def held_out_batch(self, count: int) -> Batch:
        """The first `count` held-out samples, cropped in the middle."""
        rng = torch.Generator().manual_seed(0)
        full = self.cutting.load_size
        side = self.cutting.size if self.cutting.mode == "photo" else full
        order: Order = "largest" if self.cutting.order == "random" else self.cutting.order
        return sample_batch(
            self.held_out[:count],
            lambda _s, _r: Crop.centre(full, side),
            rng,
            size=self.cutting.size,
            max_instances=self.cutting.max_instances,
            order=order,
            shown=self.cutting.masks,
        )

    def _crop(self, sample: Sample, rng: torch.Generator) -> Crop:
        full = sample.image.shape[0]
        # A window loses little: the instance must fill it in training as it does in translation.
        window = self.cutting.mode == "window"
        sides = (round(self.cutting.smallest_crop * full), full) if window else (self.cutting.size, self.cutting.size)
        crop = Crop.sample(full, sides, rng)
        return crop if self.cutting.facing == "any" else replace(crop, flip=False)

    def _pasted(self, sample: Sample, matching: Matching, rng: torch.Generator) -> Sample:
        count = min(len(sample.masks), self.cutting.max_instances)
        wanted = min(matching.wanted(count, rng), self.cutting.max_instances)
        return paste(sample, self.learning, wanted, rng) if wanted > len(sample.masks) else sample

    def _index(self, position: int, seed: int) -> int:
        epoch, place = divmod(position, len(self.learning))
        rng = torch.Generator().manual_seed(derive(seed, self.label, "epoch", epoch))
        return int(torch.randperm(len(self.learning), generator=rng)[place])


def derive(seed: int, *names: str | int) -> int:
    """A seed for one purpose out of the run's."""
    text = ":".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def match_counts(source: Domain, target: Domain) -> tuple[Domain, Domain]:
    """Both domains, pasting instances from now on so that their samples show as many."""
    ours, theirs = source.counts(), target.counts()
    return (
        replace(source, matching=Matching.of(ours, theirs)),
        replace(target, matching=Matching.of(theirs, ours)),
    )


def cut_domain(photos: Sequence[AnnotatedPhoto], label: str, cutting: Cutting, *, held_out: int, seed: int) -> Domain:
    """Cut every sample of `photos` once.

    `held_out` photos, drawn by `seed`, give no sample for learning. Raises DataError, also where too little is left.
    """
    origins = list(dict.fromkeys(photo.origin for photo in photos))
    if len(origins) < 2:
        raise DataError(f"{len(origins)} photos of {label!r}: at least two are needed, one to hold out")
    held_out = min(held_out, len(origins) // 2)
    rng = torch.Generator().manual_seed(derive(seed, label, "held out"))
    apart = {origins[i] for i in torch.randperm(len(origins), generator=rng)[:held_out].tolist()}
    dropped: dict[str, int] = {}
    learning: list[Sample] = []
    kept: list[Sample] = []
    for photo in photos:
        (kept if photo.origin in apart else learning).extend(cut_samples(photo, cutting, dropped))
    if not learning or not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none was refused"
        use = "to learn from" if not learning else "to hold out"
        raise DataError(f"no usable instance of {label!r} {use} in {len(photos)} photos ({reasons})")
    noise = None if cutting.mask_noise == NONE else read_noise(cutting.mask_noise)
    return Domain(label, cutting, tuple(learning), tuple(kept), dropped, noise=noise)


def cut_samples(photo: AnnotatedPhoto, cutting: Cutting, dropped: dict[str, int]) -> Iterator[Sample]:
    """The samples of one photo: one in `photo` mode, one an instance in `window` mode. Counts what it drops.

    Raises PhotoError, MaskError, and DataError for a packed window that shows less than the window asked for.
    """
    framing = cutting.framing
    if photo.reach is not None and cutting.mode == "window" and framing.reach > photo.reach + 1e-6:
        raise DataError(
            f"{str(photo.path)!r} was packed with --margin {photo.reach:g}, less than these windows need (window_scale "
            f"{framing.scale:g}, window_height_scale {framing.height_scale:g}, least_aspect {framing.least_aspect:g}): "
            f"pack again with --margin {framing.reach:g}"
        )
    pixels, instances = photo.read()
    usable = []
    for instance in instances:
        reason = _refuse(instance, cutting)
        if reason is None:
            usable.append(instance)
        elif instance.role == "centre":
            dropped[reason] = dropped.get(reason, 0) + 1
    if not any(instance.role == "centre" for instance in usable):
        return
    side = (cutting.load_size, cutting.load_size)
    if cutting.mode == "photo":
        # In a packed window, a companion may be cut off by the window's edge.
        shown = [instance for instance in usable if instance.mask.area >= 0.5 * instance.area]
        dense = np.stack([instance.mask.dense() for instance in shown])
        yield Sample(resize_image(pixels, side), resize_masks(dense, side), photo.path.name)
        return
    for centre in (instance for instance in usable if instance.role == "centre"):
        window = framing.window([centre.mask.box])
        area = (window[2] - window[0]) * (window[3] - window[1])
        inside = {other: int(other.mask.window(window).sum()) for other in instances if other is not centre}
        if sum(inside.values()) / area > cutting.max_company:
            dropped["crowded window"] = dropped.get("crowded window", 0) + 1
            continue
        chosen = [centre]
        if cutting.max_instances > 1:
            chosen += [other for other, area in inside.items() if other in usable and area >= 0.5 * other.area]
        dense = resize_masks(np.stack([instance.mask.window(window) for instance in chosen]), side)
        image = seen(pixels, [instance.mask for instance in chosen], window, side)
        if cutting.facing == "right" and faces_left(dense[0]):
            image, dense = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(dense[:, :, ::-1])
        yield Sample(image, dense, Path(photo.origin).name)


def _refuse(instance: Instance, cutting: Cutting) -> str | None:
    if instance.role == "refused":
        return "refused"
    if instance.mask.area == 0:
        return "empty mask"
    if instance.side < cutting.min_side:
        return f"smaller than {cutting.min_side} px"
    x0, y0, x1, y1 = instance.mask.box
    if x1 - x0 < cutting.narrowest * (y1 - y0):
        return f"narrower than {cutting.narrowest:g} x its height"
    if instance.cut_off > cutting.max_cut:
        return "cut off by the photo's border"
    return None
