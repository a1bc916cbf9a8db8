"""`instapipe train`: two domains in, a run folder out."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instapipe.cli.sides import Segmenting, Side, read_side, write_refused
from instapipe.config import parse_yaml, read_yaml
from instapipe.errors import ConfigError
from instapipe.resources import configs_root

if TYPE_CHECKING:
    from instapipe.data.domains import Domain
    from instapipe.data.photos import AnnotatedPhoto
    from instapipe.training.config import TrainConfig
    from instapipe.training.loop import Progress
    from instapipe.training.memory import Plan
    from instapipe.training.run import Run

HINT = "a discriminator can count instead of looking at shapes; try --set data.balance=match, or data.max_instances=1"


def command(
    source_data: Annotated[
        Path,
        typer.Option(help="COCO JSON (images beside it or in images/), or a folder of photos, with or without masks."),
    ],
    target_data: Annotated[Path, typer.Option(help="The same for the target domain.")],
    source: Annotated[str, typer.Option(help="Class to translate from.")],
    target: Annotated[str, typer.Option(help="Class to translate to.")],
    output: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, samples, log.")],
    config: Annotated[str, typer.Option(help="A YAML file, or the name of one in configs/train/.")] = "small-data",
    steps: Annotated[int | None, typer.Option(help="Steps to train for (overrides the config).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (overrides the config).")] = None,
    validate_every: Annotated[
        int | None, typer.Option(help="Steps between held-out scores; the best is kept (overrides the config).")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override any setting: --set data.size=128 (repeatable).")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from these weights (a name or a folder), or from where another run is; see critics_first.",
            metavar="NAME|PATH|RUN",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.")] = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            help="Fit into so much (of each process): measured before the first step. On a GPU: all that it has.",
            metavar="6GB",
        ),
    ] = None,
    source_masks: Annotated[
        Path | None, typer.Option(help="Masks of the source photos, if not beside them.", metavar="PATH")
    ] = None,
    target_masks: Annotated[Path | None, typer.Option(help="Masks of the target photos.", metavar="PATH")] = None,
    segmenter: Annotated[
        str | None, typer.Option(help="Who makes masks for photos that have none.", metavar="NAME")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where those masks are kept.", metavar="DIR")] = None,
) -> None:
    """Train a translator on photos with instance masks. Ctrl-C saves; --resume goes on exactly where it stopped."""
    import torch
    from rich.console import Console

    from instapipe.data.counts import NOTABLE, separation
    from instapipe.data.domains import match_counts
    from instapipe.networks.devices import resolve_device
    from instapipe.training.config import TrainConfig
    from instapipe.training.initial import Initial
    from instapipe.training.memory import own_limit, parse_memory, predictor
    from instapipe.training.memory import plan as plan_memory
    from instapipe.training.record import as_planned
    from instapipe.training.run import hardware, start
    from instapipe.training.team import join

    given = overrides(set_ or [], steps=steps, seed=seed, validate_every=validate_every)
    settings = read_yaml(find_config(config), TrainConfig, given, bases=configs_root() / "train")
    initial = None
    if from_ is not None:
        initial = Initial.find(from_)
        initial.fits(settings)
    limit = None if memory is None else parse_memory(memory)
    if resume:
        settings = as_planned(output, settings)
    team = join(torch.device(resolve_device(device)))
    console = Console(quiet=not team.leads)
    how = Segmenting(segmenter, cache, str(team.device))
    with team.leader_first():  # what has to be segmented first is segmented once
        sides = (
            read_side(source_data, source, source_masks, settings.data.gate, how, console),
            read_side(target_data, target, target_masks, settings.data.gate, how, console),
        )
    with console.status("cutting samples"):
        first, second = cut_sides(sides, settings)
    for domain in (first, second):
        dropped = ", ".join(f"{count} {reason}" for reason, count in domain.dropped.items())
        console.print(
            f"{domain.label}: {len(domain.learning)} samples to learn from, {len(domain.held_out)} held out"
            + (f"; left out: {dropped}" if dropped else "")
        )
    apart = separation(first.counts(), second.counts())
    if apart > NOTABLE:
        console.print(
            f"the number of instances alone tells {source} from {target} ({apart:.0%} of pairs): "
            + ("instances are pasted in (data.balance: match)" if settings.data.balance == "match" else HINT),
            soft_wrap=True,
        )
    plan = None
    if limit is None and not resume:
        limit = own_limit(team.device)
    if limit is not None:
        with console.status("measuring memory"):
            plan = team.told(plan_memory(settings, limit, predictor(team.device, limit)) if team.leads else None)
        assert plan is not None
        console.print(describe_plan(plan), soft_wrap=True)
        if plan.config.data != settings.data:
            first, second = cut_sides(sides, plan.config)
        settings = plan.config
    if settings.data.balance == "match":
        first, second = match_counts(first, second)
    kept = plan.record() if plan else None
    run = start(settings, first, second, output, initial=initial, team=team, resume=resume, plan=kept)
    refused = write_refused(run.folder, sides) if team.leads else None
    if refused is not None:
        console.print(f"what was not good enough to learn from: {refused}", soft_wrap=True)
    many = f"{team.size} processes, " if team.size > 1 else ""
    console.print(f"{many}{hardware(run.device)}; {run.precision.precision}: {run.precision.reason}")
    for note in run.notes:
        console.print(note, soft_wrap=True)
    if run.resumed:
        console.print(f"resumed at step {run.step}")
    elif initial is not None:
        console.print(
            f"{', '.join(sorted(initial.parts))} start from {initial.name} ({initial.steps} steps)", soft_wrap=True
        )
    show(run, console)


def show(run: Run, console: Any) -> None:
    """Train with a live line; on Ctrl-C save, then leave with 130."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from instapipe.training import loop
    from instapipe.training.memory import peak
    from instapipe.training.record import effective_batch

    columns = (
        BarColumn(None),
        TextColumn("{task.fields[at]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    begun_at, begun_seconds = run.step, run.seconds
    size = effective_batch(run.config, run.team.size)
    with Bar(*columns, console=console) as bar, Interruption(many=run.team.size > 1) as interruption:
        task = bar.add_task("steps", total=1.0, at=str(run.step), rate="")
        bar.update(task, completed=loop.share_done(run))
        of = "" if run.config.minutes else f"/{run.config.steps}"
        for progress in loop.train(run):
            rate = (progress.step - begun_at) * size / max(1e-9, progress.seconds - begun_seconds)
            bar.update(task, completed=progress.done, at=f"{progress.step}{of}", rate=f"{rate:.2f} samples/s")
            if progress.events:
                console.print(f"step {progress.step}: {describe(progress)}", soft_wrap=True)
            for event in progress.events:
                console.print(f"  {event}", soft_wrap=True)
            if run.team.any(interruption.wanted):
                console.print(f"interrupted at step {run.step}; saved: {loop.save(run)}; go on with --resume")
                raise typer.Exit(130)
    most = peak(run.device)
    held = f"; at most {most / 1e9:.2f} GB of memory" if most is not None else ""
    console.print(f"done: {run.step} steps in {run.seconds / 60:.1f} min{held}")
    console.print(f"next: instapipe weights export {run.folder} --output DIR")


class Interruption:
    """Turns the first Ctrl-C or SIGTERM into a wish: a step is never left half done. A second one interrupts at once,
    unless this is one of `many` processes: torchrun passes on what the terminal has sent to all already."""

    wanted = False
    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, many: bool = False) -> None:
        self._many = many

    def __enter__(self) -> Interruption:
        self._before = [signal.signal(number, self._wish) for number in self._SIGNALS]
        return self

    def _wish(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        if not self._many:
            self._restore()

    def _restore(self) -> None:
        for number, before in zip(self._SIGNALS, self._before, strict=True):
            signal.signal(number, before)

    def __exit__(self, *_: object) -> None:
        self._restore()


def describe_plan(plan: Plan) -> str:
    """What was chosen for the memory there is, and why."""
    config = plan.config
    parts = f"{config.accumulate} x {config.batch_size}" if config.accumulate > 1 else str(config.batch_size)
    return (
        f"memory: {plan.reason}; {parts} samples a step{', checkpointing' if config.checkpointing else ''}, "
        f"{config.data.size} px, predicted to take {plan.predicted / 1e9:.2f} GB"
    )


def cut_sides(sides: tuple[Side, Side], settings: TrainConfig) -> tuple[Domain, Domain]:
    """The samples of both sides."""
    from instapipe.data.domains import cut_domain

    one, two = (
        cut_domain(
            without(side.photos, settings.data.exclude),
            side.label,
            cutting,
            held_out=settings.held_out,
            seed=settings.seed,
        )
        for side, cutting in zip(sides, (settings.data, settings.data.of_target()), strict=True)
    )
    return one, two


def describe(progress: Progress) -> str:
    """The losses in one line."""
    return "  ".join(f"{name} {value:.2f}" for name, value in progress.metrics.items())


def find_config(name: str) -> Path:
    """A file, or a bundled one by its name without `.yaml`. Raises ConfigError, which lists the bundled ones."""
    path = Path(name)
    if path.is_file():
        return path
    folder = configs_root() / "train"
    bundled = folder / f"{name}.yaml"
    if bundled.is_file():
        return bundled
    known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
    raise ConfigError(f"no config {name!r}: neither a file nor one of the bundled ({known})")


def overrides(assignments: list[str], **flags: int | None) -> dict[str, Any]:
    """Flags as settings by dotted name; values of --set are YAML."""

    out: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set {assignment!r}: expected NAME=VALUE, like data.size=128")
        try:
            out[name] = parse_yaml(value)
        except ValueError as error:
            raise ConfigError(f"--set {assignment!r}: {value!r} is no YAML value") from error
    return out | {name: value for name, value in flags.items() if value is not None}


def without(photos: list[AnnotatedPhoto], names: tuple[str, ...]) -> list[AnnotatedPhoto]:
    """The photos whose file is not named in `names`; nor what was packed from those."""
    return [photo for photo in photos if photo.path.name not in names and Path(photo.origin).name not in names]
