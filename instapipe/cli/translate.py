"""`instapipe translate`."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from instapipe import imaging
from instapipe.cli import requests as ask
from instapipe.pipeline.batch import DEFAULT_WORKERS, Done, check_disk, exit_code, translate_many, translate_one
from instapipe.pipeline.jobs import Inputs, default_folder, find_inputs, folder_jobs, single_job
from instapipe.pipeline.keys import json_line
from instapipe.pipeline.ledger import Ledger
from instapipe.pipeline.models import Models
from instapipe.pipeline.runner import Runner
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store


def command(
    photos: Annotated[list[str], typer.Argument(help="Photos, folders or globs.", metavar="PHOTO|FOLDER|GLOB")],
    source: ask.Source = None,
    target: ask.Target = None,
    masks: ask.Masks = None,
    weights: ask.Weights = None,
    segmenter: ask.SegmenterName = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="A picture's file, or a folder. None: beside where you are.", metavar="PATH"
        ),
    ] = None,
    region: ask.Region = None,
    background: ask.Background = None,
    seam: ask.Seam = None,
    size: ask.Size = None,
    device: ask.Device = None,
    engine: ask.Engine = None,
    precision: ask.Precision = None,
    instances_per_step: ask.PerStep = None,
    tries: ask.Tries = None,
    upscale: ask.Upscale = None,
    max_instances: ask.MaxInstances = None,
    score: ask.Score = None,
    min_area: ask.MinArea = None,
    order: ask.OrderName = None,
    seed: ask.Seed = None,
    keep: ask.Keep = None,
    drop: ask.Drop = None,
    cache: ask.Cache = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, help="Photos in flight.", metavar="N")
    ] = DEFAULT_WORKERS,
    verify: ask.Verify = None,
    judge: ask.JudgeName = None,
    config: ask.Config = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a photo on stdout, nothing else there.")
    ] = False,
) -> None:
    """Translate the instances of one class in photos into another class, and keep the background.

    Beside each picture lie its masks (NAME.masks/), a filmstrip of the steps and a report. One photo becomes
    <name>_<target>.png in the current folder; a folder or a glob becomes a folder of pictures, and running it again
    goes on where it stopped.

    Exit codes: 0 all translated; 3 some photos without instance; 4 some failed; 1 nothing done; 2 wrong request;
    130 interrupted.
    """
    settings = ask.settings_from(
        config, size=size, keep=keep, drop=drop, source=source, target=target, weights=weights, segmenter=segmenter,
        region=region, background=background, seam=seam, device=device, engine=engine, precision=precision,
        instances_per_step=instances_per_step, tries=tries, upscale=upscale, max_instances=max_instances,
        score=score, min_area=min_area, order=order, seed=seed,
    )  # fmt: skip
    make = ask.runner_maker(verify, judge)
    store = ask.open_store(cache)
    folder = Path(os.path.abspath(os.path.expanduser(output))) if output is not None else None
    inputs = find_inputs(photos, skip=folder)
    with Models(settings.device, store.artefacts) as models:
        if inputs.single:
            job = single_job(inputs.photos[0], output, settings.target)
            runner = make(settings, store, models, mask_source=masks)
            done = translate_one(job, runner, threading.Event())
            _say(done, as_json)
            code = exit_code([done.status])
        else:
            folder = folder or default_folder(inputs, settings.target)
            code = _many(inputs, folder, settings, store, models, masks, workers, as_json, make)
    if store.trouble:
        typer.echo(f"warning: {store.trouble}", err=True)
    raise typer.Exit(code)


def _many(
    inputs: Inputs,
    folder: Path,
    settings: TranslateSettings,
    store: Store,
    models: Models,
    masks: Path | None,
    workers: int,
    as_json: bool,
    make: Callable[..., Runner],
) -> int:
    """A folder run; returns the exit code."""
    ledger = Ledger(folder)
    asked = settings.model_dump(mode="json")
    earlier = ledger.run
    # A run that goes on takes the engine that it began with: half of the photos must not be another engine's.
    engine = earlier.get("engine") if earlier.get("asked") == asked else None
    runner = make(settings, store, models, mask_source=masks, engine=engine)
    jobs = folder_jobs(inputs, folder, settings.target, ledger.pictures)
    need = check_disk([job for job in jobs if not job.picture.exists()], folder)
    typer.echo(
        f"{len(jobs)} photos into {folder} (about {need / 1e6:.0f} MB to write); "
        f"engine {runner.engine['engine']}, {runner.engine['precision']}",
        err=True,
    )
    ledger.begin(
        {"asked": asked, "engine": runner.engine, "weights": runner.weights.sha256},
        {job.name: job.picture.relative_to(folder).as_posix() for job in jobs},
    )
    start, fresh, statuses = time.monotonic(), 0, []
    for number, done in enumerate(translate_many(jobs, runner, ledger, workers=workers), 1):
        statuses.append(done.status)
        fresh += not done.earlier
        _say(done, as_json)
        rate = fresh / max(1e-9, time.monotonic() - start)
        left = f", {_duration((len(jobs) - number) / rate)} left" if fresh and number < len(jobs) else ""
        typer.echo(f"[{number}/{len(jobs)}] {rate:.2f} photos/s{left}", err=True)
    ledger.compact()
    counts = {status: statuses.count(status) for status in ("translated", "no instances", "failed")}
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items() if count), err=True)
    return exit_code(statuses)


def _say(done: Done, as_json: bool) -> None:
    """One photo's outcome: JSON on stdout, or a line for people."""
    if as_json:
        typer.echo(json_line(_facts(done)))
    elif done.error is not None:
        typer.echo(f"error: {done.job.name}: {done.error}", err=True)
    elif done.written is not None:
        lossy = done.written.picture.suffix.lower() in imaging.LOSSY
        kept = "the photo as it was, compressed anew" if lossy else "pixels unchanged"
        made = f"{done.instances} translated" if done.instances else f"no instances, {kept}"
        cached = f" (cached: {', '.join(done.hits)})" if done.hits else ""
        earlier = " (done earlier)" if done.earlier else ""
        typer.echo(f"{done.job.name}: {made} -> {_shown(done.written.picture)}{cached}{earlier}")
        by_reason: dict[str, list[str]] = {}
        for number, reason in done.dropped:
            by_reason.setdefault(reason, []).append(str(number))
        for reason, numbers in by_reason.items():
            typer.echo(f"  {', '.join(numbers)} left: {reason}")
        for note in done.notes:
            typer.echo(f"  note: {note}")
    sys.stdout.flush()


def _facts(done: Done) -> dict[str, Any]:
    """What `--json` prints."""
    facts: dict[str, Any] = {
        "photo": str(done.job.photo),
        "status": done.status,
        "instances": done.instances,
        "hits": list(done.hits),
        "earlier": done.earlier,
    }
    if done.error is not None:
        facts["error"] = done.error
    if done.written is not None:
        for name in ("picture", "masks", "filmstrip", "report"):
            facts[name] = str(getattr(done.written, name))
        facts["dropped"] = {str(number): reason for number, reason in done.dropped}
        facts["steps_from_cache"] = done.run.get("steps_from_cache")
        facts["stages"] = done.run.get("stages", {})
    return facts


def _shown(path: Path) -> str:
    """Relative where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
