"""The compact Mask R-CNN: EfficientNet-lite, a feature pyramid, light heads. About 5 million parameters.

It differs from torchvision's in what animals and a CPU ask for: objects are looked for from 1/8 of the resolution on
(no animal of interest is smaller there), while masks are read from 1/4 on, on a finer grid (legs); masks are
class-agnostic, since a horse's leg teaches what a zebra's looks like.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from instapipe.config import SegmenterCard, build
from instapipe.errors import WeightsError
from instapipe.networks.backbone import Features, pretrained_features
from instapipe.segmentation.rcnn import MAX_INSTANCES, MIN_SCORE, detect
from instapipe.segmentation.registry import compact_fingerprint
from instapipe.segmentation.settings import CompactSettings
from instapipe.structures import Instances, Mask, Photo

ANCHORS = tuple((side, int(side * 2**0.5)) for side in (32, 64, 128, 256))
"""Sides of the anchors at strides 8, 16, 32 and 64, pixels of the resized photo."""

HOLDS, PART = 0.8, 0.5
"""One that holds more than such a share of a better one of its class, or of which more than such a part is theirs
together, is dropped."""


class Pyramid(nn.Module):
    """Images (B, 3, H, W), normalised, to maps ``"0"`` (stride 4) to ``"3"`` (stride 32) and ``"pool"`` (stride 64)."""

    def __init__(self, features: Features, channels: int) -> None:
        super().__init__()
        self.features = features
        self.fpn = FeaturePyramidNetwork(list(features.channels), channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn(OrderedDict((str(i), m) for i, m in enumerate(self.features(images))))
        return maps

    def train(self, mode: bool = True) -> Pyramid:
        """BatchNorm keeps its ImageNet statistics: batches are too small to estimate them."""
        super().train(mode)
        self.features.eval()
        return self


class CoarseAnchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors on all maps but the finest."""

    def forward(self, image_list: Any, feature_maps: list[Tensor]) -> list[Tensor]:
        anchors: list[Tensor] = super().forward(image_list, feature_maps[1:])
        return anchors


class CoarseRPNHead(RPNHead):  # type: ignore[misc]
    """Proposals from all maps but the finest."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(x[1:])
        return objectness, deltas


class MaskHead(nn.Sequential):
    """(N, C, g, g) to (N, width, g, g)."""

    def __init__(self, channels: int, width: int, layers: int) -> None:
        widths = [channels] + [width] * layers
        blocks: list[nn.Module] = []
        for before, after in pairwise(widths):
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*blocks)
        initialise(self)


class MaskPredictor(nn.Module):
    """(N, width, g, g) to logits (N, classes, 2g, 2g), the same for every class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.logits = nn.Conv2d(width, 1, 1)
        initialise(self)
        nn.init.normal_(self.logits.weight, std=0.01)  # masks begin undecided

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(torch.relu(self.up(x)))
        return logits.expand(-1, self.classes, -1, -1)


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution in `module`, biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def compact_maskrcnn(settings: CompactSettings, classes: int, *, pretrained: bool = False) -> MaskRCNN:
    """The network for `classes` classes (without the background, which is index 0).

    pretrained: start from ImageNet features (raises WeightsError where their package is missing).
    """
    features = pretrained_features(settings.backbone) if pretrained else Features(settings.backbone)
    backbone = Pyramid(features, settings.channels)
    anchors = CoarseAnchors(ANCHORS, ((0.5, 1.0, 2.0),) * len(ANCHORS))
    box_grid = 7
    return MaskRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=CoarseRPNHead(settings.channels, anchors.num_anchors_per_location()[0]),
        box_roi_pool=MultiScaleRoIAlign(["1", "2", "3"], box_grid, sampling_ratio=2),
        box_head=TwoMLPHead(settings.channels * box_grid**2, settings.box_width),
        box_predictor=FastRCNNPredictor(settings.box_width, classes + 1),
        # A mask is read at twice the resolution that its box is judged at.
        mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], settings.mask_grid, sampling_ratio=2, canonical_scale=448),
        mask_head=MaskHead(settings.channels, settings.mask_width, settings.mask_layers),
        mask_predictor=MaskPredictor(settings.mask_width, classes + 1),
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        min_size=settings.short_side,
        max_size=settings.long_side,
        rpn_pre_nms_top_n_train=600,
        rpn_post_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=400,
        rpn_post_nms_top_n_test=200,
        rpn_batch_size_per_image=128,
        box_batch_size_per_image=64,
        box_score_thresh=MIN_SCORE,
        box_detections_per_img=MAX_INSTANCES,
    )


def settings_of(card: SegmenterCard) -> CompactSettings:
    """The form of the network that the card describes. Raises ConfigError."""
    return build(CompactSettings, card.settings, f"card of {card.name!r}: settings")


def load_network(card: SegmenterCard, folder: Path) -> MaskRCNN:
    """The network that the card describes, with its weights; raises WeightsError where they are not what it says."""
    path = folder / card.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read weights {str(path)!r}: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != card.sha256:
        raise WeightsError(f"{str(path)!r} is not what its card says: sha256 {digest}, expected {card.sha256}")
    model = compact_maskrcnn(settings_of(card), len(card.classes))
    try:
        model.load_state_dict({key: value.float() for key, value in load(data).items()})
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{str(path)!r} does not fit its card: {' '.join(str(error).split())[:300]}") from error
    return model


class CompactSegmenter:
    """A compact Mask R-CNN with its weights, on one device."""

    def __init__(self, card: SegmenterCard, folder: Path, device: str = "cpu") -> None:
        """Raises WeightsError where the file is missing, or is not what the card says."""
        self.name = card.name
        self.classes = card.classes
        self._card = card
        self._mirrored = settings_of(card).mirrored
        self._model = load_network(card, folder).eval().to(device)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the result; JSON."""
        return compact_fingerprint(self._card)

    def segment(self, photo: Photo) -> Instances:
        """Unfiltered instances of all classes, best first."""
        return without_parts(detect(self._model, photo.pixels, ("", *self.classes), mirrored=self._mirrored))


def without_parts(instances: Instances) -> Instances:
    """Best first, without those that are parts of better ones of their class, or hold one (:data:`HOLDS`).

    Half an animal beside the whole one, or the halves of two as a third: their boxes overlap too little for the
    network's own suppression. Neighbours in a crowd hardly hold one another's pixels.
    """
    kept: list[int] = []
    for i, mask in enumerate(instances.masks):
        better = [instances.masks[j] for j in kept if instances.labels[j] == instances.labels[i]]
        held = any(taken(other, [mask]) > HOLDS * other.area for other in better)
        if not held and taken(mask, better) <= PART * mask.area:
            kept.append(i)
    chosen = instances.select(kept)
    return Instances(chosen.size, chosen.masks, chosen.labels, chosen.scores)


def taken(mask: Mask, others: Sequence[Mask]) -> int:
    """Pixels of `mask` that any of `others` has; of large photos by every k-th row and column."""
    step = max(1, max(mask.size) // 1000)
    x0, y0, x1, y1 = mask.box
    theirs = np.zeros_like(mask.crop)
    for other in others:
        left, top = max(x0, other.box[0]), max(y0, other.box[1])
        right, bottom = min(x1, other.box[2]), min(y1, other.box[3])
        if left < right and top < bottom:
            x, y = other.box[:2]
            theirs[top - y0 : bottom - y0, left - x0 : right - x0] |= other.crop[
                top - y : bottom - y, left - x : right - x
            ]
    return int(np.count_nonzero(mask.crop[::step, ::step] & theirs[::step, ::step])) * step**2
