"""Features of crops and of whole photos, each under a name that says what made them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from instapipe.errors import EngineError, WeightsError
from instapipe.structures import BoolMask, Mask, Pixels
from instapipe.verdict.detector import Judge, fit, square_crop

GREY = 128


class FeatureNetwork(Protocol):
    """Crops to vectors. `name` stands beside every figure that is made of them."""

    name: str

    def __call__(self, crops: Sequence[Pixels]) -> NDArray[np.float32]:
        """uint8 (S, S, 3) each -> float32 (N, d)."""
        ...


class JudgeFeatures:
    """The judge's own: fit for the classes it knows, independent of what the translator was trained against."""

    def __init__(self, judge: Judge) -> None:
        self.name = judge.name
        self._judge = judge

    def __call__(self, crops: Sequence[Pixels]) -> NDArray[np.float32]:
        return self._judge.embed(crops)


class InceptionFeatures:
    """The 2,048 features of Inception v3 that FID and KID are defined on, from a weights file at hand.

    The network is that of torch-fidelity (as in torchmetrics and clean-fid); nothing is downloaded.
    """

    name = "inception-2048"

    def __init__(self, weights: Path) -> None:
        try:
            module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        except ImportError as error:
            raise EngineError("Inception features need torch-fidelity: pip install torch-fidelity") from error
        if not weights.is_file():
            raise WeightsError(f"no Inception weights at {str(weights)!r} (pt_inception-2015-12-05-6726825d.pth)")
        build = module.FeatureExtractorInceptionV3
        self._network = build("inception", ["2048"], feature_extractor_weights_path=str(weights))
        self._network.eval()

    @torch.inference_mode()
    def __call__(self, crops: Sequence[Pixels]) -> NDArray[np.float32]:
        found = []
        for start in range(0, len(crops), 16):
            batch = torch.from_numpy(np.stack(crops[start : start + 16])).permute(0, 3, 1, 2)
            found.append(self._network(batch)[0].numpy())
        return np.concatenate(found) if found else np.zeros((0, 2048), np.float32)


def cut_out(pixels: Pixels, mask: Mask, side: int = 128) -> Pixels:
    """The instance alone on grey, uint8 (side, side, 3): the square around its box, all else painted over."""
    alone = np.full_like(pixels, GREY)
    x0, y0, x1, y1 = mask.box
    alone[y0:y1, x0:x1][mask.crop] = pixels[y0:y1, x0:x1][mask.crop]
    return square_crop(alone, mask.box, side)


@torch.inference_mode()
def perceptual_distance(judge: Judge, before: Pixels, after: Pixels, outside: BoolMask) -> float:
    """LPIPS-like: mean over layers of the squared difference of unit-length features, where `outside` is true.

    The form is that of Zhang et al. (CVPR 2018) with equal weights on the channels; the features are those of the
    judge's trunk, so values are not those of LPIPS. NaN where nothing is outside.
    """
    if not outside.any():
        return float("nan")
    images = []
    for pixels in (before, after):
        sized, _ = fit(pixels, judge.card.side)
        images.append(torch.from_numpy(sized))
    _, (height, width) = fit(before, judge.card.side)
    batch = torch.stack(images).permute(0, 3, 1, 2).float().to(judge.device) / 127.5 - 1
    weight = np.zeros(batch.shape[-2:], np.float32)
    weight[:height, :width] = cv2.resize(outside.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    region = torch.from_numpy(weight)[None, None].to(judge.device)
    total = 0.0
    maps = judge.network.trunk(batch)
    for features in maps:
        unit = functional.normalize(features, dim=1)
        difference = ((unit[0] - unit[1]) ** 2).sum(dim=0)
        share = functional.adaptive_avg_pool2d(region, features.shape[-2:])[0, 0]
        total += float((difference * share).sum() / share.sum().clamp(min=1e-6))
    return total / len(maps)
