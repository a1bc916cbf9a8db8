"""A run that learns by itself alone, step after step, and its checkpoint: `grade teach`, `train-back`, `train-coats`,
`train-texture`, `train-upscaler`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from instapipe.errors import TrainingError
from instapipe.training import checkpoint
from instapipe.training.ema import update_average
from instapipe.training.precision import Choice

_NORM = 1.0
"""Gradients are clipped to it."""
_WARM, _FALLS = 50, 0.5
"""The rate is reached after so many steps, and falls from this share of the run on, unless a run has its own."""


@dataclass(frozen=True, slots=True)
class Taught:
    """After a step. losses: by name.  held_out: what `measure` says of photos that are not learnt from, by the average
    of the weights; None between measurements."""

    step: int
    losses: dict[str, float]
    held_out: float | None


class Settings(Protocol):
    """What is asked of a run."""

    @property
    def steps(self) -> int:
        """In all."""
        ...

    @property
    def rate(self) -> float:
        """Of the network, at its highest."""
        ...


Network = TypeVar("Network", bound=nn.Module)


class Resumable(ABC, Generic[Network]):
    """What is learnt, the step reached, and the precision that the run began with."""

    settings: Settings
    step: int
    precision: Choice
    average: Network
    _network: Network
    _optimizer: torch.optim.Optimizer
    _device: torch.device

    def learn(self, every: int, save: Callable[[], None]) -> Iterator[Taught]:
        """Until the end; the caller may stop at any time. After `every` steps :meth:`measure`, and `save`.

        Raises TrainingError where a loss is not finite.
        """
        while self.step < self.settings.steps:
            losses = self._advance()
            self.step += 1
            due = self.step % every == 0 or self.step == self.settings.steps
            measured = self.measure() if due else None
            if due:
                save()
            yield Taught(self.step, losses, measured)

    @abstractmethod
    def _advance(self) -> dict[str, float]:
        """Take a step; its losses by name."""

    @abstractmethod
    def measure(self) -> float:
        """How good it is on photos that nothing is learnt from."""

    def _rate(self, alone: int = 0) -> float:
        """Of this step; 0 for the first `alone`."""
        done = self.step / self.settings.steps
        return max(self.settings.rate * min(1.0, (self.step + 1 - alone) / _WARM) * min(1.0, (1 - done) / _FALLS), 0.0)

    def _autocast(self, precision: str | None = None) -> torch.autocast:
        """Another `precision` than the run's: for a trial."""
        wanted = self.precision.precision if precision is None else precision
        return torch.autocast(self._device.type, torch.bfloat16, enabled=wanted == "bfloat16")

    def _learn_at(self, rate: float) -> None:
        """Set the rate of what is learnt."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _descend(self, loss: Tensor, decay: float) -> None:
        """A step of the network down `loss`, where that has a gradient, and of the average after it.

        Raises TrainingError where it is not finite.
        """
        if not bool(torch.isfinite(loss)):
            raise TrainingError(f"step {self.step}: the loss is not finite; a run needs a smaller --rate")
        if not loss.requires_grad:
            return
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), _NORM)
        self._optimizer.step()
        update_average(self.average, self._network, decay=decay, step=self.step)

    @property
    def _parts(self) -> dict[str, Any]:
        """By name, whatever has a state of its own: networks and optimisers."""
        return {"network": self._network, "average": self.average, "optimizer": self._optimizer}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return {"step": self.step, "precision": self.precision.precision, **parts}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        # A busy moment must not change the result.
        self.precision = Choice(state["precision"], "as before")

    def save(self, folder: Path) -> None:
        """A checkpoint, whole or not at all. Raises OutputError."""
        checkpoint.save(folder, self.step, self.state(), keep=1)
