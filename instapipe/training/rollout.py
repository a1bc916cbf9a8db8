"""A batch on its way through the sequential steps, whole or divided into parts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from instapipe.data.samples import Batch
from instapipe.networks.generator import SetGenerator
from instapipe.training.critics import Candidate, Critic


@dataclass(slots=True, eq=False)
class Side:
    """One direction of the cycle while a batch is rolled out.

    batch: the samples this side starts from.  image: what the next step starts from.
    masks, valid: translated so far, (B, n, H, W) and (B, n).
    """

    name: str
    forward: SetGenerator
    backward: SetGenerator
    critic: Critic
    batch: Batch
    image: Tensor
    masks: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """As much of the batch as goes through the networks at once. where: its place in the whole batch."""

    where: slice
    sides: tuple[Side, Side]
    reals: dict[str, Candidate]


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """A batch while its instances are translated one step after the other.

    parts: those of this process.  valid: (B, N) that the generators are given of each whole batch, by domain: every
    process knows when a side has run out, and how many masks its critic sees.
    """

    parts: list[Part]
    valid: dict[str, Tensor]
    size: int
