"""The loop: batches in order, a schedule, checkpoints, grids, a log. It knows no losses."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.optim import Adam

from instapipe.config import Direction
from instapipe.data.domains import Domain, derive
from instapipe.errors import OutputError, TrainingError
from instapipe.imaging.files import sweep, write_atomically
from instapipe.networks.blocks import initialise, set_recompute
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import checkpoint
from instapipe.training.config import TrainConfig
from instapipe.training.ema import average_of, update_average
from instapipe.training.grids import grid
from instapipe.training.initial import Initial
from instapipe.training.pool import FakePool
from instapipe.training.precision import Choice, Precision, choose_precision
from instapipe.training.record import effective_batch, read_settings, write_settings
from instapipe.training.step import InstaGAN, Metrics, TrainingStep
from instapipe.training.team import Team

DIRECTIONS: tuple[Direction, ...] = ("source_to_target", "target_to_source")
LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """After a step. metrics: means over the step's sequential iterations.  seconds: since the run (re)started."""

    step: int
    steps: int
    metrics: Metrics
    seconds: float
    events: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Run:
    """A run in memory: everything that a checkpoint holds, and the folder it lives in."""

    config: TrainConfig
    source: Domain
    target: Domain
    folder: Path
    team: Team
    networks: InstaGAN
    averages: dict[Direction, SetGenerator]
    optimizers: tuple[Adam, Adam]
    pools: dict[str, FakePool]
    backbone: FrozenBackbone | None
    precision: Choice
    step: int = 0
    resumed: bool = False
    seconds: float = field(default=0.0)

    @property
    def device(self) -> torch.device:
        """What this process computes on."""
        return self.team.device


