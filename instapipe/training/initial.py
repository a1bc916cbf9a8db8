"""What a run starts from instead of random numbers: weights, or another run's newest checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from instapipe.config import GeneratorConfig
from instapipe.errors import TrainingError
from instapipe.networks.cards import find_card
from instapipe.networks.weights import load_generator
from instapipe.training import checkpoint
from instapipe.training.config import TrainConfig
from instapipe.training.record import settings_of


@dataclass(frozen=True, slots=True)
class Initial:
    """Parts of the networks of a run, by their names in it: the generators, of a run its critics too, and beside them
    the moving averages of the generators, by direction.

    Its classes need not be the new run's: what it knows of a target is worth having for any source.
    steps: that it has had, with those of what it started from itself.  digests: of what it was read from.
    """

    name: str
    steps: int
    generator: GeneratorConfig
    parts: dict[str, dict[str, Tensor]]
    digests: dict[str, str]
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def find(cls, name: str) -> Initial:
        """Weights by name or folder, or the folder of a run. Raises WeightsError, TrainingError."""
        folder = Path(name).expanduser()
        if (folder / "checkpoints").is_dir():
            return cls._of_run(folder)
        card, folder = find_card(name, "translator")
        parts = {str(way): load_generator(card, folder, way).state_dict() for way in card.directions}
        digests = {str(way): entry.sha256 for way, entry in card.directions.items()}
        return cls(card.name, card.steps, card.generator, parts, digests)

    @classmethod
    def _of_run(cls, folder: Path) -> Initial:
        state = checkpoint.load_latest(folder / "checkpoints")
        if state is None:
            raise TrainingError(f"{str(folder)!r} holds no checkpoint to start from")
        settings, config = settings_of(folder)
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state["networks"].items():
            part, _, rest = key.partition(".")
            parts.setdefault(part, {})[rest] = value
        before = settings.get("initial") or {"steps": 0}
        return cls(folder.name, before["steps"] + state["step"], config.generator, parts, {}, state["averages"])

    def fits(self, config: TrainConfig) -> None:
        """Raises TrainingError, naming the setting, where the run's generators have another form."""
        ours, theirs = config.generator.model_dump(), self.generator.model_dump()
        for name, value in theirs.items():
            if ours[name] != value:
                raise TrainingError(
                    f"weights {self.name!r} have generator.{name} {value}, the run has {ours[name]}: "
                    f"add --set generator.{name}={value}, or start without --from"
                )

    def into(self, networks: nn.Module) -> None:
        """Copy the parts into those of `networks` of the same name. Raises TrainingError where critics do not fit."""
        for part, state in self.parts.items():
            try:
                networks.get_submodule(part).load_state_dict(state)
            except RuntimeError as error:
                raise TrainingError(
                    f"{part} of {self.name!r} has another form than the run's (discriminator_width, projected): "
                    "export its weights and start from those"
                ) from error

    def record(self) -> dict[str, Any]:
        """What the run's folder says of it."""
        return {"name": self.name, "steps": self.steps, "parts": sorted(self.parts), "sha256": self.digests}
