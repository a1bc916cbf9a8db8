"""3x3 convolutions with fewer multiplications, exact up to rounding (Winograd's minimal filtering; Lavin and Gray,
CVPR 2016): tile by tile, as matrix products.

One dimension first. Some neighbouring outputs of a convolution are `A (G w * B x)`: x the inputs that they depend on, w
the three weights, * element by element, A, G and B constant matrices. Four outputs take six multiplications instead of
twelve; in two dimensions 36 instead of 144. The error grows with the numbers in the matrices, which depend on the
points that they are built on: with 0, +-sqrt(1/2), +-sqrt(2) and infinity it stays at 5e-6 where the usual 0, +-1, +-2
give 2e-5 and the plain convolution 1e-6 (256 channels, outputs of deviation 0.7).

A map lies here as (H, W, C), so that what is gathered are runs of C numbers; tiles go through in groups, so that the
memory does not grow with the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instapipe.networks.blocks import NarrowConv2d, UpsampleConv
from instapipe.translation.engines.rewrite import NarrowConv, PhaseConv

Matrix = NDArray[np.float64]

LEAST = 32
"""From so many channels on the products are worth the transformations around them."""
_GROUP = 1 << 21
"""Numbers in the largest array of a group of tiles: 8 MB, which stays in a processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Filtering:
    """A (G w * B x) for a tile in one dimension.

    after (outputs, products), weights (products, 3), before (products, inputs).  A tile begins `start` inputs after its
    first own one and owns `step` inputs.
    """

    after: Matrix
    weights: Matrix
    before: Matrix
    start: int
    step: int


def minimal(outputs: int, taps: int, points: tuple[float, ...]) -> tuple[Matrix, Matrix, Matrix]:
    """The matrices of `outputs` neighbours of a filter of `taps`, (outputs, p), (p, taps) and (p, p), on p - 1 finite
    points and infinity, p = outputs + taps - 1."""
    count = outputs + taps - 1
    if len(points) != count - 1:
        raise ValueError(f"points: expected {count - 1}, got {len(points)}")

    def values(columns: int) -> Matrix:
        return np.vstack([np.vander(np.array(points), columns, increasing=True), np.eye(columns)[-1:]])

    before = np.linalg.inv(values(count)).T
    size = np.abs(before).max(axis=1, keepdims=True)  # into the weights, which are multiplied once
    return values(outputs).T, values(taps) * size, before / size


def plain() -> Filtering:
    """A 3x3 convolution of stride 1."""
    root = 2**0.5
    after, weights, before = minimal(4, 3, (0.0, root, -root, 1 / root, -1 / root))
    return Filtering(after, weights, before, start=-1, step=4)


def enlarged() -> Filtering:
    """A nearest-neighbour enlargement by two and a 3x3 convolution: outputs 2i are w0 x[i - 1] + (w1 + w2) x[i], and
    2i + 1 are (w0 + w1) x[i] + w2 x[i + 1]; three of each take four multiplications."""
    after, weights, before = minimal(3, 2, (0.0, 1.0, -1.0))
    even = weights @ np.array([[1.0, 0, 0], [0, 1, 1]])
    odd = weights @ np.array([[1.0, 1, 0], [0, 0, 1]])
    nothing = np.zeros((4, 1))
    seen = np.vstack([np.hstack([before, nothing]), np.hstack([nothing, before])])
    outputs = np.zeros((6, 8))
    outputs[0::2, :4] = outputs[1::2, 4:] = after
    return Filtering(outputs, np.vstack([even, odd]), seen, start=-1, step=3)


