"""The yardstick: a plain reading of the original, with its costs and its results, in torch as it is installed.

One mask after the other through the encoder and the decoder, the image encoder anew in each step, batch 1, float32. Its
test program translates both ways and back again, so that a step costs four passes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instapipe.networks.blocks import NarrowConv2d, SpectralConv2d, UpsampleConv
from instapipe.networks.discriminator import SetDiscriminator
from instapipe.networks.generator import SetGenerator
from instapipe.networks.layers import DoublingConv2d, InstanceNorm, ReflectedConv2d
from instapipe.training.step import InstaGAN
from instapipe.translation.engines.rewrite import as_written

Array = NDArray[np.float32]
PASSES_AS_TESTED = 4
"""Source to target, back to the source, and the same from the target's photo."""


class PlainGenerator:
    """`generator` as the original runs it."""

    def __init__(self, generator: SetGenerator) -> None:
        self._network = copy.deepcopy(generator).float().eval().requires_grad_(False)
        plain_layers(self._network)
        self._network.to(next(generator.parameters()).device)

    @torch.no_grad()
    def step(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """image (1, 3, H, W), masks (1, N, H, W), both in [-1, 1] -> the same shapes."""
        own = self._network
        encoded_image = own.encoder_image(image)
        encoded = [own.encoder_mask(masks[:, index : index + 1]) for index in range(masks.shape[1])]
        total = torch.zeros_like(encoded_image)
        for features in encoded:
            total = total + features
        painted = own.decoder_image(torch.cat([encoded_image, total], dim=1))
        mattes = [own.decoder_mask(torch.cat([features, encoded_image, total], dim=1)) for features in encoded]
        return painted, torch.cat(mattes, dim=1)

    def run(self, image: Array, masks: Array) -> tuple[Array, Array]:
        """The same on float32 (3, H, W) and (N, H, W)."""
        painted, mattes = self.step(torch.from_numpy(image)[None], torch.from_numpy(masks)[None])
        return painted[0].numpy(), mattes[0].numpy()


def loop(run: Callable[[Array, Array], tuple[Array, Array]], image: Array, masks: Array, per_step: int) -> list[Array]:
    """The source-to-target loop of a whole photo: each step starts from the last one's image.

    Returns the last image and all mattes, (3, H, W) and (N, H, W).
    """
    mattes = []
    for first in range(0, len(masks), per_step):
        image, some = run(np.ascontiguousarray(image), masks[first : first + per_step])
        mattes.append(some)
    return [image, np.concatenate(mattes)]


def plain_layers(module: nn.Module) -> None:
    """Layers that compute their function in a cheaper form become those that they are written as, in place."""
    for name, child in module.named_children():
        if isinstance(child, UpsampleConv):
            setattr(module, name, as_written(child))
        elif isinstance(child, NarrowConv2d):
            kernel = child.kernel_size[0]
            conv = nn.Conv2d(child.in_channels, child.out_channels, kernel, padding=kernel // 2, padding_mode="reflect")
            conv.load_state_dict(child.state_dict())
            setattr(module, name, conv)
        elif isinstance(child, SpectralConv2d):
            child.__class__ = DividedConv2d
        elif isinstance(child, ReflectedConv2d):
            child.__class__ = nn.Conv2d
        elif isinstance(child, DoublingConv2d):
            child.__class__ = nn.ConvTranspose2d
        elif isinstance(child, InstanceNorm):
            child.__class__ = nn.InstanceNorm2d
        else:
            plain_layers(child)


class DividedConv2d(SpectralConv2d):
    """Divides its weight anew in each forward, as the original does."""

    def convolve(self, x: Tensor, sigma: Tensor, places: Tensor | None = None) -> Tensor:
        """See the base; `places` must be None."""
        assert places is None
        return nn.functional.conv2d(x, self.weight / sigma, self.bias, self.stride, self.padding)


class InTurn(SetDiscriminator):
    """Runs one batch after the other, as the original does."""

    def in_a_row(self, inputs: Sequence[tuple[Tensor, Tensor, Tensor, int | None]]) -> tuple[Tensor, ...]:
        """See the base."""
        return tuple(super(InTurn, self).in_a_row([each])[0] for each in inputs)


class OneByOne(nn.Module):
    """Runs a module on one mask after the other, as the original does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, masks: Tensor, *_: object) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        return torch.cat([self.module(mask[None]) for mask in masks])


def as_original(networks: InstaGAN) -> None:
    """Let generators and set discriminators of a training step take their masks, and real and translated samples, one
    after the other, by layers as they are written."""
    for generator in (networks.source_to_target, networks.target_to_source):
        plain_layers(generator)
        generator.encoder_mask = OneByOne(generator.encoder_mask)  # type: ignore[assignment]
        generator.decoder_mask = OneByOne(generator.decoder_mask)
    for critic in (networks.critic_source, networks.critic_target):
        plain_layers(critic)
        critic.patches.__class__ = InTurn
        critic.patches.features_mask = OneByOne(critic.patches.features_mask)  # type: ignore[assignment]
