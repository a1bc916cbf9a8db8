"""Projected discriminators (Sauer et al., "Projected GANs converge faster", NeurIPS 2021).

A frozen ImageNet network gives features at four scales; fixed random convolutions mix channels and scales; small
spectral-norm heads judge each scale. Only the heads learn: few parameters, so little data and few steps go far.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from instapipe.networks.blocks import SpectralConv2d, recompute


class RandomProjection(nn.Module):
    """Fixed random 1x1 convolutions per scale, then fixed random 3x3 convolutions top-down (cross-scale mixing)."""

    def __init__(self, channels: list[int], width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mix_channels = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.mix_scales = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in channels)
        for layer in (*self.mix_channels, *self.mix_scales):
            fan_in = layer.weight[0].numel()
            with torch.no_grad():
                layer.weight.normal_(0.0, fan_in**-0.5, generator=generator)
        self.requires_grad_(False)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features of growing stride -> as many maps of `width` channels, each one fed from those above it."""
        out: list[Tensor] = []
        above: Tensor | None = None
        for feature, channels, scales in zip(
            reversed(features), reversed(self.mix_channels), reversed(self.mix_scales), strict=True
        ):
            mixed = channels(feature)
            if above is not None:
                mixed = mixed + F.interpolate(above, size=mixed.shape[-2:], mode="bilinear", align_corners=False)
            above = scales(mixed)
            out.append(above)
        return out[::-1]


class ProjectedHeads(nn.Module):
    """One set of heads over the projected features of a frozen backbone.

    mask_channel: the heads see the mask, area-pooled to each scale, as one more channel.
    """

    def __init__(
        self, channels: list[int], generator: torch.Generator, *, width: int = 64, hidden: int = 128, mask_channel: bool
    ) -> None:
        super().__init__()
        self.mask_channel = mask_channel
        self.project = RandomProjection(channels, width, generator)
        inputs = width + int(mask_channel)
        self.heads = nn.ModuleList(
            nn.Sequential(
                SpectralConv2d(inputs, hidden, 3, 1, 1),
                nn.LeakyReLU(0.2, inplace=True),
                SpectralConv2d(hidden, hidden, 4, 2, 1),
                nn.LeakyReLU(0.2, inplace=True),
                SpectralConv2d(hidden, 1, 3, 1, 1),
            )
            for _ in channels
        )

    def forward(self, features: list[Tensor], mask: Tensor) -> list[Tensor]:
        """Features of the backbone, mask (B, 1, H, W) in [0, 1] -> logits (B, 1, h, w) per scale."""
        logits = []
        for feature, head in zip(self.project(features), self.heads, strict=True):
            if self.mask_channel:
                pooled = F.adaptive_avg_pool2d(mask.to(feature.dtype), (feature.shape[-2], feature.shape[-1]))
                feature = torch.cat([feature, pooled], dim=1)
            logits.append(head(feature))
        return logits


class FrozenBackbone(nn.Module):
    """Feature maps of an ImageNet network for images in [-1, 1]; no parameter learns, gradients reach the image.

    Inputs smaller than `min_side` are enlarged to it: the network has never seen animals of 96 px.
    """

    recomputes = False

    def __init__(self, features: nn.Module, min_side: int = 128) -> None:
        super().__init__()
        self.features = _for_inference(features).to(memory_format=torch.channels_last)
        self.min_side = min_side

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stays in eval mode: its batch-norm statistics are part of the frozen network."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> feature maps, finest first."""
        side = min(image.shape[-2:])
        if side < self.min_side:
            image = F.interpolate(image, scale_factor=self.min_side / side, mode="bilinear", align_corners=False)
        image = image.contiguous(memory_format=torch.channels_last)
        out: list[Tensor] = recompute(self.features, image, enabled=self.recomputes and image.requires_grad)
        return out


class _Depthwise(nn.Module):
    """A depthwise convolution that is computed in float32 where a gradient goes through it on a CPU: the backward pass
    of its bfloat16 is slower than all the rest of such a network."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.requires_grad:
            return cast(Tensor, self.conv(x))
        with torch.autocast("cpu", enabled=False):
            return cast(Tensor, self.conv(x.float())).to(x.dtype)


def _for_inference(features: nn.Module) -> nn.Module:
    """A copy of `features` that nobody trains: each batch norm folded into the convolution before it."""
    features = copy.deepcopy(features).eval().requires_grad_(False)
    before: nn.Module | None = None
    for name, layer in list(features.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            if not isinstance(before, nn.Conv2d) or before.out_channels != layer.num_features:
                raise ValueError(f"{name}: expected a convolution to {layer.num_features} channels before it")
            fused = fuse_conv_bn_eval(before, layer)
            before.weight, before.bias = fused.weight.requires_grad_(False), fused.bias
            features.set_submodule(name, cast(nn.Module, getattr(layer, "act", nn.Identity())))
            before = None
        elif isinstance(layer, nn.Conv2d):
            before = layer
    for name, layer in list(features.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            features.set_submodule(name, _Depthwise(layer))
    return features