class TiledConv(nn.Module):
    """A 3x3 convolution on maps (H, W, C)."""

    products: Tensor
    before: Tensor
    after: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, filtering: Filtering, *, reflect: bool) -> None:
        """weight: (C', C, 3, 3).  bias: (C',).  reflect: the border is mirrored, else it is 0."""
        super().__init__()
        self.start, self.step, self.reflect = filtering.start, filtering.step, reflect
        self.inputs, self.outputs = filtering.before.shape[1], filtering.after.shape[0]
        kernel = weight.detach().double().numpy()
        products = np.einsum("pi,qj,oxij->pqxo", filtering.weights, filtering.weights, kernel, optimize=True)
        constants = {
            "products": products.reshape(-1, *products.shape[2:]),
            "before": np.kron(filtering.before, filtering.before),
            "after": np.kron(filtering.after, filtering.after),
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)).float())
        self.register_buffer("bias", torch.zeros(weight.shape[0]) if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, C) -> (H', W', C')."""
        height, width, channels = x.shape
        rows, columns = (self._lines(length, x.device) for length in (height, width))  # (tiles, inputs)
        flat = x.reshape(-1, channels)
        if not self.reflect:
            flat = torch.cat([flat, flat.new_zeros(1, channels)])
        count, (points, _, new) = len(columns), self.products.shape
        out = x.new_empty(len(rows), self.outputs, count, self.outputs, new)
        group = max(1, _GROUP // (points * max(channels, new) * count))
        for first in range(0, len(rows), group):
            part = rows[first : first + group]
            places = part.t()[:, None, :, None] * width + columns.t()[None, :, None, :]
            if not self.reflect:
                outside = (part.t()[:, None, :, None] < 0) | (columns.t()[None, :, None, :] < 0)
                places = places.masked_fill(outside, height * width)
            tiles = flat.index_select(0, places.reshape(-1)).view(self.before.shape[1], -1)
            seen = torch.mm(self.before, tiles).view(points, -1, channels)
            made = torch.mm(self.after, torch.bmm(seen, self.products).view(points, -1))
            ordered = made.view(self.outputs, self.outputs, len(part), count, new).permute(2, 0, 3, 1, 4)
            torch.add(ordered, self.bias, out=out[first : first + group])
        ratio = self.outputs // self.step
        full = out.view(len(rows) * self.outputs, count * self.outputs, new)
        return full[: height * ratio, : width * ratio]

    def _lines(self, length: int, device: torch.device) -> Tensor:
        """Which inputs each tile takes, int64 (tiles, inputs); -1: none."""
        tiles = -(-length // self.step)
        places = torch.arange(tiles, device=device)[:, None] * self.step
        places = places + torch.arange(self.inputs, device=device) + self.start
        if not self.reflect:
            return torch.where((places < 0) | (places >= length), -1, places)
        places = places.abs()
        # A tile that reaches over the end takes anything there: those outputs are cut off.
        return torch.where(places >= length, 2 * (length - 1) - places, places).clamp(0, length - 1)


class MapNorm(nn.Module):
    """Instance norm of (H, W, C), in place."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.eps, self.affine = norm.eps, norm.affine
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, C) -> the same."""
        flat = x.reshape(-1, x.shape[2])
        flat -= flat.mean(dim=0)
        scale = ((flat * flat).mean(dim=0) + self.eps).rsqrt()
        flat = torch.addcmul(self.bias, flat, scale * self.weight) if self.affine else flat.mul_(scale)
        return flat.view(x.shape)


class MapConv(nn.Module):
    """A layer of (1, C, H, W) on maps (H, W, C), which are its channels-last form."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, C) -> (H', W', C')."""
        out: Tensor = self.layer(x.permute(2, 0, 1)[None])
        return out[0].permute(1, 2, 0)


class OnMaps(nn.Module):
    """A module of maps, called with (1, C, H, W) and giving that, in channels-last."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Each (1, C, H, W)."""
        result = self.module(*(x[0].permute(1, 2, 0) for x in inputs))
        if isinstance(result, tuple):
            return tuple(x.permute(2, 0, 1)[None] for x in result)
        out: Tensor = result.permute(2, 0, 1)[None]
        return out


def for_maps(layer: nn.Module) -> nn.Module:
    """`layer` for maps (H, W, C), its children replaced in place; or its replacement."""
    if isinstance(layer, nn.InstanceNorm2d):
        return MapNorm(layer)
    if isinstance(layer, UpsampleConv):
        return _tiled(layer.conv, enlarged()) if _wide(layer.conv) else MapConv(PhaseConv.of_upsample(layer))
    if isinstance(layer, nn.ConvTranspose2d):
        return MapConv(layer)  # near the processor's limit in channels-last, and hard to divide
    if isinstance(layer, nn.Conv2d):
        if _wide(layer) and layer.kernel_size == (3, 3) and layer.stride == (1, 1) and layer.padding == (1, 1):
            return _tiled(layer, plain())
        return MapConv(NarrowConv(layer) if isinstance(layer, NarrowConv2d) else layer)
    for name, child in layer.named_children():
        setattr(layer, name, for_maps(child))
    return layer


def _wide(conv: nn.Conv2d) -> bool:
    return min(conv.in_channels, conv.out_channels) >= LEAST


def _tiled(conv: nn.Conv2d, filtering: Filtering) -> TiledConv:
    return TiledConv(conv.weight, conv.bias, filtering, reflect=conv.padding_mode == "reflect")
