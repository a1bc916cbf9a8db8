"""An engine: a generator ready to run steps."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from instapipe.errors import EngineError
from instapipe.networks.generator import SetGenerator, check_sides
from instapipe.translation.engines.artefacts import Artefacts
from instapipe.translation.engines.backends import PRECISIONS, backend
from instapipe.translation.engines.gpu import Steps
from instapipe.translation.engines.parts import Array, Part, run_step, split

_SIZES = 2
"""For so many sizes the compiled parts stay in memory: windows have one size, whole photos in turn few."""


class Engine(Protocol):
    """A generator that takes one step."""

    def run(self, image: Array, masks: Array) -> tuple[Array, Array]:
        """image: float32 (3, H, W), masks: float32 (N, H, W), both in [-1, 1], N >= 1; returns the same shapes."""


def build(
    generator: SetGenerator, weights: str, device: str, engine: str, precision: str, artefacts: Artefacts
) -> Engine:
    """The engine called `engine` for `generator`, which lies on `device`. weights: their digest.

    Raises EngineError where it cannot run here.
    """
    if torch.device(device).type == "cpu":
        return PartsEngine(generator, weights, engine, precision, artefacts)
    if engine != "torch" or precision not in PRECISIONS["torch"]:
        raise EngineError(
            f"no engine {engine!r} with {precision} on {device}; there is torch with {', '.join(PRECISIONS['torch'])}"
        )
    return WholeEngine(generator, device, precision)


class PartsEngine:
    """On a CPU: mask after mask, since there a batch is no faster, through parts that are compiled once per size."""

    def __init__(
        self, generator: SetGenerator, weights: str, engine: str, precision: str, artefacts: Artefacts
    ) -> None:
        self._compile = backend(engine, precision, artefacts, weights)
        on_openvino = engine == "openvino"
        self._parts = split(
            generator,
            shared=not on_openvino or precision != "bfloat16",
            keep_transposed=on_openvino,
            maps=(engine, precision) == ("torch", "float32"),
        )
        self._compiled: dict[tuple[int, int], dict[str, Part]] = {}

    def run(self, image: Array, masks: Array) -> tuple[Array, Array]:
        """See Engine. Raises EngineError where the parts cannot be compiled for this size."""
        height, width = image.shape[1:]
        check_sides(height, width)
        compiled = self._compiled.pop((height, width), None)
        if compiled is None:
            while len(self._compiled) >= _SIZES:
                self._compiled.pop(next(iter(self._compiled)))
            compiled = self._compile(self._parts, (height, width))
        self._compiled[height, width] = compiled
        painted, mattes = run_step(compiled, self._parts.aggregate, image, masks)
        return np.ascontiguousarray(painted), np.ascontiguousarray(mattes)


class WholeEngine:
    """On a GPU: all masks of a step in one batch, in torch, as a CUDA graph where one can be recorded."""

    def __init__(self, generator: SetGenerator, device: str, precision: str, *, graphs: bool = True) -> None:
        self.steps = Steps(generator, device, precision, graphs=graphs)

    @torch.inference_mode()
    def run(self, image: Array, masks: Array) -> tuple[Array, Array]:
        """See Engine."""
        painted, mattes = self.steps(torch.from_numpy(image)[None], torch.from_numpy(masks)[None])
        return painted[0].numpy(), mattes[0].numpy()
