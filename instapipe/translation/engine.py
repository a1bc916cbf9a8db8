"""What runs a generator: one step of a translation, from pixels to pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from instapipe.config import Direction, TranslatorCard
from instapipe.errors import EngineError
from instapipe.networks.weights import load_generator


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
    ) -> None:
        if engine != "torch" or precision != "float32":
            raise EngineError(f"no engine {engine!r} with precision {precision!r}; there is torch with float32")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device)
        self._generator = load_generator(card, folder, direction, device)

    @torch.inference_mode()
    def step(
        self, pixels: NDArray[np.float32], masks: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One step.

        pixels: float32 (h, w, 3) in [0, 255].  masks: bool (n, h, w), n >= 1.
        Returns the generator's image, float32 (h, w, 3) in [0, 255], and the mattes, float32 (n, h, w) in [0, 1].
        """
        image = torch.from_numpy(pixels).to(self._device).permute(2, 0, 1)[None] / 127.5 - 1
        sets = torch.from_numpy(masks).to(self._device)[None].float() * 2 - 1
        valid = torch.ones(sets.shape[:2], dtype=torch.bool, device=self._device)
        raw, mattes = self._generator(image, sets, valid)
        painted = ((raw[0].permute(1, 2, 0) + 1) * 127.5).float().cpu().numpy()
        return np.ascontiguousarray(painted), ((mattes[0] + 1) / 2).float().cpu().numpy()


def choose(
    card: TranslatorCard, folder: Path, direction: Direction, device: str, engine: str, precision: str
) -> dict[str, str]:
    """What `auto` means for these weights on this machine."""
    return {
        "engine": "torch" if engine == "auto" else engine,
        "precision": "float32" if precision == "auto" else precision,
    }
