"""Held-out scores: how far a run is, by photos that it never learns from. Cheap, and no substitute for an evaluation by
an independent judge: they tell the checkpoints of one run apart.

`held_out/cycle`: the cycle loss, unweighted. `held_out/distance`, with projected discriminators only: a KID-like
distance (Binkowski et al., ICLR 2018: squared maximum mean discrepancy, cubic kernel, unbiased, may fall below 0)
between translated held-out instances and real held-out ones of the target class, alone on grey, in the features of the
run's frozen ImageNet network. Few samples (at most :data:`MOST` a domain): noisy. The discriminators learn in the
same features, so it flatters; their random projections and heads have no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from instapipe.data.samples import Batch
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import losses
from instapipe.training.config import TrainConfig
from instapipe.translation.step import translate_in_turn, translate_step

MOST = 64
CYCLE, DISTANCE = "held_out/cycle", "held_out/distance"


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One direction: its generators, and held-out samples of where it starts and of what it makes."""

    there: SetGenerator
    back: SetGenerator
    given: Batch
    wanted: Batch


@torch.no_grad()
def held_out_scores(ways: list[Way], config: TrainConfig, backbone: FrozenBackbone | None) -> dict[str, float]:
    """The means over the directions; lower is better."""
    cycles, distances = [], []
    for way in ways:
        made, real, cycle = [], [], []
        for first in range(0, len(way.given.image), config.batch_size):
            part = way.given.part(slice(first, first + config.batch_size))
            image, masks, error = _translated(way, part, config)
            cycle.append(error)
            if backbone is not None:
                made.append(_features(image, masks, part.valid, backbone))
        for first in range(0, len(way.wanted.image) if backbone is not None else 0, config.batch_size):
            part = way.wanted.part(slice(first, first + config.batch_size))
            assert backbone is not None
            real.append(_features(part.image, part.masks, part.valid, backbone))
        cycles.append(float(torch.cat(cycle).mean()))
        if len(way.given.image) > 1 < len(way.wanted.image) and made:
            distances.append(kernel_distance(torch.cat(made), torch.cat(real)))
    scores = {CYCLE: sum(cycles) / len(cycles)}
    if distances:
        scores[DISTANCE] = sum(distances) / len(distances)
    return scores


def deciding(scores: dict[str, float]) -> str:
    """Which of the scores says what is best."""
    return DISTANCE if DISTANCE in scores else CYCLE


def kernel_distance(one: Tensor, two: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of features (n, C) and (m, C), n and m at least 2, kernel
    (x . y / C + 1)^3."""
    one, two = one.double(), two.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.t() / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        every = kernel(a, a)
        return (every.sum() - every.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(one) + within(two) - 2 * kernel(one, two).mean())


def _translated(way: Way, batch: Batch, config: TrainConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Image and masks after all instances, and the cycle error (B,) of the first step."""
    per_step, compositing = config.data.instances_per_step, config.compositing
    steps = list(translate_in_turn(way.there, batch.image, batch.masks, batch.valid, per_step, compositing))
    first = steps[0]
    again = translate_step(way.back, first.image, first.masks, batch.valid[:, :per_step], compositing)
    errors = losses.cycle_errors(
        batch.image, batch.masks[:, :per_step], again.image, again.masks, config.losses.cycle_masks
    )
    return steps[-1].image, torch.cat([step.masks for step in steps], dim=1), errors


def _features(image: Tensor, masks: Tensor, valid: Tensor, backbone: FrozenBackbone) -> Tensor:
    """(B, C): the instances alone on grey, through the network, pooled over each of its maps."""
    mattes = (masks + 1) / 2 * valid[:, :, None, None]
    union = 1 - (1 - mattes).prod(dim=1, keepdim=True)
    return torch.cat([feature.float().mean(dim=(2, 3)) for feature in backbone(image * union)], dim=1)
