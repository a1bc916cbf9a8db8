"""Weights that a run starts from instead of random ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from instapipe.config import TranslatorCard
from instapipe.errors import TrainingError
from instapipe.networks.weights import load_generator
from instapipe.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Initial:
    """A translator's card and folder. Its classes need not be the run's: what it knows of a target is worth having for
    any source."""

    card: TranslatorCard
    folder: Path

    def fits(self, config: TrainConfig) -> None:
        """Raises TrainingError, naming the setting, where the run's generators have another form."""
        ours, theirs = config.generator.model_dump(), self.card.generator.model_dump()
        for name, value in theirs.items():
            if ours[name] != value:
                raise TrainingError(
                    f"weights {self.card.name!r} have generator.{name} {value}, the run has {ours[name]}: "
                    f"add --set generator.{name}={value}, or start without --from"
                )

    def into(self, networks: nn.Module) -> None:
        """Copy the generators that the card has into those of `networks`, by direction.

        Raises WeightsError where a file is damaged.
        """
        for direction in self.card.directions:
            state = load_generator(self.card, self.folder, direction).state_dict()
            networks.get_submodule(direction).load_state_dict(state)

    def record(self) -> dict[str, Any]:
        """What the run's folder says of it: name, steps so far, digests."""
        digests = {direction: entry.sha256 for direction, entry in self.card.directions.items()}
        return {"name": self.card.name, "steps": self.card.steps, "sha256": digests}
