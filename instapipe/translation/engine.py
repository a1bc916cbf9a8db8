"""What runs a generator: one step of a translation, from pixels to pixels, on whichever engine is best here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instapipe.config import Direction, TranslatorCard
from instapipe.imaging.facing import faces_left
from instapipe.imaging.shown import shown_masks
from instapipe.networks.devices import resolve_device
from instapipe.networks.weights import load_generator
from instapipe.translation.engines.artefacts import Artefacts
from instapipe.translation.engines.choice import Choice, choose_engine
from instapipe.translation.engines.run import Engine, build

__all__ = ["Choice", "Translator", "choose"]


class Translator:
    """A generator, loaded. Raises WeightsError, EngineError."""

    def __init__(
        self,
        card: TranslatorCard,
        folder: Path,
        direction: Direction,
        device: str = "auto",
        engine: str = "torch",
        precision: str = "float32",
        artefacts: Path | None = None,
    ) -> None:
        """artefacts: where compiled networks are kept; None: nowhere."""
        device = resolve_device(device)
        generator = load_generator(card, folder, direction, device)
        weights = card.directions[direction].sha256
        self._shown, self._facing = card.masks, card.facing
        self._engine: Engine = build(generator, weights, device, engine, precision, Artefacts(artefacts))

    def step(
        self, pixels: NDArray[np.float32], masks: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One step.

        pixels: float32 (h, w, 3) in [0, 255].  masks: bool (n, h, w), n >= 1.
        Returns the generator's image, float32 (h, w, 3) in [0, 255], and the mattes, float32 (n, h, w) in [0, 1]; where
        the weights know the union only, one matte for all, float32 (1, h, w).
        """
        if self._facing == "right" and faces_left(masks[0]):
            # The largest of a step decides.
            painted, mattes = self._step(pixels[:, ::-1], masks[:, :, ::-1])
            return np.ascontiguousarray(painted[:, ::-1]), np.ascontiguousarray(mattes[:, :, ::-1])
        return self._step(pixels, masks)

    def _step(
        self, pixels: NDArray[np.float32], masks: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        shown = shown_masks(masks, self._shown)
        image = pixels.transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)
        raw, mattes = self._engine.run(np.ascontiguousarray(image), shown.astype(np.float32) * 2 - 1)
        painted = (raw.transpose(1, 2, 0) + 1) * np.float32(127.5)
        if self._shown == "none":
            return np.ascontiguousarray(painted), masks.astype(np.float32)  # it knows no shapes: they stay
        return np.ascontiguousarray(painted), (mattes + 1) / np.float32(2)


def choose(
    card: TranslatorCard,
    folder: Path,
    direction: Direction,
    device: str,
    engine: str,
    precision: str,
    artefacts: Path | None = None,
) -> Choice:
    """What `auto`, as engine, as precision or as both, means for these weights on this machine, by a short measurement.

    Raises WeightsError, and EngineError where what was asked for cannot run here.
    """
    device = resolve_device(device)
    generator = load_generator(card, folder, direction, device)
    weights = card.directions[direction].sha256
    size = card.size_of(direction)
    return choose_engine(
        generator, weights, size, card.instances_per_step, device, engine, precision, Artefacts(artefacts)
    )
