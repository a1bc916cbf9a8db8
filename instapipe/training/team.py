"""The processes that train one run together, one a device: what they tell each other.

Lightning Fabric launches them, gives each its device and carries the messages. A training step is no single forward, so
gradients are averaged here, once, after the backward passes; every process then takes the same optimiser step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class Team:
    """This process among the others. Alone (no `fabric`), every method gives back what it was given."""

    def __init__(self, device: torch.device, fabric: Fabric | None = None) -> None:
        self._fabric = fabric
        self.device = device
        self.rank = 0 if fabric is None else int(fabric.global_rank)
        self.size = 1 if fabric is None else int(fabric.world_size)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def own(self, total: int) -> slice:
        """Which samples of a batch of `total` are this process's, by their place in it."""
        each = total // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, part: Tensor) -> Tensor:
        """Everyone's parts (B, ...), of one shape, as one (size x B, ...), in the order of the whole batch."""
        if self._fabric is None:
            return part
        # Fabric's own way is deprecated in torch, and says so in every run.
        parts = [torch.empty_like(part) for _ in range(self.size)]
        torch.distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Each gradient becomes its mean over the processes; one that has none adds zero; where nobody has, none stays.

        One message for all of them.
        """
        if self._fabric is None:
            return
        learning = list(parameters)
        have = torch.tensor([float(p.grad is not None) for p in learning], device=self.device, dtype=learning[0].dtype)
        flat = torch.cat([have, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in learning)])
        have, *means = torch.split(self._mean(flat), [len(learning), *(p.numel() for p in learning)])
        for parameter, share, mean in zip(learning, have.tolist(), means, strict=True):
            parameter.grad = mean.view_as(parameter) if share else None

    def average(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean over the processes, name by name; all of them know the same names."""
        if self._fabric is None:
            return dict(values)
        means = self._mean(torch.tensor(list(values.values()), device=self.device))
        return dict(zip(values, means.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it is so for anyone."""
        return flag if self._fabric is None else self.average({"flag": float(flag)})["flag"] > 0

    def told(self, value: T) -> T:
        """What the leading process says, whatever the others think."""
        return value if self._fabric is None else self._fabric.broadcast(value)

    def _mean(self, values: Tensor) -> Tensor:
        assert self._fabric is not None
        return cast(Tensor, self._fabric.all_reduce(values, reduce_op="sum")) / self.size

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leading process goes through the block before the others: they find its results in the cache."""
        if self._fabric is None:
            yield
            return
        with self._fabric.rank_zero_first():
            yield


def launched() -> bool:
    """Whether this process is one of several, started by torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: torch.device) -> Team:
    """The team of this process: alone, or those that torchrun started, each on a device of its own of the same type."""
    if not launched():
        return Team(device)
    from lightning_fabric import Fabric  # seconds, which a single process need not pay

    everyone, here = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    fabric = Fabric(accelerator=device.type, strategy="ddp", devices=here, num_nodes=everyone // here)
    fabric.launch()
    return Team(fabric.device, fabric)
