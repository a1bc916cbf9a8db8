"""The checkpoint of a run that learns by itself alone: `grade teach`, `train-back`, `train-coats`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from instapipe.training import checkpoint
from instapipe.training.precision import Choice


class Resumable(ABC):
    """What is learnt, the step reached, and the precision that the run began with."""

    step: int
    precision: Choice

    @property
    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """By name, whatever has a state of its own: networks and optimisers."""

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
