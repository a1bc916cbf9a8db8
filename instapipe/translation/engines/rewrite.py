"""Layers in a form that costs less on a CPU and computes the same function, up to rounding.

Each is built from the layer that it replaces and holds weights rearranged once; none can be trained.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instapipe.networks.blocks import NarrowConv2d, UpsampleConv


class NarrowConv(nn.Module):
    """The two convolutions of :class:`NarrowConv2d`, their weights laid out once, the shifted sum a convolution too."""

    def __init__(self, conv: NarrowConv2d) -> None:
        super().__init__()
        outputs, inputs, kernel, _ = conv.weight.shape
        self.pad = kernel // 2
        self.columns = nn.Conv2d(inputs, kernel * outputs, (kernel, 1), bias=False)
        self.sum = nn.Conv2d(kernel * outputs, outputs, (1, kernel))
        shift = torch.eye(kernel)[:, None, :, None] * torch.eye(outputs)[None, :, None, :]  # (shift, out, column, out')
        with torch.no_grad():
            self.columns.weight.copy_(conv.columns())
            self.sum.weight.copy_(shift.permute(1, 2, 3, 0).reshape(outputs, kernel * outputs, 1, kernel))
            _copy_bias(self.sum, conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        padded = F.pad(x, (self.pad, self.pad, self.pad, self.pad), mode="reflect")
        out: Tensor = self.sum(self.columns(padded))
        return out


class PhaseConv(nn.Module):
    """Upsampling by two: each of the four pixels that one pixel becomes has a small convolution of its own.

    Replaces a transposed 3x3 convolution of stride 2 (1, 2, 2 and 4 taps: the zeros between the pixels are never
    there), and a nearest-neighbour enlargement with a 3x3 convolution (4 taps each instead of 9: what falls on the
    same pixel is added up beforehand).
    """

    def __init__(self, kernels: dict[tuple[int, int], Tensor], starts: tuple[int, int], bias: Tensor | None) -> None:
        """kernels: by (row, column) parity, (C', C, h, w).  starts: the first tap's offset at parity 0 and 1."""
        super().__init__()
        self.pads: list[list[int]] = []
        self.phases = nn.ModuleList()
        for (row, column), kernel in sorted(kernels.items()):
            conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], (kernel.shape[2], kernel.shape[3]))
            with torch.no_grad():
                conv.weight.copy_(kernel)
                _copy_bias(conv, bias)
            self.phases.append(conv)
            left, top = -starts[column], -starts[row]
            self.pads.append([left, kernel.shape[3] - 1 - left, top, kernel.shape[2] - 1 - top])

    @classmethod
    def of_transposed(cls, conv: nn.ConvTranspose2d) -> PhaseConv:
        """For kernel 3, stride 2, padding 1 and 1 more at the end.

        Pixel 2i is w1 x[i], pixel 2i + 1 is w2 x[i] + w0 x[i + 1].
        """
        weight = conv.weight.detach().transpose(0, 1)  # (C', C, 3, 3)
        taps = ([1], [2, 0])
        kernels = {(r, c): weight[:, :, taps[r]][:, :, :, taps[c]] for r in (0, 1) for c in (0, 1)}
        return cls(kernels, (0, 0), conv.bias)

    @classmethod
    def of_upsample(cls, layer: UpsampleConv) -> PhaseConv:
        """By the four kernels that the layer itself computes with, each over the part of the photo that it needs."""
        phases = layer.phases().detach()
        kernels = {(r, c): phases[r, c] for r in (0, 1) for c in (0, 1)}
        return cls(kernels, (-1, 0), layer.conv.bias)

    @staticmethod
    def replaces(layer: nn.Module) -> bool:
        """Whether `layer` is a transposed convolution that this one can run."""
        return (
            isinstance(layer, nn.ConvTranspose2d)
            and layer.kernel_size == (3, 3)
            and layer.stride == (2, 2)
            and layer.padding == (1, 1)
            and layer.output_padding == (1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2H, 2W)."""
        four = [conv(F.pad(x, pad) if any(pad) else x) for conv, pad in zip(self.phases, self.pads, strict=True)]
        return F.pixel_shuffle(torch.stack(four, dim=2).flatten(1, 2), 2)


def rewrite(module: nn.Module, keep: Collection[nn.Module] = ()) -> nn.Module:
    """`module` with every layer replaced, in place, that has a cheaper form here, but none of those in `keep`: they are
    run as they are written.

    Returns it, or its replacement.
    """
    if module in keep:
        return as_written(module) if isinstance(module, UpsampleConv) else module
    if isinstance(module, UpsampleConv):
        return PhaseConv.of_upsample(module)
    if isinstance(module, nn.ConvTranspose2d) and PhaseConv.replaces(module):
        return PhaseConv.of_transposed(module)
    if isinstance(module, NarrowConv2d):
        return NarrowConv(module)
    for name, child in module.named_children():
        setattr(module, name, rewrite(child, keep))
    return module


def as_written(layer: UpsampleConv) -> nn.Module:
    """The enlargement, then the convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), layer.conv)


def _copy_bias(conv: nn.Conv2d, bias: Tensor | None) -> None:
    """`bias` into `conv`, zeros where there is none. Under no_grad."""
    assert conv.bias is not None
    if bias is None:
        conv.bias.zero_()
    else:
        conv.bias.copy_(bias)
