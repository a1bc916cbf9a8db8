"""What weights make of windows of training photos, by none to some round trips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from instapipe.config import Direction, TranslatorCard, opposite
from instapipe.data.domains import Cutting
from instapipe.data.samples import Crop, Sample, sample_batch
from instapipe.imaging.windows import Framing
from instapipe.networks.weights import check_gradable
from instapipe.translation.again import Turn, round_trip
from instapipe.translation.engine import Translator
from instapipe.translation.native import without_slivers

_ROOM = 1.16
"""Windows are read so much finer than the model sees them, and views of them taken at random."""
_LEAST_VIEW = 0.88


@dataclass(frozen=True, slots=True)
class Runner:
    """What computes a step. engine, precision: as of Translator.  artefacts: where compiled networks are kept."""

    device: str = "cpu"
    engine: str = "torch"
    precision: str = "float32"
    artefacts: Path | None = None


@dataclass(slots=True, eq=False)
class Turns:
    """Weights in a direction, and the way back where they have one. Raises WeightsError, UsageError.

    cutting: how windows are cut from photos.  max_company, narrowest: see there.
    """

    card: TranslatorCard
    folder: Path
    direction: Direction
    runner: Runner = field(default_factory=Runner)
    max_company: float = 0.1
    narrowest: float = 0.0
    cutting: Cutting = field(init=False)
    _there: Translator = field(init=False)
    _back: Translator | None = field(init=False)

    def __post_init__(self) -> None:
        card = self.card
        check_gradable(card, self.direction)
        how = (self.runner.device, self.runner.engine, self.runner.precision, self.runner.artefacts)
        back = opposite(self.direction)
        self._there = Translator(card, self.folder, self.direction, *how)
        self._back = Translator(card, self.folder, back, *how) if back in card.directions else None
        self.cutting = cutting_for(card, self.direction, self.max_company, self.narrowest)

    @property
    def returns(self) -> bool:
        """Whether there is a way back."""
        return self._back is not None

    def first(self, sample: Sample, rng: torch.Generator) -> Turn | None:
        """A random view of `sample`, translated; None where the instance lies outside of it."""

        pixels, mask = view_of(sample, self.cutting, rng)
        return Turn.of(self._there.step, pixels, mask) if mask.any() else None

    def again(self, turn: Turn) -> Turn | None:
        """Back, and there once more; None where nothing comes back."""
        assert self._back is not None
        return round_trip(turn, self._there.step, self._back.step, self.card.compositing)


def cutting_for(card: TranslatorCard, direction: Direction, max_company: float, narrowest: float) -> Cutting:
    """How the windows that a direction of the weights starts from are cut from photos, one instance each."""
    size = card.size_of(direction)
    assert size is not None
    framing = Framing.of(card, direction)
    return Cutting(
        mode="window", size=size[0], load_size=round(_ROOM * size[0]), window_scale=framing.scale,
        window_height_scale=framing.height_scale, least_aspect=framing.least_aspect, placement=framing.placement,
        max_instances=1, min_side=48, max_cut=0.15, max_company=max_company, narrowest=narrowest, facing=card.facing,
    )  # fmt: skip


def view_of(sample: Sample, cutting: Cutting, rng: torch.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A random view of `sample`: float32 (S, S, 3) in [0, 255], and the mask (1, S, S), empty where the instance lies
    outside of it."""

    def view(drawn: Sample, rng: torch.Generator) -> Crop:
        full = drawn.image.shape[0]
        crop = Crop.sample(full, (round(_LEAST_VIEW * full), full), rng)
        return Crop(crop.x, crop.y, crop.side, flip=False)

    batch = sample_batch([sample], view, rng, size=cutting.size, max_instances=1, order="largest")
    pixels = (batch.image[0].permute(1, 2, 0).numpy() + 1) * np.float32(127.5)
    return pixels, batch.masks[0].numpy() > 0


def matte_of(turn: Turn) -> NDArray[np.float32]:
    """The matte of a turn's one instance, without slivers: float32 (h, w) in [0, 1]."""
    return without_slivers(turn.mattes[0], turn.masks[0])
