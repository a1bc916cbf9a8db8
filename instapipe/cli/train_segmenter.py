"""`instapipe train-segmenter`."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instapipe.config import read_yaml
from instapipe.resources import configs_root


def command(
    data: Annotated[Path, typer.Option(help="COCO JSON with the masks to learn from.")],
    images: Annotated[Path, typer.Option(help="Folder of the photos (of --val-data too).")],
    output: Annotated[Path, typer.Option(help="Folder of the run: checkpoint and log.")],
    config: Annotated[Path | None, typer.Option(help="Settings, YAML; default: the bundled compact.yaml.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in all; overrides the config.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    initial: Annotated[
        str | None, typer.Option("--from", metavar="NAME|PATH", help="Start from these weights (a name or a folder).")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    val_data: Annotated[Path | None, typer.Option(help="COCO JSON to measure the mask AP on at the end.")] = None,
    export: Annotated[Path | None, typer.Option(help="New folder for the weights; default: OUTPUT/weights.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train a compact Mask R-CNN on photos with masks; Ctrl-C saves, --resume goes on."""
    from instapipe.segmentation.settings import SegmenterTraining

    overrides: dict[str, Any] = {} if steps is None else {"steps": steps}
    settings = read_yaml(config or configs_root() / "segmenter" / "compact.yaml", SegmenterTraining, overrides)

    from instapipe.segmentation.training.dataset import CocoSet
    from instapipe.segmentation.training.export import check_new
    from instapipe.segmentation.training.export import export as write_weights
    from instapipe.segmentation.training.loop import start

    target = export or output / "weights"
    check_new(target)
    learnt = CocoSet(data, images)
    held_out = CocoSet(val_data, images) if val_data else None
    run = start(settings, learnt, output, seed, resume, device, initial)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("training", total=settings.steps, completed=run.step)

        def show(step: int, record: dict[str, float]) -> None:
            bars.update(bar, completed=step, description=f"loss {record['loss']:.2f}, {record['seconds']:.2f} s a step")

        # As Ctrl-C does; a run in the background may have been started with that ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        try:
            run.fit(show)
        except KeyboardInterrupt:
            console.print(f"stopped at step {run.step}, saved; go on with --resume")
            raise
        bar = bars.add_task("measuring", total=len(held_out) if held_out else 0, visible=held_out is not None)
        recipe = shlex.join(["instapipe", *(word for word in sys.argv[1:] if word != "--resume")])
        card = write_weights(run, target, held_out, recipe, lambda done: bars.update(bar, completed=done))
    for group, scores in card.quality.items():
        if isinstance(scores, dict):
            print(f"{group:10} n {scores['n']:4}  mask AP {share(scores['ap'])}  AP50 {share(scores['ap50'])}")
            for name, part in scores["classes"].items():
                print(f"  {name:10} n {part['n']:4}  AP {share(part['ap'])}  AP50 {share(part['ap50'])}")
    print(f"weights: {target}")


def share(value: float | None) -> str:
    """An AP as people write it, in percent."""
    return "   -" if value is None else f"{100 * value:4.1f}"
