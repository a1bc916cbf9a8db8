"""How the judge is trained: a few thousand windows and crops on one CPU core, from ImageNet features.

Stopped and started again it goes on from its last checkpoint, with the optimiser and the random draws where they were.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from instapipe.config import Strict
from instapipe.errors import TrainingError
from instapipe.structures import Pixels
from instapipe.verdict.dataset import LabelledPhoto
from instapipe.verdict.network import MEAN, STD, DenseMaps, JudgeNetwork
from instapipe.verdict.samples import Sampler, Window

CLASS_WEIGHTS = {"sheep": 1.4, "horse": 1.2, "cow": 1.1, "elephant": 0.8, "zebra": 0.6, "giraffe": 1.5}
"""How often a sample is centred on each class: rare ones more often than they occur, the classes in question most."""


class JudgeRecipe(Strict):
    """Settings of a training run."""

    steps: int = 1500
    windows: int = 8
    window_side: int = 256
    crops: int = 8
    crop_side: int = 128
    rate: float = 1.5e-3
    trunk_rate: float = 3e-4
    decay: float = 0.02
    warm_up: int = 60
    average: float = 0.997
    seed: int = 0
    checkpoint_every: int = 100
    classes: tuple[str, ...] = ("sheep", "horse", "cow", "elephant", "zebra", "giraffe")
    class_weights: dict[str, float] = Field(default_factory=lambda: dict(CLASS_WEIGHTS))


@dataclass(frozen=True, slots=True)
class Losses:
    """Means over the batch, unweighted."""

    semantic: Tensor
    centre: Tensor
    offset: Tensor
    crop: Tensor

    def total(self) -> Tensor:
        """What is minimised; the weights make the four similar in size after the first hundred steps."""
        return self.semantic + self.centre + 2.0 * self.offset + self.crop


def dense_losses(maps: DenseMaps, windows: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy, penalty-reduced focal loss (CornerNet, eq. 1) and L1 inside instances."""
    semantic = torch.from_numpy(np.stack([w.semantic for w in windows]))
    centre = torch.from_numpy(np.stack([w.centre for w in windows]))
    offset = torch.from_numpy(np.stack([w.offset for w in windows]))
    inside = (semantic > 0).float()
    logits = maps.centre.float()[:, 0]
    probability = logits.sigmoid()
    peak = (centre >= 0.999).float()
    hit = peak * (1 - probability) ** 2 * functional.logsigmoid(logits)
    miss = (1 - peak) * (1 - centre) ** 4 * probability**2 * functional.logsigmoid(-logits)
    return (
        functional.cross_entropy(maps.semantic.float(), semantic),
        -(hit.sum() + miss.sum()) / peak.sum().clamp(min=1),
        ((maps.offset.float() - offset).abs().sum(dim=1) * inside).sum() / inside.sum().clamp(min=1),
    )


def to_tensor(images: Sequence[Pixels]) -> Tensor:
    """uint8 (H, W, 3) each -> float32 (B, 3, H, W) in [-1, 1], channels last."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return ((batch / 255 - MEAN) / STD).to(memory_format=torch.channels_last)


def losses(network: JudgeNetwork, sampler: Sampler, recipe: JudgeRecipe, rng: np.random.Generator) -> Losses:
    """One batch's losses."""
    windows = [sampler.window(rng, recipe.window_side) for _ in range(recipe.windows)]
    crops = [sampler.crop(rng, recipe.crop_side) for _ in range(recipe.crops)]
    semantic, centre, offset = dense_losses(network(to_tensor([w.pixels for w in windows])), windows)
    labels = torch.tensor([label for _, label in crops])
    crop = functional.cross_entropy(network.classify(to_tensor([c for c, _ in crops])), labels, label_smoothing=0.05)
    return Losses(semantic, centre, offset, crop)


def train_judge(
    photos: Sequence[LabelledPhoto],
    recipe: JudgeRecipe,
    folder: Path,
    report: Callable[[dict[str, float]], None] = lambda entry: None,
) -> JudgeNetwork:
    """Train on `photos`, in `folder` (resumed where it holds a checkpoint); returns the averaged network.

    `report` gets a record of every step.  Raises TrainingError where the loss is no longer finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = JudgeNetwork(len(recipe.classes), pretrained=True).to(memory_format=torch.channels_last).train()
    average = JudgeNetwork(len(recipe.classes)).to(memory_format=torch.channels_last).eval()
    average.load_state_dict(network.state_dict())
    trunk = [p for p in network.trunk.parameters() if p.requires_grad]
    ours = {id(p) for p in network.trunk.parameters()}
    heads = [p for p in network.parameters() if id(p) not in ours]
    groups = [{"params": trunk, "lr": recipe.trunk_rate}, {"params": heads, "lr": recipe.rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _factor(step, recipe))
    checkpoint = folder / "checkpoint.pt"
    first = 0
    if checkpoint.is_file():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        rng.bit_generator.state = state["rng"]
        first = state["step"]
    sampler = Sampler(photos, recipe.classes, recipe.class_weights)
    started = time.monotonic()
    for step in range(first + 1, recipe.steps + 1):
        batch = losses(network, sampler, recipe, rng)
        total = batch.total()
        if not torch.isfinite(total):
            raise TrainingError(f"the judge's loss is {float(total)} at step {step}: lower the rate or check the masks")
        optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*trunk, *heads], 5.0)
        optimiser.step()
        schedule.step()
        _follow(average, network, min(recipe.average, step / (step + 10)))
        seconds = (time.monotonic() - started) / (step - first)
        report({"step": step, "seconds_per_step": round(seconds, 3), **_values(batch)})
        if step % recipe.checkpoint_every == 0 or step == recipe.steps:
            _save(checkpoint, step, network, average, optimiser, schedule, rng)
    return average


def _factor(step: int, recipe: JudgeRecipe) -> float:
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))


def _values(batch: Losses) -> dict[str, float]:
    names = ("semantic", "centre", "offset", "crop")
    return {name: round(float(getattr(batch, name).detach()), 4) for name in names}


@torch.no_grad()
def _follow(average: JudgeNetwork, network: JudgeNetwork, keep: float) -> None:
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - keep)


def _save(
    path: Path,
    step: int,
    network: JudgeNetwork,
    average: JudgeNetwork,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    rng: np.random.Generator,
) -> None:
    """Whole or absent: written beside, then renamed."""
    content = {
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "rng": rng.bit_generator.state,
    }
    scratch = path.with_suffix(".tmp")
    torch.save(content, scratch)
    os.replace(scratch, path)
