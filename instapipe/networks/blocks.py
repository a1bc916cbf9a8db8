"""The pieces that generators and discriminators are built from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from instapipe.networks.layers import InstanceNorm, ReflectedConv2d, interleave, reflect

R = TypeVar("R")


class ConvNormRelu(nn.Sequential):
    """Convolution (bias kept, as in the original), instance norm, ReLU."""

    def __init__(self, conv: nn.Module, channels: int, *, affine: bool) -> None:
        super().__init__(conv, InstanceNorm(channels, affine=affine), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3, reflection padding."""

    def __init__(self, channels: int, *, affine: bool) -> None:
        super().__init__()
        self.conv1 = ReflectedConv2d(channels, channels, 3)
        self.norm1 = InstanceNorm(channels, affine=affine)
        self.conv2 = ReflectedConv2d(channels, channels, 3)
        self.norm2 = InstanceNorm(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        y: Tensor = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out: Tensor = x + self.norm2(self.conv2(y))
        return out


class UpsampleConv(nn.Module):
    """Nearest-neighbour x2, then a 3x3 convolution: no checkerboards.

    Computed before the enlargement, by 4 taps a pixel instead of 9: those that meet on one pixel are added up first.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def phases(self) -> Tensor:
        """The 2x2 kernels of the four pixels that one becomes, (2, 2, C', C, 2, 2) by the parity of row and column.

        Pixel 2i is w0 x[i - 1] + (w1 + w2) x[i], pixel 2i + 1 is (w0 + w1) x[i] + w2 x[i + 1].
        """
        weight = self.conv.weight
        taps = weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        with torch.autocast(weight.device.type, enabled=False):
            return torch.einsum("pir,qjc,oxrc->pqoxij", taps, taps, weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2H, 2W)."""
        height, width = x.shape[-2:]
        # One convolution for all four: (B, 4 C', H + 1, W + 1), of which each takes its part.
        four = F.conv2d(x, self.phases().flatten(0, 2), padding=1)
        four = four.view(-1, 2, 2, self.conv.out_channels, height + 1, width + 1)
        out = interleave(four)
        return out if self.conv.bias is None else out + self.conv.bias.to(out.dtype)[:, None, None]


class NarrowConv2d(nn.Conv2d):
    """A square convolution to few channels, its border reflected, as two: down the columns to `kernel` times the
    channels, then the sum of those, each shifted by its column. As many multiplications, but wide vectors: 2 to 4x
    faster on a CPU for 7x7, there and back."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")

    def columns(self) -> Tensor:
        """The first convolution's kernels, (kernel * C', C, kernel, 1), one column of all channels after the other."""
        outputs, inputs, kernel, _ = self.weight.shape
        return self.weight.permute(3, 0, 1, 2).reshape(kernel * outputs, inputs, kernel, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        outputs, edge, width = self.out_channels, self.kernel_size[0] // 2, x.shape[-1]
        # The sides are reflected behind the columns, where there are few channels.
        apart = reflect(F.conv2d(reflect(x, edge, 0), self.columns()), 0, edge)
        out, *others = (
            part[..., shift : shift + width] for shift, part in enumerate(torch.split(apart, outputs, dim=1))
        )
        for part in others:
            out = out + part
        return out if self.bias is None else out + self.bias.to(out.dtype)[:, None, None]


class _Sigmas(torch.autograd.Function):
    """u^T W v after each of `count` power iterations; (count,). Its gradient, u v^T, is taken with the newest vectors
    at the time of backward, as in the original: where a layer ran several times before one backward (real, then fake;
    one mask after the other), all of them share the best estimate. So one u v^T does for all."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, layer: SpectralConv2d, count: int) -> Tensor:
        ctx.layer = layer
        sigmas = []
        for _ in range(count):
            if layer.update_vectors:
                layer.spectral_v.copy_(F.normalize(matrix.t() @ layer.spectral_u, dim=0, eps=1e-12))
            product = matrix @ layer.spectral_v
            if layer.update_vectors:
                layer.spectral_u.copy_(F.normalize(product, dim=0, eps=1e-12))
            sigmas.append(torch.dot(layer.spectral_u, product))
        return torch.stack(sigmas)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return torch.outer(gradients[0].sum() * ctx.layer.spectral_u, ctx.layer.spectral_v), None, None


class SpectralConv2d(nn.Conv2d):
    """Convolution whose weight is divided by its largest singular value (Miyato et al., ICLR 2018).

    As in the original, *every* forward does one power iteration, in eval mode too, and the gradient flows through the
    weight in sigma, not through the vectors. :func:`fixed_spectral_norm` holds the vectors still.
    """

    spectral_u: Tensor
    spectral_v: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.update_vectors = True
        rows, columns = outputs, inputs * kernel * kernel
        self.register_buffer("spectral_u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("spectral_v", F.normalize(torch.randn(columns), dim=0))

    def sigmas(self, count: int) -> Tensor:
        """(count,): the singular value as `count` forwards in a row would see it, each after its power iteration."""
        matrix = self.weight.flatten(1)
        with torch.autocast(matrix.device.type, enabled=False):  # sums over thousands of terms: float32
            out = cast(Tensor, _Sigmas.apply(matrix, self, count if self.update_vectors else 1))
        return out.expand(count)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return self.convolve(x, self.sigmas(1))

    def convolve(self, x: Tensor, sigma: Tensor, places: Tensor | None = None) -> Tensor:
        """The convolution alone, by what :meth:`sigmas` gave: it may be repeated, and moves no vector.

        places: int64 (B,), which of several forwards in a row each item belongs to: the original runs its mask
        features one mask after the other. A convolution is linear in its weight, so one batch does for all of them.
        """
        if places is None and self.weight.numel() < x.numel():
            with torch.autocast(x.device.type, enabled=False):
                weight = self.weight / sigma
            return F.conv2d(x, weight, self.bias, self.stride, self.padding)
        # Wide layers have few pixels: there and back, their weights would take longer to divide than to convolve with.
        y = F.conv2d(x, self.weight, None, self.stride, self.padding)
        y = y / (sigma[0] if places is None else sigma[places][:, None, None, None].to(y.dtype))
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]


@contextmanager
def fixed_spectral_norm(*modules: nn.Module) -> Iterator[None]:
    """Hold the spectral-norm vectors of `modules` still: a forward that is repeated must not advance them twice."""
    layers = [m for module in modules for m in module.modules() if isinstance(m, SpectralConv2d)]
    before = [layer.update_vectors for layer in layers]
    for layer in layers:
        layer.update_vectors = False
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.update_vectors = value


class Vectors:
    """The spectral-norm vectors of `modules` as they are now.

    What is one forward of a big batch may be computed in parts: each part starts from the same vectors.
    """

    def __init__(self, *modules: nn.Module) -> None:
        layers = [m for module in modules for m in module.modules() if isinstance(m, SpectralConv2d)]
        self._now = [vector for layer in layers for vector in (layer.spectral_u, layer.spectral_v)]
        self._before = [vector.clone() for vector in self._now]

    def restore(self) -> None:
        """Put them back."""
        for vector, before in zip(self._now, self._before, strict=True):
            vector.copy_(before)


def recompute(function: Callable[..., R], *inputs: Any, enabled: bool) -> R:
    """`function(*inputs)`; where `enabled`, what is inside is computed again in the backward pass instead of kept.

    `function` must move no state: spectral-norm vectors above all.
    """
    if not enabled or not torch.is_grad_enabled():
        return function(*inputs)
    again: R = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return again


def set_recompute(module: nn.Module, enabled: bool) -> None:
    """Let the parts of `module` that can keep nothing for the backward pass, but compute it again (gradient
    checkpointing)."""
    for part in module.modules():
        if hasattr(part, "recomputes"):
            setattr(part, "recomputes", enabled)  # noqa: B010 (modules declare no such attribute to mypy)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """No gradient for the parameters of `modules` (it still flows through to their inputs)."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def initialise(module: nn.Module, generator: torch.Generator, std: float = 0.02) -> None:
    """Convolution weights from N(0, std), biases 0, in the order of the modules, drawn from `generator`."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            with torch.no_grad():
                layer.weight.normal_(0.0, std, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
        if isinstance(layer, SpectralConv2d):
            with torch.no_grad():
                for vector in (layer.spectral_u, layer.spectral_v):
                    vector.copy_(F.normalize(torch.randn(vector.shape, generator=generator), dim=0))


def scatter_valid(values: Tensor, valid: Tensor) -> Tensor:
    """(V, ...) for the V True places of `valid` (B, N) -> (B, N, ...), zero at padding."""
    out = values.new_zeros((*valid.shape, *values.shape[1:]))
    out[valid] = values
    return out
