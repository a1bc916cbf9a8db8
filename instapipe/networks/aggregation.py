"""How the features of a set of masks become one feature map, whatever the size of the set."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SumAggregation(nn.Module):
    """The paper's: the plain sum over the valid instances."""

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(B, N, C, H, W), valid (B, N) -> (B, C, H, W); padding adds nothing, an empty set gives 0."""
        return (features * valid[:, :, None, None, None]).sum(dim=1)


class MeanAggregation(nn.Module):
    """The mean over the valid instances: its scale does not grow with the set."""

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(B, N, C, H, W), valid (B, N) -> (B, C, H, W)."""
        weight = valid[:, :, None, None, None].to(features.dtype)
        return (features * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class AttentionAggregation(nn.Module):
    """At each pixel a softmax over the valid instances, by a learned query; scaled back by the set's size, so that a
    uniform attention is the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(B, N, C, H, W), valid (B, N) -> (B, C, H, W)."""
        b, n, c, h, w = features.shape
        score: Tensor = self.score(features.reshape(b * n, c, h, w)).reshape(b, n, 1, h, w) / math.sqrt(c)
        score = score.masked_fill(~valid[:, :, None, None, None], torch.finfo(score.dtype).min)
        attention = score.softmax(dim=1) * valid.sum(dim=1)[:, None, None, None, None]
        return (features * attention * valid[:, :, None, None, None]).sum(dim=1)


def build_aggregation(name: str, channels: int) -> nn.Module:
    """`sum`, `mean` or `attention` over features of `channels`."""
    if name == "sum":
        return SumAggregation()
    if name == "mean":
        return MeanAggregation()
    if name == "attention":
        return AttentionAggregation(channels)
    raise ValueError(f"aggregation: expected sum, mean or attention, got {name!r}")
