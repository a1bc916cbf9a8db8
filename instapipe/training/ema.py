"""A moving average of a network's weights, for everything that people look at."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def average_of(network: N) -> N:
    """A copy to be averaged into."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def update_average(average: nn.Module, network: nn.Module, *, decay: float, step: int) -> None:
    """average = d * average + (1 - d) * network, d warmed up from 0.1 so that the start is soon forgotten."""
    warm = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - warm)
        for ours, theirs in zip(average.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)
