"""A set generator in four parts of fixed shapes: whatever the number of instances, each part is compiled once.

::

    image  -> image_encoder -> features ---+
    mask_n -> mask_encoder  -> features_n  |  (sum over n: total)
    features, total -> image_decoder -> painted, context
    features_n, context -> mask_decoder -> matte_n

The first convolution of the mask decoder sees [mask; image; total]. A convolution is linear, so what image and total
add to it, the same for every mask, is computed once in a step, by the image decoder: that is `context`. Where that does
not pay, there is none, and the mask decoder takes the features of image and set themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instapipe.networks.blocks import UpsampleConv
from instapipe.networks.generator import PaperDecoder, SetGenerator
from instapipe.translation.engines.rewrite import rewrite
from instapipe.translation.engines.tiled import OnMaps, for_maps

Array = NDArray[np.float32]
Part = Callable[..., tuple[Array, ...]]
"""A part that can be called: float32 arrays with a batch dimension of 1 in, the same out."""
Shape = tuple[int, int, int, int]

NAMES = ("image_encoder", "mask_encoder", "image_decoder", "mask_decoder")
VERSION = 3
"""Of the parts' form: part of the key of everything that is compiled from them."""


class ImageDecoder(nn.Module):
    """Features of image and set -> the image, and the context of the mask decoder."""

    def __init__(self, decoder: nn.Module, context: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.context = context
        self.channels = 1

    def forward(self, features: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Twice (1, C, h, w) -> (1, 3, H, W), context."""
        both = torch.cat([features, total], dim=self.channels)
        return self.decoder(both), self.context(both)


class MaskDecoder(nn.Module):
    """Features of one mask and the context -> the mask."""

    def __init__(self, first: nn.Module, after: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.after = after
        self.rest = rest

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """(1, C, h, w), context -> (1, 1, H, W)."""
        out: Tensor = torch.tanh(self.rest(self.after(self.first(features) + context)))
        return out


class Joined(nn.Module):
    """A decoder of several feature maps."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, *features: Tensor) -> Tensor:
        """Each (1, C, h, w) -> (1, outputs, H, W)."""
        out: Tensor = self.decoder(torch.cat(features, dim=1))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The four parts, in eval mode without gradients, and the aggregation between them.

    context: channels of the mask decoder's context and its side / that of the features; None where there is none.
    """

    modules: Mapping[str, nn.Module]
    aggregate: nn.Module
    features: int
    context: tuple[int, int] | None

    def shapes(self, size: tuple[int, int]) -> dict[str, tuple[Shape, ...]]:
        """What each part takes for images of `size` (H, W)."""
        height, width = size
        small: Shape = (1, self.features, height // 4, width // 4)
        context: tuple[Shape, ...] = (small, small)
        if self.context is not None:
            channels, larger = self.context
            context = ((1, channels, larger * small[2], larger * small[3]),)
        return {
            "image_encoder": ((1, 3, height, width),),
            "mask_encoder": ((1, 1, height, width),),
            "image_decoder": (small, small),
            "mask_decoder": (small, *context),
        }


def split(generator: SetGenerator, *, shared: bool = True, keep_transposed: bool = False, maps: bool = False) -> Parts:
    """The parts of `generator`; its own weights stay as they are.

    shared: with a context, and with upsampling in its cheaper form. It saves multiplications and costs transfers:
    worth it in float32, not where multiplications are as cheap as in bfloat16 on OpenVINO. Without, the mask decoder
    takes the features of one mask, of the image and of the set.
    keep_transposed: the last transposed convolutions stay, for which OpenVINO has a good kernel.
    maps: inside, everything is (H, W, C) and wide convolutions go by tiles (`tiled`): for torch in float32.
    """
    keep: list[nn.Module]
    own = copy.deepcopy(generator).eval().requires_grad_(False)
    features = 4 * own.config.width
    if shared:
        decoders = [d for d in (own.decoder_image, own.decoder_mask) if keep_transposed and isinstance(d, PaperDecoder)]
        keep = [layer for d in decoders for layer in d.up2 if isinstance(layer, nn.ConvTranspose2d)]
        image_decoder, mask_decoder = _with_context(own, features)
    else:
        keep = [layer for layer in own.modules() if isinstance(layer, (UpsampleConv, nn.ConvTranspose2d))]
        image_decoder, mask_decoder = Joined(own.decoder_image), Joined(own.decoder_mask)
    modules = {
        "image_encoder": own.encoder_image,
        "mask_encoder": own.encoder_mask,
        "image_decoder": image_decoder,
        "mask_decoder": mask_decoder,
    }
    context = _context_of(image_decoder) if isinstance(image_decoder, ImageDecoder) else None
    if maps:
        if not isinstance(image_decoder, ImageDecoder):
            raise ValueError("maps: only with a shared context")
        image_decoder.channels = 2
        made: dict[str, nn.Module] = {name: OnMaps(for_maps(module)) for name, module in modules.items()}
    else:
        made = {name: rewrite(module, keep) for name, module in modules.items()}
    return Parts({n: m.eval().requires_grad_(False) for n, m in made.items()}, own.aggregate, features, context)


def _with_context(own: SetGenerator, features: int) -> tuple[nn.Module, nn.Module]:
    """The decoders of `own`, the mask decoder's first convolution divided between them."""
    decoder = own.decoder_mask
    block: nn.Module
    if isinstance(decoder, PaperDecoder):
        block, rest = decoder.up1, nn.Sequential(decoder.up2, decoder.out)
    else:
        block = decoder.get_submodule("fuse")
        rest = nn.Sequential(*(decoder.get_submodule(name) for name in ("blocks", "up1", "up2", "out")))
    conv, *norm_relu = block.children()
    first, context = divided(conv, features)
    return ImageDecoder(own.decoder_image, context), MaskDecoder(first, nn.Sequential(*norm_relu), rest)


def divided(conv: nn.Module, inputs: int) -> tuple[nn.Module, nn.Module]:
    """A convolution, transposed or not, as two whose outputs add up to its own: of the first `inputs` channels, without
    bias, and of the others, with it."""
    if not isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)):
        raise TypeError(f"expected a convolution, got {type(conv).__name__}")
    axis = 0 if isinstance(conv, nn.ConvTranspose2d) else 1
    weights = torch.split(conv.weight.detach(), [inputs, conv.in_channels - inputs], dim=axis)
    halves: list[nn.Module] = []
    for weight, bias in zip(weights, (None, conv.bias), strict=True):
        half = copy.deepcopy(conv)
        half.in_channels = weight.shape[axis]
        half.weight = nn.Parameter(weight.clone(), requires_grad=False)
        half.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        halves.append(half)
    return halves[0], halves[1]


def run_step(parts: Mapping[str, Part], aggregate: nn.Module, image: Array, masks: Array) -> tuple[Array, Array]:
    """One step through compiled parts.

    image: (3, H, W) in [-1, 1].  masks: (N, H, W) in [-1, 1], N >= 1.  Returns the same shapes.
    """
    (features,) = parts["image_encoder"](image[None])
    encoded = [parts["mask_encoder"](mask[None, None])[0] for mask in masks]
    valid = torch.ones(1, len(encoded), dtype=torch.bool)
    with torch.inference_mode():
        total: Array = aggregate(torch.from_numpy(np.stack(encoded, axis=1)), valid).numpy()
    painted, *shared = parts["image_decoder"](features, total)
    context = shared or (features, total)
    mattes = [parts["mask_decoder"](one, *context)[0] for one in encoded]
    return painted[0], np.concatenate(mattes)[:, 0]


def _context_of(decoder: ImageDecoder) -> tuple[int, int]:
    """Channels of the context that `decoder` makes, and how much larger than the features it is."""
    conv = decoder.context
    assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d))
    return conv.out_channels, 2 if isinstance(conv, nn.ConvTranspose2d) else 1
