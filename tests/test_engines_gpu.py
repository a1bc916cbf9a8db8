"""The step for a GPU: it computes what the generator computes. Graphs need a GPU and are left out without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instapipe.config import GeneratorConfig
from instapipe.networks.blocks import initialise
from instapipe.networks.generator import SetGenerator
from instapipe.translation.engines.gpu import Steps, dense_step, for_gpu
from instapipe.translation.engines.run import WholeEngine

SIZE = (24, 32)


def generator(form: str, aggregation: str) -> SetGenerator:
    network = SetGenerator(
        GeneratorConfig(form=form, width=4, encoder_blocks=1, decoder_blocks=1, aggregation=aggregation)
    )
    initialise(network, torch.Generator().manual_seed(0), std=0.1)
    draws = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=draws)
    return network.eval().requires_grad_(False)


def window(batch: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    masks = torch.where(torch.rand(batch, count, *SIZE, generator=rng) < 0.3, 1.0, -1.0)
    return torch.rand(batch, 3, *SIZE, generator=rng) * 2 - 1, masks


@pytest.mark.parametrize("form", ["paper", "resize"])
@pytest.mark.parametrize("aggregation", ["sum", "mean", "attention"])
@pytest.mark.parametrize(("batch", "count"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_the_dense_step_is_the_generators(form: str, aggregation: str, batch: int, count: int) -> None:
    network, (image, masks) = generator(form, aggregation), window(batch, count)
    with torch.inference_mode():
        expected = network(image, masks, torch.ones(batch, count, dtype=torch.bool))
        for own, tolerance in ((network, 1e-6), (for_gpu(network, torch.float32), 1e-5)):
            for got, wanted in zip(dense_step(own, image, masks), expected, strict=True):
                assert got.shape == wanted.shape
                torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)


def test_what_has_the_wrong_size_is_refused() -> None:
    network, (image, masks) = generator("paper", "sum"), window(1, 2)
    with pytest.raises(ValueError, match="multiples of 4"):
        dense_step(network, image[..., :30], masks[..., :30])
    with pytest.raises(ValueError, match="expected image"):
        dense_step(network, image, masks[..., :28])


@pytest.mark.parametrize("form", ["paper", "resize"])
def test_the_engine_without_a_gpu_runs_the_same_step(form: str) -> None:
    network, (image, masks) = generator(form, "sum"), window(1, 2)
    with torch.inference_mode():
        expected = network(image, masks, torch.ones(1, 2, dtype=torch.bool))
    before = torch.backends.cudnn.allow_tf32
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.2)):
        got = WholeEngine(network, "cpu", precision).run(image[0].numpy(), masks[0].numpy())
        for one, wanted in zip(got, expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, wanted[0].numpy(), rtol=0, atol=tolerance)
    assert torch.backends.cudnn.allow_tf32 == before
    assert next(network.parameters()).dtype == torch.float32, "the generator that was given is not touched"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", ["paper", "resize"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_gives_what_the_step_gives(form: str, precision: str) -> None:
    network = generator(form, "sum").cuda()
    with_graph, without = (Steps(network, "cuda", precision, graphs=graphs) for graphs in (True, False))
    for count in (1, 2, 3, 4, 5, 1, 2):  # more shapes than are kept
        image, masks = window(1, count)
        for one in (image, -image):
            for got, wanted in zip(with_graph(one, masks), without(one, masks), strict=True):
                torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 if precision == "float32" else 0.02)
        assert with_graph.recorded(masks)
    assert with_graph.failures == {}
