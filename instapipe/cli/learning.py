"""What `grade teach`, `train-back`, `train-coats`, `train-texture` and `train-upscaler` do alike: leave out photos with
wrong labels, go on from a checkpoint, learn, log, stop if asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from instapipe.cli.train import Interruption
    from instapipe.data.photos import AnnotatedPhoto
    from instapipe.training.resumable import Taught


class Learner(Protocol):
    """The state of a run."""

    step: int

    def measure(self) -> float:
        """How good it is on photos that nothing is learnt from."""
        ...

    def learn(self, every: int, save: Callable[[], None]) -> Iterator[Taught]:
        """Step after step, until the end."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        ...

    def save(self, folder: Path) -> None:
        """A checkpoint in `folder`."""
        ...


EXCLUDING = "A training's configuration, of which data.exclude names photos not to learn from."
"""What `--config` is there."""


def learnable(photos: list[AnnotatedPhoto], config: str | None) -> list[AnnotatedPhoto]:
    """Those that a training's configuration does not exclude, a file or a bundled one's name. Raises ConfigError."""
    from instapipe.cli.train import find_config, without
    from instapipe.config import read_yaml
    from instapipe.resources import configs_root
    from instapipe.training.config import TrainConfig

    if config is None:
        return photos
    settings = read_yaml(find_config(config), TrainConfig, bases=configs_root() / "train")
    return without(photos, settings.data.exclude)


def go_on(learner: Learner, output: Path, resumed: bool) -> tuple[float, float]:
    """Go on from the last checkpoint in `output`, if there is one: what was measured before any step, and now.

    Raises TrainingError.
    """
    from instapipe.training import checkpoint, school
    from instapipe.training.run import LOG, cut_log

    state = checkpoint.load_latest(output / school.CHECKPOINTS) if resumed else None
    before = learner.measure()
    if state is None:
        return before, before
    learner.restore(state)
    cut_log(output / LOG, learner.step)
    return before, learner.measure()


def learn(
    learner: Learner,
    output: Path,
    steps: int,
    every: int,
    keep: Callable[[], None],
    measured: str,
    console: Console,
    bars: Progress,
    bar: TaskID,
    interruption: Interruption,
) -> float | None:
    """All steps that are left of `steps`: what was measured last, None where no step was left.

    keep: called after `every` steps.  measured: what it is called. Raises TrainingError, OutputError, typer.Exit.
    """
    from instapipe.training import school
    from instapipe.training.run import LOG

    reached = None
    bars.update(bar, description="learning", completed=learner.step, total=steps)
    with (output / LOG).open("a", encoding="utf-8") as log:
        for taught in learner.learn(every, keep):
            bars.update(bar, completed=taught.step)
            line = {"step": taught.step, **taught.losses}
            if taught.held_out is not None:
                reached = taught.held_out
                line["held_out"] = reached
                console.print(f"step {taught.step}: {measured}: {reached:.2f}")
            log.write(json.dumps(line) + "\n")
            log.flush()
            if interruption.wanted and taught.step < steps:
                learner.save(output / school.CHECKPOINTS)
                console.print(f"interrupted at step {taught.step}; saved; the same command goes on")
                raise typer.Exit(130)
    return reached
