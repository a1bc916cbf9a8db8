"""The set discriminator (PAPER.md, Networks): a PatchGAN over an image and the sum of its masks' features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from instapipe.networks.blocks import SpectralConv2d, recompute, scatter_valid
from instapipe.networks.layers import InstanceNorm

AT_ONCE = 4
"""So many masks of a sample go through the discriminator at once; of larger sets, part by part."""


class Extractor(nn.Sequential):
    """Three 4x4 stride-2 convolutions: width, 2 width, 4 width channels at 1/8 resolution."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(
            SpectralConv2d(inputs, width, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            SpectralConv2d(width, 2 * width, 4, 2, 1),
            InstanceNorm(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            SpectralConv2d(2 * width, 4 * width, 4, 2, 1),
            InstanceNorm(4 * width),
            nn.LeakyReLU(0.2, inplace=True),
        )

    recomputes = False

    def forward(self, x: Tensor, places: Tensor | None = None, repeats: int = 1, again: bool = False) -> Tensor:
        """(B, C, H, W) -> (B, 4 width, H/8, W/8); `places` as in :class:`SpectralConv2d`.

        repeats: how many forwards in a row this stands for.  again: as if it had `recomputes`.
        """
        return recompute(self._layers, x, places, *self.sigmas(repeats), enabled=self.recomputes or again)

    def sigmas(self, repeats: int) -> list[Tensor]:
        """Of each convolution, for `repeats` forwards in a row."""
        return [layer.sigmas(repeats) for layer in self if isinstance(layer, SpectralConv2d)]

    def _layers(self, x: Tensor, places: Tensor | None, *sigmas: Tensor) -> Tensor:
        return _through(self, x, places, sigmas)


class SetDiscriminator(nn.Module):
    """Scores patches of (image, set of masks): real or translated."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.features_image = Extractor(3, width)
        self.features_mask = Extractor(1, width)
        self.classifier = nn.Sequential(
            SpectralConv2d(8 * width, 16 * width, 4, 1, 1),
            InstanceNorm(16 * width),
            nn.LeakyReLU(0.2, inplace=True),
            SpectralConv2d(16 * width, 1, 4, 1, 1),
        )

    def forward(self, image: Tensor, masks: Tensor, valid: Tensor, most: int | None = None) -> Tensor:
        """image (B, 3, H, W), masks (B, N, H, W), valid bool (B, N) -> scores (B, 1, H/8 - 2, W/8 - 2).

        most: the largest number of masks in the batch that this one is a part of: the spectral-norm vectors advance
        as often in every part.
        """
        (scores,) = self.in_a_row([(image, masks, valid, most)])
        return scores

    def in_a_row(self, inputs: Sequence[tuple[Tensor, Tensor, Tensor, int | None]]) -> tuple[Tensor, ...]:
        """The scores of several batches of one size of image, as one forward after the other would give them.

        They go through as one batch: the classifier has so many weights that reading them is what takes the time.
        """
        images = torch.cat([image for image, *_ in inputs])
        sizes, count = [len(image) for image, *_ in inputs], len(inputs)
        places = None
        if count > 1:
            places = torch.cat([torch.full((size,), k, device=images.device) for k, size in enumerate(sizes)])
        image_features = self.features_image(images, places, count)
        of_sets = [
            self._of_set(masks, valid, most, like=part)
            for (_, masks, valid, most), part in zip(inputs, torch.split(image_features, sizes), strict=True)
        ]
        features = torch.cat([image_features, torch.cat(of_sets)], dim=1)
        sigmas = [layer.sigmas(count) for layer in self.classifier if isinstance(layer, SpectralConv2d)]
        return tuple(torch.split(_through(self.classifier, features, places, sigmas), sizes))

    def _of_set(self, masks: Tensor, valid: Tensor, most: int | None, like: Tensor) -> Tensor:
        """The sum of the valid masks' features; zeros where there is none.

        Large sets go part by part, and what is inside a part is computed again for its gradients: what is kept for them
        hardly grows with the set.
        """
        places = valid.cumsum(dim=1) - 1  # the original runs one mask after the other
        count = max(int(valid.sum(dim=1).max()), most or 0)
        total = torch.zeros_like(like)
        for first in range(0, count, AT_ONCE):
            repeats = min(AT_ONCE, count - first)
            chosen = valid & (places >= first) & (places < first + repeats)
            if bool(chosen.any()):
                part = masks[chosen].unsqueeze(1), places[chosen] - first
                features = self.features_mask(*part, repeats, count > AT_ONCE)
                total = total + scatter_valid(features, chosen).sum(dim=1)
            else:
                self.features_mask.sigmas(repeats)
        return total


def _through(layers: nn.Sequential, x: Tensor, places: Tensor | None, sigmas: Sequence[Tensor]) -> Tensor:
    """One layer after the other, each spectral-norm convolution by its own of `sigmas`."""
    rest = iter(sigmas)
    for layer in layers:
        x = layer.convolve(x, next(rest), places) if isinstance(layer, SpectralConv2d) else layer(x)
    return x
