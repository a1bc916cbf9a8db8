"""`instapipe evaluate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from instapipe.cli import requests as ask
from instapipe.pipeline.keys import json_line


def command(
    data: Annotated[Path, typer.Option(help="COCO JSON of held-out photos, or the folder that holds one.")],
    source: Annotated[str, typer.Option(help="Class that is translated.")],
    target: Annotated[str, typer.Option(help="Class that it becomes.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for metrics.json, instances.csv, report.html.")
    ],
    images: Annotated[Path | None, typer.Option(help="Folder of the photos; default: images/ beside the JSON.")] = None,
    weights: ask.Weights = None,
    segmenter: ask.SegmenterName = None,
    reference: Annotated[
        Path | None, typer.Option(help="COCO JSON of the training photos: is the output a copy of one?")
    ] = None,
    judge: Annotated[str, typer.Option(help="The judge: a bundled name or a folder.")] = "judge-animals-1",
    inception: Annotated[
        Path | None, typer.Option(help="Inception weights for the usual FID and KID (needs torch-fidelity).")
    ] = None,
    suite: Annotated[str, typer.Option(help="masks, order, steps, worse, all: what is compared.")] = "masks",
    predicted: Annotated[bool, typer.Option(help="Also with the segmenter's masks.")] = True,
    region: ask.Region = None,
    precision: ask.Precision = None,
    engine: ask.Engine = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N photos with the source class.")] = None,
    seed: Annotated[int, typer.Option(help="Of orders, faults and intervals.")] = 0,
    cache: ask.Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead of the table.")] = False,
) -> None:
    """Measure translations on photos whose instances are known, by an independent judge.

    Every share is of all listed instances with a side of at least 48 pixels, those that the pipeline missed included,
    with N and a 95 % interval. The judge's own validity on untouched photos is measured first and printed beside.
    """
    from instapipe.evaluation.arms import arms_of
    from instapipe.evaluation.run import Request, evaluate, find_data
    from instapipe.evaluation.study import write_study

    settings = ask.settings_from(
        None, size=None, keep=None, drop=None, source=source, target=target, weights=weights, segmenter=segmenter,
        region=region, precision=precision, engine=engine, seed=seed,
    )  # fmt: skip
    arms = [arm for arm in arms_of(suite) if predicted or arm.masks != "predicted"]
    annotations, folder = find_data(data, images)
    request = Request(
        annotations, folder, settings, tuple(arms), shlex.join(["instapipe", *sys.argv[1:]]),
        reference=reference, judge=judge, inception=inception, limit=limit, seed=seed,
    )  # fmt: skip
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("starting")

        def say(what: str, done: int, total: int) -> None:
            bars.update(bar, description=what, completed=done, total=total)

        study = evaluate(request, ask.open_store(cache), say)
    paths = write_study(study, output)
    if as_json:
        typer.echo(json_line(study.metrics))
        return
    show(study.metrics)
    for path in paths.values():
        typer.echo(str(path))


def show(metrics: dict[str, Any]) -> None:
    """The main figures, for people."""
    from instapipe.evaluation.report import number, share, validity_sentence

    validity = metrics["judge"]["validity"]
    console = Console()
    console.print(validity_sentence(validity), style="bold red" if not validity["valid"] else None, highlight=False)
    kinds = ("translated", "residual", "merged", "lost")
    table = Table("", *kinds, "halluc./photo", "count kept", "mask IoU", "KID ratio", box=None)
    for name, arm in metrics["arms"].items():
        ratio = arm["distances"][0]["kid_ratio"] if arm["distances"] else None
        table.add_row(
            name, *(share(arm["verdicts"][kind]) for kind in kinds), number(arm["hallucinated"]["per_photo"], 2),
            share(arm["count_kept"]), number(arm["mask_iou"]["median"], 2), number(ratio, 2),
        )  # fmt: skip
    console.print(table, highlight=False)
