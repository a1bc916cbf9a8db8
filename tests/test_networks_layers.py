"""Layers whose way back is cheap on a CPU, against the plain ones: values and gradients, float64, float32, bfloat16."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instapipe.networks.blocks import ConvNormRelu, ResidualBlock, SpectralConv2d, initialise
from instapipe.networks.discriminator import SetDiscriminator
from instapipe.networks.layers import DoublingConv2d, InstanceNorm, ReflectedConv2d, interleave, reflect

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
LAYERS: dict[str, tuple[Callable[[], nn.Module], type[nn.Module]]] = {
    "reflected-3": (lambda: ReflectedConv2d(6, 5, 3), nn.Conv2d),
    "reflected-7": (lambda: ReflectedConv2d(6, 5, 7), nn.Conv2d),
    "doubling": (lambda: DoublingConv2d(6, 5), nn.ConvTranspose2d),
    "norm": (lambda: InstanceNorm(6), nn.InstanceNorm2d),
    "norm-affine": (lambda: InstanceNorm(6, affine=True), nn.InstanceNorm2d),
}


def run(layer: Callable[[Tensor], Tensor], inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The output for the first of `inputs`, then the gradients of a weighted sum of it for all; in bfloat16 by
    autocast."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = layer(inputs[0])
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad((out * weights).sum(), inputs)]


def assert_near(got: list[Tensor], wanted: list[Tensor], dtype: torch.dtype) -> None:
    """Of every tensor, the mean error against its mean size."""
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        error = (ours.double() - theirs.double()).abs().mean()
        assert error <= TOLERANCES[dtype] * theirs.double().abs().mean()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_plain_one(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    build, plain = LAYERS[name]
    layer = build().to(torch.float32 if dtype == torch.bfloat16 else dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    assert isinstance(layer, plain)
    written = copy.deepcopy(layer).double()
    written.__class__ = plain
    # bfloat16's input is what the layer before has rounded already.
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64).to(dtype)
    got = run(layer, [x.requires_grad_(), *layer.parameters()], dtype)
    assert got[0].dtype == dtype
    exact = x.detach().double().requires_grad_()
    assert_near(got, run(written, [exact, *written.parameters()], torch.float64), dtype)
    with torch.no_grad():  # as engines run it
        without = layer(x.to(next(layer.parameters(), x).dtype))
    assert_near([without], got[:1], dtype)


@pytest.mark.parametrize("edges", [(1, 1), (3, 3), (3, 0), (0, 2)])
def test_padding_keeps_the_dtype_and_its_gradient_is_that_of_torch(edges: tuple[int, int]) -> None:
    rows, columns = edges
    for dtype in TOLERANCES:
        x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
        got = run(lambda x: reflect(x, rows, columns), [x], dtype)
        exact = x.detach().double().requires_grad_()
        wanted = run(lambda x: F.pad(x, (columns, columns, rows, rows), mode="reflect"), [exact], torch.float64)
        assert got[0].dtype == dtype  # autocast alone would make it float32
        assert torch.equal(got[0].double(), wanted[0])
        assert_near(got, wanted, dtype)


def test_statistics_of_bfloat16_are_not_rounded() -> None:
    """A mean 30 deviations from zero: rounded to bfloat16 it would be wrong by a tenth of a deviation."""
    x = (30 + torch.randn(2, 4, 24, 24, generator=torch.Generator().manual_seed(0))).bfloat16().requires_grad_()
    got = run(InstanceNorm(4), [x], torch.bfloat16)
    exact = x.detach().double().requires_grad_()
    wanted = run(nn.InstanceNorm2d(4), [exact], torch.float64)
    assert_near(got, wanted, torch.bfloat16)
    assert got[0].detach().double().mean(dim=(2, 3)).abs().max() < 1e-3


def test_four_maps_interleaved() -> None:
    four = torch.randn(2, 2, 2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    out = interleave(four)
    assert out.shape == (2, 3, 8, 6)
    for row in range(8):
        for column in range(6):
            (i, p), (j, q) = divmod(row, 2), divmod(column, 2)
            assert torch.equal(out[:, :, row, column], four[:, p, q, :, i + p, j + q])
    assert torch.equal(interleave(four.detach()), out)
    assert torch.autograd.gradcheck(interleave, four)


@pytest.mark.parametrize(
    "block", [ResidualBlock(6, affine=True), ConvNormRelu(ReflectedConv2d(6, 6, 3), 6, affine=False)]
)
def test_blocks_in_bfloat16_are_those_in_float32(block: nn.Module) -> None:
    initialise(block, torch.Generator().manual_seed(0), std=0.2)
    x = torch.randn(2, 6, 12, 12, generator=torch.Generator().manual_seed(1)).bfloat16().float().requires_grad_()
    inputs = [x, *(p for name, p in block.named_parameters() if name.endswith("weight"))]
    exact, rounded = (run(block, inputs, dtype) for dtype in (torch.float32, torch.bfloat16))
    for ours, theirs in zip(rounded, exact, strict=True):
        assert F.cosine_similarity(ours.double().flatten(), theirs.double().flatten(), dim=0) > 0.995


@pytest.mark.parametrize("size", [3, 24], ids=["divides its output", "divides its weight"])
def test_spectral_norm_by_weight_or_by_output(size: int) -> None:
    """Three forwards in a row, one backward: its gradient is taken with the newest vectors."""
    torch.manual_seed(0)
    layer = SpectralConv2d(8, 6, 3, padding=1).double()
    plain = copy.deepcopy(layer)
    x = torch.randn(2, 8, size, size, dtype=torch.float64, requires_grad=True)
    got = run(lambda x: sum((layer(x * k) for k in range(1, 4)), torch.zeros(())), [x, *layer.parameters()], x.dtype)
    matrix, u, v, sigmas = plain.weight.detach().flatten(1), plain.spectral_u, plain.spectral_v, []
    for _ in range(3):
        v = F.normalize(matrix.t() @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
        sigmas.append(float(u @ matrix @ v))

    def written(x: Tensor) -> Tensor:
        newest = u @ plain.weight.flatten(1) @ v
        total = torch.zeros(())
        for k, sigma in enumerate(sigmas, start=1):
            weight = plain.weight / (newest + (sigma - newest.detach()))  # the value of then, the gradient of now
            total = total + F.conv2d(x * k, weight, plain.bias, padding=1)
        return total

    assert_near(got, run(written, [x, *plain.parameters()], x.dtype), x.dtype)
    assert torch.allclose(layer.spectral_u, u)
    assert torch.allclose(layer.spectral_v, v)


def test_batches_in_a_row_are_forwards_one_after_the_other() -> None:
    """Scores, gradients and vectors; sets of different sizes, one of them larger than what goes through at once."""
    torch.manual_seed(0)
    together = SetDiscriminator(4).double()
    in_turn = copy.deepcopy(together)
    batches = []
    for count, batch in ((5, 2), (0, 1), (2, 1)):
        image, masks = (torch.rand(batch, k, 32, 32, dtype=torch.float64) for k in (3, count))
        valid = torch.ones(batch, count, dtype=torch.bool)
        valid[1:, 2:] = False
        batches.append((image, masks, valid, count))
    got = together.in_a_row(batches)
    wanted = [in_turn(*batch) for batch in batches]
    for ours, theirs in zip(got, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)
    for scores in (got, wanted):
        torch.stack([score.square().mean() for score in scores]).sum().backward()
    for (name, ours), theirs in zip(together.named_parameters(), in_turn.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-12), name
    for (name, ours), theirs in zip(together.named_buffers(), in_turn.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
