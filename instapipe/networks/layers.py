"""Convolutions whose way back is cheap on a CPU: the functions are torch's own, up to rounding.

On a CPU whose convolutions are fast in bfloat16, what stands around them takes the time: padding that autocast puts
into float32, the gradients of padding and of slices, transposed convolutions.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight


class _Reflect(torch.autograd.Function):
    """Reflection padding; its gradient by whole rows and columns instead of pixel by pixel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, columns: int) -> Tensor:
        ctx.edges = rows, columns
        return F.pad(x, (columns, columns, rows, rows), mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), (rows, columns) = gradients, ctx.edges
        return _fold(_fold(gradient, 2, rows), 3, columns), None, None


def _fold(gradient: Tensor, dim: int, edge: int) -> Tensor:
    """What `edge` lines of padding at both ends of `dim` show, added to the lines that they were copied from."""
    if not edge:
        return gradient
    size = gradient.shape[dim] - 2 * edge
    out = gradient.narrow(dim, edge, size).clone(memory_format=torch.contiguous_format)
    out.narrow(dim, 1, edge).add_(gradient.narrow(dim, 0, edge).flip(dim))
    out.narrow(dim, size - edge - 1, edge).add_(gradient.narrow(dim, edge + size, edge).flip(dim))
    return out


def reflect(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2 rows, W + 2 columns), in the dtype of `x`: autocast would pad in float32."""
    if x.device.type != "cpu":
        return F.pad(x, (columns, columns, rows, rows), mode="reflect")
    with torch.autocast("cpu", enabled=False):
        if x.requires_grad and torch.is_grad_enabled():
            return cast(Tensor, _Reflect.apply(x, rows, columns))
        return F.pad(x, (columns, columns, rows, rows), mode="reflect")


class ReflectedConv2d(nn.Conv2d):
    """A square convolution that keeps the size, its border reflected."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        edge = self.kernel_size[0] // 2
        return F.conv2d(reflect(x, edge, edge), self.weight, self.bias)


class _Double(torch.autograd.Function):
    """A transposed convolution of stride 2. Its gradients are those of the plain convolution whose gradient it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv_transpose2d(x, weight, bias, 2, 1, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        return (
            F.conv2d(gradient, weight, None, 2, 1) if by_x else None,
            conv2d_weight(gradient, weight.shape, x, 2, 1) if by_weight else None,  # type: ignore[no-untyped-call]
            gradient.flatten(2).sum(dim=2).sum(dim=0) if by_bias else None,
        )


class DoublingConv2d(nn.ConvTranspose2d):
    """A transposed 3x3 convolution to twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C', 2H, 2W)."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if x.device.type != "cpu" or dtype != torch.bfloat16 or not torch.is_grad_enabled():
            return super().forward(x, output_size)  # in float32 torch's own gradients are as fast
        assert self.bias is not None
        return cast(Tensor, _Double.apply(*(tensor.to(dtype) for tensor in (x, self.weight, self.bias))))


class _Interleave(torch.autograd.Function):
    """See :func:`interleave`."""

    @staticmethod
    def forward(ctx: Any, four: Tensor) -> Tensor:
        ctx.shape = four.shape
        b, _, _, c, h, w = four.shape
        out = four.new_empty(b, c, 2 * h - 2, 2 * w - 2)
        for p, q in ((p, q) for p in (0, 1) for q in (0, 1)):
            out[:, :, p::2, q::2] = four[:, p, q, :, p : p + h - 1, q : q + w - 1]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,), (_, _, _, _, h, w) = gradients, ctx.shape
        out = gradient.new_zeros(ctx.shape)
        for p, q in ((p, q) for p in (0, 1) for q in (0, 1)):
            out[:, p, q, :, p : p + h - 1, q : q + w - 1] = gradient[:, :, p::2, q::2]
        return out


def interleave(four: Tensor) -> Tensor:
    """(B, 2, 2, C, H + 1, W + 1) -> (B, C, 2H, 2W): pixel (2i + p, 2j + q) is (i + p, j + q) of map (p, q)."""
    if four.requires_grad:
        return cast(Tensor, _Interleave.apply(four))
    # What is exported by tracing must fit any size: no writing in place.
    h, w = four.shape[-2] - 1, four.shape[-1] - 1
    rows = [torch.stack([four[:, p, q, :, p : p + h, q : q + w] for q in (0, 1)], dim=-1) for p in (0, 1)]
    return torch.stack(rows, dim=3).flatten(4, 5).flatten(2, 3)  # (B, C, H, 2, W, 2) before


class _Normalise(torch.autograd.Function):
    """Instance norm as a group norm with a channel a group: torch computes its own as a batch norm over a view, and
    what is done in place behind a view is copied several times on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        b, c, h, w = x.shape
        out, mean, rstd = torch.native_group_norm(x, weight, bias, b, c, h * w, c, eps)
        ctx.save_for_backward(x, mean, rstd, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (gradient,), (x, mean, rstd, weight) = gradients, ctx.saved_tensors
        b, c, h, w = x.shape
        by = torch.ops.aten.native_group_norm_backward(
            gradient.contiguous(), x, mean, rstd, weight, b, c, h * w, c, ctx.needs_input_grad[:3]
        )
        return (*by, None)


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm over samples, its statistics in float32 at least."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        # Exported by tracing, it stays the one operation that engines know.
        if x.device.type != "cpu" or not x.is_contiguous() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return super().forward(x)
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if not self.affine:
            # Those of another dtype than the input keep the statistics from being rounded to bfloat16.
            dtype = torch.float32 if x.dtype == torch.bfloat16 else x.dtype
            weight, bias = x.new_ones(x.shape[1], dtype=dtype), x.new_zeros(x.shape[1], dtype=dtype)
        with torch.autocast("cpu", enabled=False):
            return cast(Tensor, _Normalise.apply(x, weight, bias, self.eps))
