"""A run: networks, optimisers, pools and where it is; built, kept in checkpoints, restored."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Adam

from instapipe.config import Direction
from instapipe.data.domains import Domain, derive
from instapipe.errors import TrainingError
from instapipe.imaging.files import sweep, write_atomically
from instapipe.networks.blocks import initialise, set_recompute
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import board, checkpoint
from instapipe.training.compiling import compile_parts
from instapipe.training.config import TrainConfig
from instapipe.training.ema import average_of
from instapipe.training.initial import Initial
from instapipe.training.pool import FakePool
from instapipe.training.precision import Choice, Precision, choose_precision
from instapipe.training.record import read_settings, write_settings
from instapipe.training.step import InstaGAN
from instapipe.training.team import Team

DIRECTIONS: tuple[Direction, ...] = ("source_to_target", "target_to_source")
LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Best:
    """The best held-out score so far (lower is better), by which name, and the step of it."""

    step: int
    name: str
    score: float


@dataclass(slots=True, eq=False)
class Run:
    """A run in memory: everything that a checkpoint holds, and the folder it lives in.

    notes: what there is to say at its start.
    """

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
    seconds: float = 0.0
    best: Best | None = None
    notes: tuple[str, ...] = ()

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
    plan: dict[str, Any] | None = None,
) -> Run:
    """Build the networks, or restore them from the newest checkpoint in `folder`.

    initial: weights that the generators start from instead of random ones; a resumed run needs them no more.
    team: the processes that train together (one on the CPU without); only the first writes into `folder`.
    plan: the settings that were chosen for the memory there is; kept in the folder.
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
            plan=plan,
        )
        sweep(folder)
        checkpoint.sweep(folder / "checkpoints")
        cut_log(folder / LOG, 0 if state is None else state["step"])
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
        if initial is not None and state is None and initial.averages:
            for direction, average in averages.items():
                average.load_state_dict(initial.averages[direction])
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
    if config.compile:
        run.notes += (compile_parts([networks.source_to_target, networks.target_to_source], config.data.size),)
    if config.tensorboard and not board.installed():
        run.notes += (board.MISSING,)
    return run


def state_of(run: Run) -> dict[str, Any]:
    """Everything that a run needs to go on exactly."""
    return {
        "step": run.step,
        "seconds": run.seconds,
        "precision": run.precision.precision,
        "networks": run.networks.state_dict(),
        "averages": {direction: average.state_dict() for direction, average in run.averages.items()},
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "pools": {name: pool.state_dict() for name, pool in run.pools.items()},
        "best": None if run.best is None else asdict(run.best),
    }


def shown_generator(run: Run, direction: Direction) -> SetGenerator:
    """The moving average where the run keeps one, else the generator itself."""
    generator = run.averages.get(direction, getattr(run.networks, direction))
    assert isinstance(generator, SetGenerator)
    return generator


def hardware(device: torch.device) -> str:
    """What the run is computed on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} {'thread' if threads == 1 else 'threads'}"


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
    if state.get("best") is not None:  # checkpoints of before have none
        run.best = Best(**state["best"])


def cut_log(path: Path, step: int) -> None:
    """Drop the lines of steps that will be done again, and what a kill cut off."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
