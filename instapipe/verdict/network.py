"""The judge's network: one backbone, dense maps from which instances are grouped, and a classifier of crops.

Bottom-up instance segmentation after Panoptic-DeepLab (Cheng et al., CVPR 2020): a semantic map, a heat map of
instance centres and, for every pixel, the offset to the centre of its instance. It shares nothing with the top-down
Mask R-CNN that makes the masks, nor with the EfficientNet-lite0 features that the translator is trained against.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

import timm
from torch import Tensor, nn
from torch.nn import functional

from instapipe.networks.backbone import match_in_order, read_published

STRIDE = 4
"""Input pixels per pixel of the dense maps."""
COARSEST = 32
"""Input sides are multiples of this."""
OFFSET_UNIT = 64.0
"""Offsets are predicted in this many input pixels."""
MEAN, STD = 0.5, 0.5
"""EfficientNet-lite was trained on (x - 0.5) / 0.5."""


@dataclass(frozen=True, slots=True)
class DenseMaps:
    """Maps at 1/STRIDE of the input.

    semantic: (B, 1 + classes, h, w) logits, background first.  centre: (B, 1, h, w) logit of being a centre.
    offset: (B, 2, h, w), (y, x) to the instance's centre, in units of OFFSET_UNIT input pixels.
    """

    semantic: Tensor
    centre: Tensor
    offset: Tensor


class Separable(nn.Sequential):
    """5x5 depthwise and 1x1 convolution, group norm, ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False),
            nn.Conv2d(channels, out, 1, bias=False),
            nn.GroupNorm(8, out),
            nn.ReLU(inplace=True),
        )


class Trunk(nn.Module):
    """EfficientNet-lite1 without its last stage and head; batch norm stays as ImageNet left it.

    The stem and the first two stages are never trained: with a few hundred photos they have nothing to learn.
    """

    backbone = "tf_efficientnet_lite1"
    channels = (24, 40, 112, 192)
    """Of the maps at strides 4, 8, 16 and 32."""
    taps = (1, 2, 4, 5)
    """The stages that these maps come from."""
    frozen_stages = 2

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__()
        whole: Any = timm.create_model(self.backbone, pretrained=False)
        if pretrained:
            published = read_published(self.backbone)
            whole.load_state_dict(match_in_order(published, whole.state_dict(), self.backbone))
        self.stem = nn.Sequential(OrderedDict(conv=whole.conv_stem, norm=whole.bn1))
        self.stages = nn.ModuleList(list(cast(nn.Sequential, whole.blocks))[: self.taps[-1] + 1])
        for part in (self.stem, *self.stages[: self.frozen_stages]):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Trunk:
        """Batch norm keeps its ImageNet statistics: batches here are too small to renew them."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, channels, h, w) maps at strides 4, 8, 16, 32 of (B, 3, H, W) in [-1, 1]."""
        features = self.stem(image)
        maps = []
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if number in self.taps:
                maps.append(features)
        return maps


class JudgeNetwork(nn.Module):
    """`forward` for photos, `classify` for crops; both take float (B, 3, H, W) in [-1, 1], sides multiples of 32."""

    def __init__(
        self, classes: int, *, width: int = 128, head_width: int = 64, crop_width: int = 512, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.trunk = Trunk(pretrained)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in Trunk.channels)
        self.context = nn.Linear(Trunk.channels[-1], width)
        self.merges = nn.ModuleList(Separable(width, width) for _ in Trunk.channels)
        self.semantic = nn.Sequential(Separable(width, head_width), nn.Conv2d(head_width, 1 + classes, 1))
        self.centre = nn.Sequential(Separable(width, head_width), nn.Conv2d(head_width, 1, 1))
        self.offset = nn.Sequential(Separable(width, head_width), nn.Conv2d(head_width, 2, 1))
        self.crop_features = nn.Conv2d(Trunk.channels[-1], crop_width, 1)
        self.crop_classes = nn.Linear(crop_width, 1 + classes)
        # Few pixels are centres: start from a low probability, or the first steps learn nothing but that.
        cast(Tensor, cast(nn.Conv2d, self.centre[1]).bias).data.fill_(-4.0)

    def forward(self, image: Tensor) -> DenseMaps:
        """Dense maps of whole photos."""
        maps = self.trunk(image)
        context = self.context(maps[-1].mean(dim=(2, 3)))[:, :, None, None]
        merged = self.merges[-1](self.laterals[-1](maps[-1]) + context)
        for level in range(len(maps) - 2, -1, -1):
            finer = self.laterals[level](maps[level])
            up = functional.interpolate(merged, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            merged = self.merges[level](finer + up)
        return DenseMaps(self.semantic(merged), self.centre(merged), self.offset(merged))

    def embed(self, crops: Tensor) -> Tensor:
        """(B, crop_width) features of crops: what the distances of :mod:`instapipe.evaluation` are taken in."""
        return functional.relu(self.crop_features(self.trunk(crops)[-1])).mean(dim=(2, 3))

    def classify(self, crops: Tensor) -> Tensor:
        """(B, 1 + classes) logits of crops, background first."""
        logits: Tensor = self.crop_classes(self.embed(crops))
        return logits