def start(
    config: TrainConfig,
    source: Domain,
    target: Domain,
    folder: Path,
    *,
    initial: Initial | None = None,
    team: Team | None = None,
    resume: bool = False,
) -> Run:
    """Build the networks, or restore them from the newest checkpoint in `folder`.

    initial: weights that the generators start from instead of random ones; a resumed run needs them no more.
    team: the processes that train together (one on the CPU without); only the first writes into `folder`.
    resume: a run that was killed before its first checkpoint starts anew.
    Raises TrainingError where `folder` holds a run and `resume` is False, or where the settings differ from the run's.
    """
    state = checkpoint.load_latest(folder / "checkpoints")
    if state is not None and not resume:
        raise TrainingError(
            f"{str(folder)!r} holds a run at step {state['step']}: add --resume to go on, or choose another --output"
        )
    if state is None and resume and read_settings(folder) is None:
        raise TrainingError(f"{str(folder)!r} holds no run to resume")
    team = team or Team(torch.device("cpu"))
    place = team.device
    if team.leads:
        write_settings(
            folder,
            config,
            source,
            target,
            resume=resume,
            machine=hardware(place),
            processes=team.size,
            initial=initial,
        )
        sweep(folder)
        checkpoint.sweep(folder / "checkpoints")
        _cut_log(folder / LOG, 0 if state is None else state["step"])
    backbone, channels = _backbone(config)
    rng = torch.Generator().manual_seed(derive(config.seed, "networks"))
    networks = InstaGAN(config, channels, rng)
    for generator in (networks.source_to_target, networks.target_to_source):
        initialise(generator, rng)
    if initial is not None and state is None:
        initial.into(networks)
    networks.to(place)
    if backbone is not None:
        backbone.to(place)
    generators = [*networks.source_to_target.parameters(), *networks.target_to_source.parameters()]
    critics = [p for c in (networks.critic_source, networks.critic_target) for p in c.parameters() if p.requires_grad]
    optimizers = (
        Adam(generators, lr=config.learning_rate, betas=config.betas_generator, fused=True),
        Adam(critics, lr=config.learning_rate, betas=config.betas_discriminator, fused=True),
    )

    averages: dict[Direction, SetGenerator] = {}
    if config.ema:
        averages = {direction: average_of(getattr(networks, direction)) for direction in DIRECTIONS}
    pools = {"source": FakePool(config.pool_size), "target": FakePool(config.pool_size)}
    # A resumed run keeps the precision that it started with: a busy moment must not change the result.
    precision = (
        Choice(state["precision"], "as before")
        if state is not None
        else team.told(choose_precision(config.precision, lambda p: _trial(networks, source, config, p), place))
    )
    for module in (networks, backbone):
        if module is not None:
            set_recompute(module, config.checkpointing)
    run = Run(config, source, target, folder, team, networks, averages, optimizers, pools, backbone, precision)
    if state is not None:
        _restore(run, state)
    return run


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
    size = effective_batch(config, team.size)
    run.networks.train()
    begun = time.monotonic() - run.seconds
    if run.step == 0 and team.leads:
        write_grids(run)
    while run.step < config.steps:
        rng = torch.Generator().manual_seed(derive(config.seed, "step", run.step))
        source, target = (domain.batch(run.step, size, seed=config.seed) for domain in (run.source, run.target))
        rate = learning_rate(config, run.step)
        for optimizer, wait in zip(run.optimizers, (config.critics_first, 0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate if run.step >= wait else 0.0
        metrics = team.average(_mean(step_of(source, target, run.step, rng)))
        run.step += 1
        for direction, average in run.averages.items():
            update_average(average, getattr(run.networks, direction), decay=config.ema, step=config.ema_seen + run.step)
        run.seconds = time.monotonic() - begun
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"step {run.step}: {bad[0]} is not finite; checkpoints stay; a run needs a smaller learning_rate"
            )
        events = []
        if team.leads:
            _log(run, metrics)
            if run.step % config.sample_every == 0 or run.step == config.steps:
                events.append(f"samples: {write_grids(run)}")
        if run.step % config.save_every == 0 or run.step == config.steps:
            events.append(f"checkpoint: {save(run)}")
        yield Progress(run.step, config.steps, metrics, run.seconds, tuple(events))


def learning_rate(config: TrainConfig, step: int) -> float:
    """Constant, then linear to zero from `decay_from` of the steps on: a function of the step alone."""
    flat = config.decay_from * config.steps
    if step < flat:
        return config.learning_rate
    return config.learning_rate * max(0.0, (config.steps - step) / max(1.0, config.steps - flat))


def save(run: Run) -> Path:
    """Write the checkpoint of where the run is now; the leading process does, all know its path."""
    if not run.team.leads:
        return checkpoint.path_of(run.folder / "checkpoints", run.step)
    state: dict[str, Any] = {
        "step": run.step,
        "seconds": run.seconds,
        "precision": run.precision.precision,
        "networks": run.networks.state_dict(),
        "averages": {direction: average.state_dict() for direction, average in run.averages.items()},
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "pools": {name: pool.state_dict() for name, pool in run.pools.items()},
    }
    return checkpoint.save(run.folder / "checkpoints", run.step, state, keep=run.config.keep)


def write_grids(run: Run) -> Path:
    """Both directions on held-out photos: `samples/<step>-<direction>.png`; gives the folder. The weights shown are the
    moving averages, where there are any."""
    folder = run.folder / "samples"
    domains: dict[Direction, Domain] = {"source_to_target": run.source, "target_to_source": run.target}
    for direction, domain in domains.items():
        there = shown_generator(run, direction)
        back = shown_generator(run, "target_to_source" if direction == "source_to_target" else "source_to_target")
        batch = domain.held_out_batch(10).to(run.device)
        picture = grid(there, back, batch, run.config.compositing, per_step=run.config.data.instances_per_step)
        encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        write_atomically(folder / f"{run.step:08d}-{direction}.png", encoded.tobytes())
    return folder


def shown_generator(run: Run, direction: Direction) -> SetGenerator:
    """The moving average where the run keeps one, else the generator itself."""
    generator = run.averages.get(direction, getattr(run.networks, direction))
    assert isinstance(generator, SetGenerator)
    return generator


def hardware(device: torch.device) -> str:
    """What the run is computed on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _backbone(config: TrainConfig) -> tuple[FrozenBackbone | None, list[int]]:
    if config.projected is None:
        return None, []
    from instapipe.networks.backbone import pretrained_features  # timm takes seconds to import

    features = pretrained_features(config.projected.backbone)
    return FrozenBackbone(features, config.projected.min_side), list(features.channels)


def _trial(networks: InstaGAN, source: Domain, config: TrainConfig, precision: Precision) -> None:
    batch = source.batch(0, 1, seed=config.seed)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        image, masks = networks.source_to_target(batch.image, batch.masks, batch.valid)
    (image.float().mean() + masks.float().mean()).backward()
    networks.zero_grad(set_to_none=True)


def _restore(run: Run, state: dict[str, Any]) -> None:
    run.networks.load_state_dict(state["networks"])
    for direction, average in run.averages.items():
        average.load_state_dict(state["averages"][direction])
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for name, pool in run.pools.items():
        pool.load_state_dict(state["pools"][name], run.device)
    run.step, run.seconds, run.resumed = state["step"], state["seconds"], True


def _log(run: Run, metrics: Metrics) -> None:
    line = {"step": run.step, "seconds": round(run.seconds, 1), **{k: round(v, 5) for k, v in metrics.items()}}
    try:
        with (run.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {str(run.folder / LOG)!r}: {error.strerror}") from error


def _cut_log(path: Path, step: int) -> None:
    """Drop the lines of steps that will be done again, and what a kill cut off."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def _mean(history: list[Metrics]) -> Metrics:
    names = dict.fromkeys(name for metrics in history for name in metrics)
    return {name: sum(m.get(name, 0.0) for m in history) / len(history) for name in names}
