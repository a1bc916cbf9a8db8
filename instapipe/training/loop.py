"""The loop: batches in order, a schedule, checkpoints, grids, a log. It knows no losses."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from instapipe.config import Direction, opposite
from instapipe.data.domains import Domain, derive
from instapipe.data.samples import Batch
from instapipe.errors import OutputError, TrainingError
from instapipe.imaging.files import write_atomically
from instapipe.training import board, checkpoint
from instapipe.training.ahead import ahead
from instapipe.training.config import TrainConfig
from instapipe.training.ema import update_average
from instapipe.training.grids import grid
from instapipe.training.record import effective_batch
from instapipe.training.run import DIRECTIONS, LOG, Best, Run, shown_generator, state_of
from instapipe.training.step import Metrics, TrainingStep
from instapipe.training.validation import MOST, Way, deciding, held_out_scores
from instapipe.training.watch import Watch


@dataclass(frozen=True, slots=True)
class Progress:
    """After a step. done: share of the run, to 1.  metrics: means over the step's sequential iterations.

    seconds: that the run has taken, before it was resumed too.
    """

    step: int
    done: float
    metrics: Metrics
    seconds: float
    events: tuple[str, ...] = ()


def train(run: Run) -> Iterator[Progress]:
    """Step until the end; the caller may stop at any time and call :func:`save`.

    Raises TrainingError where a loss is not finite any more: the checkpoints of before stay.
    """
    config, team = run.config, run.team
    step_of = TrainingStep(
        config,
        run.networks,
        *run.optimizers,
        run.pools,
        run.backbone,
        bfloat16=run.precision.precision == "bfloat16",
        team=team,
    )
    run.networks.train()
    if run.step == 0 and team.leads:
        write_grids(run)
    shown = board.Board(run.folder, run.step) if config.tensorboard and team.leads and board.installed() else None
    try:
        yield from _steps(run, step_of, shown)
    finally:
        if shown is not None:
            shown.close()


def _steps(run: Run, step_of: TrainingStep, shown: board.Board | None) -> Iterator[Progress]:
    config, team = run.config, run.team
    done = share_done(run)
    if done >= 1:
        return
    size = effective_batch(config, team.size)
    begun = time.monotonic() - run.seconds
    watch = Watch()

    def batches(step: int) -> list[Batch]:
        return [domain.batch(step, size, seed=config.seed) for domain in (run.source, run.target)]

    for source, target in ahead(batches, range(run.step, config.steps)):
        rng = torch.Generator().manual_seed(derive(config.seed, "step", run.step))
        rate = learning_rate(config, done)
        for optimizer, wait in zip(run.optimizers, (config.critics_first, 0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate if run.step >= wait else 0.0
        metrics = team.average(_mean(step_of(source, target, run.step, rng)))
        run.step += 1
        for direction, average in run.averages.items():
            update_average(average, getattr(run.networks, direction), decay=config.ema, step=config.ema_seen + run.step)
        run.seconds = team.told(time.monotonic() - begun) if config.minutes else time.monotonic() - begun
        done = share_done(run)
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"step {run.step}: {bad[0]} is not finite; checkpoints stay; a run needs a smaller learning_rate"
            )
        events = watch(metrics)
        if team.leads:
            if config.validate_every and run.step % config.validate_every == 0:
                events += _validate(run, metrics)
            _log(run, metrics)
            if shown is not None:
                shown.write(run.step, metrics)
            if run.step % config.sample_every == 0 or done >= 1:
                events.append(f"samples: {write_grids(run)}")
        if run.step % config.save_every == 0 or done >= 1:
            events.append(f"checkpoint: {save(run)}")
        yield Progress(run.step, done, metrics, run.seconds, tuple(events))
        if done >= 1:
            break


def share_done(run: Run) -> float:
    """How much of the run is done, of its steps or of its time, whichever is more; 1: all."""
    config = run.config
    return max(run.step / config.steps, run.seconds / (60 * config.minutes) if config.minutes else 0.0)


def learning_rate(config: TrainConfig, done: float) -> float:
    """Constant, then linear to zero from `decay_from` of the run on: a function of what is `done` of it alone."""
    if done < config.decay_from:
        return config.learning_rate
    return config.learning_rate * max(0.0, (1 - done) / max(1e-9, 1 - config.decay_from))


def save(run: Run) -> Path:
    """Write the checkpoint of where the run is now; the leading process does, all know its path."""
    if not run.team.leads:
        return checkpoint.path_of(run.folder / "checkpoints", run.step)
    return checkpoint.save(run.folder / "checkpoints", run.step, state_of(run), keep=run.config.keep)


def write_grids(run: Run) -> Path:
    """Both directions on held-out photos: `samples/<step>-<direction>.png`; gives the folder. The weights shown are the
    moving averages, where there are any."""
    folder = run.folder / "samples"
    domains: dict[Direction, Domain] = {"source_to_target": run.source, "target_to_source": run.target}
    for direction, domain in domains.items():
        there = shown_generator(run, direction)
        back = shown_generator(run, opposite(direction))
        batch = domain.held_out_batch(10).to(run.device)
        how = {"per_step": run.config.data.instances_per_step, "at_once": run.config.batch_size}
        picture = grid(there, back, batch, run.config.compositing, **how)
        encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        write_atomically(folder / f"{run.step:08d}-{direction}.png", encoded.tobytes())
    return folder


def _validate(run: Run, metrics: Metrics) -> list[str]:
    """Add the held-out scores to `metrics`; keep the state where it is the best so far."""
    batches = [domain.held_out_batch(MOST).to(run.device) for domain in (run.source, run.target)]
    there, back = (shown_generator(run, direction) for direction in DIRECTIONS)
    scores = held_out_scores([Way(there, back, *batches), Way(back, there, *batches[::-1])], run.config, run.backbone)
    metrics |= scores
    name = deciding(scores)
    said = f"{name} {scores[name]:.4f}"
    if run.best is not None and scores[name] >= run.best.score:
        return [f"{said} (best: {run.best.score:.4f} at step {run.best.step})"]
    run.best = Best(run.step, name, scores[name])
    return [f"{said}, the best so far: {checkpoint.write(run.folder / 'checkpoints' / checkpoint.BEST, state_of(run))}"]


def _log(run: Run, metrics: Metrics) -> None:
    line = {"step": run.step, "seconds": round(run.seconds, 1), **{k: round(v, 5) for k, v in metrics.items()}}
    try:
        with (run.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {str(run.folder / LOG)!r}: {error.strerror}") from error


def _mean(history: list[Metrics]) -> Metrics:
    names = dict.fromkeys(name for metrics in history for name in metrics)
    return {name: sum(m.get(name, 0.0) for m in history) / len(history) for name in names}
