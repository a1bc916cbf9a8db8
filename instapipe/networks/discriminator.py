"""The set discriminator (PAPER.md, Networks): a PatchGAN over an image and the sum of its masks' features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instapipe.networks.blocks import SpectralConv2d, recompute, scatter_valid


class Extractor(nn.Sequential):
    """Three 4x4 stride-2 convolutions: width, 2 width, 4 width channels at 1/8 resolution."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(
            SpectralConv2d(inputs, width, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            SpectralConv2d(width, 2 * width, 4, 2, 1),
            nn.InstanceNorm2d(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            SpectralConv2d(2 * width, 4 * width, 4, 2, 1),
            nn.InstanceNorm2d(4 * width),
            nn.LeakyReLU(0.2, inplace=True),
        )

    recomputes = False

    def forward(self, x: Tensor, places: Tensor | None = None, repeats: int | None = None) -> Tensor:
        """(B, C, H, W) -> (B, 4 width, H/8, W/8); `places` as in :class:`SpectralConv2d`.

        repeats: how many forwards in a row this stands for, if more than `places` tells.
        """
        if repeats is None:
            repeats = 1 if places is None else int(places.max()) + 1
        return recompute(self._layers, x, places, *self.sigmas(repeats), enabled=self.recomputes)

    def sigmas(self, repeats: int) -> list[Tensor]:
        """Of each convolution, for `repeats` forwards in a row."""
        return [layer.sigmas(repeats) for layer in self if isinstance(layer, SpectralConv2d)]

    def _layers(self, x: Tensor, places: Tensor | None, *sigmas: Tensor) -> Tensor:
        rest = iter(sigmas)
        for layer in self:
            x = layer.convolve(x, next(rest), places) if isinstance(layer, SpectralConv2d) else layer(x)
        return x


class SetDiscriminator(nn.Module):
    """Scores patches of (image, set of masks): real or translated."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.features_image = Extractor(3, width)
        self.features_mask = Extractor(1, width)
        self.classifier = nn.Sequential(
            SpectralConv2d(8 * width, 16 * width, 4, 1, 1),
            nn.InstanceNorm2d(16 * width),
            nn.LeakyReLU(0.2, inplace=True),
            SpectralConv2d(16 * width, 1, 4, 1, 1),
        )

    def forward(self, image: Tensor, masks: Tensor, valid: Tensor, most: int | None = None) -> Tensor:
        """image (B, 3, H, W), masks (B, N, H, W), valid bool (B, N) -> scores (B, 1, H/8 - 2, W/8 - 2).

        most: the largest number of masks in the batch that this one is a part of: the spectral-norm vectors advance
        as often in every part.
        """
        image_features = self.features_image(image)
        if bool(valid.any()):
            places = (valid.cumsum(dim=1) - 1)[valid]  # the original runs one mask after the other
            mask_features = self.features_mask(masks[valid].unsqueeze(1), places, most)
            total = scatter_valid(mask_features, valid).sum(dim=1)
        else:
            if most:
                self.features_mask.sigmas(most)
            total = torch.zeros_like(image_features)
        scores: Tensor = self.classifier(torch.cat([image_features, total], dim=1))
        return scores
