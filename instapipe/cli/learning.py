"""What `grade teach`, `train-back`, `train-coats`, `train-texture` and `train-upscaler` do alike: their options, photos
without those with wrong labels, a bar, going on from a checkpoint, learning, a log, stopping if asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from instapipe.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from instapipe.cli.train import Interruption
    from instapipe.data.photos import AnnotatedPhoto
    from instapipe.structures import Pixels
    from instapipe.training.precision import Choice
    from instapipe.training.resumable import Settings, Taught

SourceData = Annotated[Path, typer.Option(help="COCO JSON, or a folder of photos with masks.", metavar="PATH")]
TargetData = Annotated[Path, typer.Option(help="Likewise, of the target.", metavar="PATH")]
Weights = Annotated[str, typer.Option(help="A translator.", metavar="NAME|PATH")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that was stopped goes on.")]
Export = Annotated[Path, typer.Option(help="A new folder for the weights.", metavar="DIR")]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="Classes that are translated; default: the weights' source.", metavar="C"),
]
SourceMasks = Annotated[Path | None, typer.Option(help="Masks, if not beside the photos.", metavar="PATH")]
TargetMasks = Annotated[Path | None, typer.Option(help="Likewise.", metavar="PATH")]
Views = Annotated[int, typer.Option(min=1, help="Crops of each instance.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps in all.")]
Rate = Annotated[float, typer.Option(min=0, help="The learning rate; it falls to 0 at the end.")]
Config = Annotated[
    str | None,
    typer.Option(
        help="A training's configuration, of which data.exclude names photos not to learn from.", metavar="NAME|PATH"
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda.")]


class Learner(Protocol):
    """The state of a run."""

    step: int
    precision: Choice

    @property
    def settings(self) -> Settings:
        """What is asked of it."""
        ...

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


@dataclass(frozen=True, slots=True)
class Bar:
    """What is shown of a command while it works, and whether somebody asked it to stop."""

    console: Console
    bars: Progress
    task: TaskID
    interruption: Interruption

    def doing(self, what: str) -> None:
        """Say what it is that is done now."""
        self.bars.update(self.task, description=what)

    def told(self, done: int, total: int) -> None:
        """So much is done of what comes before the first step. Raises typer.Exit where it is asked to stop."""
        self.bars.update(self.task, completed=done, total=total)
        if self.interruption.wanted:
            raise typer.Exit(130)


@contextmanager
def shown(console: Console, what: str) -> Iterator[Bar]:
    """A bar; Ctrl-C and SIGTERM ask to stop."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from instapipe.cli.train import Interruption

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars, Interruption() as interruption:
        yield Bar(console, bars, bars.add_task(what, total=None), interruption)


def check_new(export: Path) -> None:
    """Raises UsageError where there is something."""
    if export.exists():
        raise UsageError(f"--export {str(export)!r} exists: weights are never overwritten, choose another name")


def photos_of(data: Path, labels: Sequence[str], masks: Path | None, config: str | None) -> list[AnnotatedPhoto]:
    """The photos of some classes, without those that `config` excludes (a training's, a file or a bundled one's name).

    Raises DataError, ConfigError.
    """
    from instapipe.cli.train import find_config, without
    from instapipe.config import read_yaml
    from instapipe.data.photos import read_photos
    from instapipe.resources import configs_root
    from instapipe.training.config import TrainConfig

    photos = [photo for label in labels for photo in read_photos(data, label, masks=masks)]
    if config is None:
        return photos
    settings = read_yaml(find_config(config), TrainConfig, bases=configs_root() / "train")
    return without(photos, settings.data.exclude)


def learn(
    learner: Learner,
    output: Path,
    resumed: bool,
    every: int,
    begun: Callable[[float], str],
    measured: str,
    bar: Bar,
    picture: Callable[[], Pixels] | None = None,
) -> tuple[float, float]:
    """Go on from the last checkpoint in `output`, if there is one (`resumed`), until the end: what was measured before
    any step, and last.

    begun: what is said at first, of what was measured before.  measured: what it is called.  picture: of the run as it
    is; kept in `output`/samples before the first step and after `every` steps. Raises TrainingError, OutputError,
    typer.Exit.
    """
    from instapipe.imaging import encode_image, write_atomically
    from instapipe.training import school
    from instapipe.training.run import LOG

    def keep() -> None:
        if picture is not None:
            path = output / "samples" / f"step-{learner.step:05d}.png"
            write_atomically(path, encode_image(picture(), ".png"))
        learner.save(output / school.CHECKPOINTS)

    console, steps = bar.console, learner.settings.steps
    before, reached = _go_on(learner, output, resumed)
    if picture is not None and not learner.step:
        keep()
    precision = learner.precision
    console.print(f"{begun(before)}; {precision.precision}: {precision.reason}", soft_wrap=True)
    bar.bars.update(bar.task, description="learning", completed=learner.step, total=steps)
    with (output / LOG).open("a", encoding="utf-8") as log:
        for taught in learner.learn(every, keep):
            bar.bars.update(bar.task, completed=taught.step)
            line = {"step": taught.step, **taught.losses}
            if taught.held_out is not None:
                reached = taught.held_out
                line["held_out"] = reached
                console.print(f"step {taught.step}: {measured}: {reached:.3g}")
            log.write(json.dumps(line) + "\n")
            log.flush()
            if bar.interruption.wanted and taught.step < steps:
                learner.save(output / school.CHECKPOINTS)
                console.print(f"interrupted at step {taught.step}; saved; the same command goes on")
                raise typer.Exit(130)
    return before, reached


def _go_on(learner: Learner, output: Path, resumed: bool) -> tuple[float, float]:
    """What was measured before any step, and what is now, after the last checkpoint. Raises TrainingError."""
    from instapipe.training import checkpoint, school
    from instapipe.training.run import LOG, cut_log

    state = checkpoint.load_latest(output / school.CHECKPOINTS) if resumed else None
    before = learner.measure()
    if state is None:
        return before, before
    learner.restore(state)
    cut_log(output / LOG, learner.step)
    return before, learner.measure()
