"""The set networks: permutation, padding and batch invariance, empty sets, aggregation, spectral norm."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from instapipe.config import CompositingConfig, GeneratorConfig
from instapipe.networks.aggregation import build_aggregation
from instapipe.networks.blocks import NarrowConv2d, SpectralConv2d, UpsampleConv, fixed_spectral_norm, initialise
from instapipe.networks.discriminator import SetDiscriminator
from instapipe.networks.generator import SetGenerator
from instapipe.translation.inpainting import backgrounds
from instapipe.translation.step import instance_steps, translate_step

FORMS = {
    "paper": GeneratorConfig(form="paper", width=4, encoder_blocks=1),
    "resize": GeneratorConfig(form="resize", width=4, encoder_blocks=1, decoder_blocks=1),
    "mean": GeneratorConfig(form="resize", width=4, encoder_blocks=1, decoder_blocks=1, aggregation="mean"),
    "attention": GeneratorConfig(form="resize", width=4, encoder_blocks=1, decoder_blocks=1, aggregation="attention"),
}


def build(form: str) -> SetGenerator:
    generator = SetGenerator(FORMS[form])
    initialise(generator, torch.Generator().manual_seed(1), std=0.2)
    return generator.double().eval()


def sample(seed: int, count: int, batch: int = 1, side: int = 16) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, side, side, generator=rng, dtype=torch.float64) * 2 - 1
    masks = (torch.rand(batch, count, side, side, generator=rng, dtype=torch.float64) < 0.3).double() * 2 - 1
    return image, masks


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), data=st.data())
def test_order_of_the_set_does_not_matter(form: str, seed: int, count: int, data: st.DataObject) -> None:
    generator, (image, masks) = build(form), sample(seed, count)
    order = data.draw(st.permutations(range(count)))
    valid = torch.ones(1, count, dtype=torch.bool)
    with torch.no_grad():
        one_image, one_masks = generator(image, masks, valid)
        two_image, two_masks = generator(image, masks[:, order], valid)
    assert torch.allclose(one_image, two_image, atol=1e-10)
    assert torch.allclose(one_masks[:, order], two_masks, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 3), padding=st.integers(1, 3))
def test_padding_changes_nothing_whatever_its_pixels(form: str, seed: int, count: int, padding: int) -> None:
    generator, (image, masks) = build(form), sample(seed, count + padding)
    valid = torch.arange(count + padding)[None] < count
    with torch.no_grad():
        bare_image, bare_masks = generator(image, masks[:, :count], valid[:, :count])
        image_out, masks_out = generator(image, masks, valid)
    assert torch.allclose(bare_image, image_out, atol=1e-10)
    assert torch.allclose(bare_masks, masks_out[:, :count], atol=1e-10)
    assert torch.equal(masks_out[:, count:], masks[:, count:])
    if count == 0:
        assert torch.equal(image_out, image)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["whole", "matte"])
def test_a_batch_is_its_samples_one_by_one(form: str, mode: str) -> None:
    generator, (image, masks) = build(form), sample(3, 3, batch=4)
    valid = torch.tensor([[True, True, True], [True, False, False], [False, False, False], [True, True, False]])
    compositing = CompositingConfig.model_validate({"mode": mode})
    with torch.no_grad():
        batch = translate_step(generator, image, masks, valid, compositing)
        for n in range(4):
            own = slice(n, n + 1)
            single = translate_step(generator, image[own], masks[own], valid[own], compositing)
            assert torch.allclose(batch.image[own], single.image, atol=1e-10)
            assert torch.allclose(batch.masks[own], single.masks, atol=1e-10)
    assert torch.equal(batch.image[2], image[2])  # no instance: the photo comes back


def test_matte_leaves_the_photo_alone_outside_both_masks() -> None:
    """With the mask decoder held at -1 nothing of the generator's image is used, and only the hole is filled."""
    generator, (image, _) = build("resize"), sample(5, 1, side=64)
    masks = -torch.ones(1, 1, 64, 64, dtype=torch.float64)
    masks[..., 28:36, 28:36] = 1
    decoder = generator.decoder_mask
    with torch.no_grad():
        decoder.out.weight.zero_()  # type: ignore[union-attr, operator]
        decoder.out.bias.fill_(-40.0)  # type: ignore[union-attr, operator]
        result = translate_step(
            generator, image, masks, torch.ones(1, 1, dtype=torch.bool), CompositingConfig(mode="matte")
        )
    changed = (result.image != image).any(dim=1)[0]
    assert changed[28:36, 28:36].all()
    changed[20:44, 20:44] = False
    assert not changed.any()


def test_what_earlier_steps_made_is_no_hole_and_fills_none() -> None:
    """A red stripe that an earlier step painted beside and over the old mask: it stays, and nothing turns red."""
    image = torch.zeros(1, 3, 64, 64) - 0.5
    painted = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    painted[..., 20:44, 34:40] = True
    image[:, 0][painted[:, 0]] = 1
    masks = -torch.ones(1, 1, 64, 64)
    masks[..., 28:36, 28:36] = 1
    image[(masks > 0).expand(-1, 3, -1, -1) & ~painted.expand(-1, 3, -1, -1)] = 0.9  # what is to go
    valid = torch.ones(1, 1, dtype=torch.bool)
    plain = backgrounds(image, masks, valid, dilate=3, radius=3)
    kept = backgrounds(image, masks, valid, dilate=3, radius=3, painted=painted)
    where = painted.expand(-1, 3, -1, -1)
    assert torch.equal(kept[where], image[where])
    assert not torch.equal(plain[where], image[where])
    assert torch.allclose(kept[~where], torch.tensor(-0.5), atol=0.01)  # all ground again
    assert (plain[:, 0] - plain[:, 1])[~painted[:, 0]].max() > 0.1
    nothing = torch.zeros_like(painted)
    assert torch.equal(backgrounds(image, masks, valid, dilate=3, radius=3, painted=nothing), plain)
    # Where everything but the hole was painted there is nothing else to fill from.
    everywhere = backgrounds(image, masks, valid, dilate=3, radius=3, painted=masks < 0)
    assert torch.equal(everywhere[(masks < 0).expand(-1, 3, -1, -1)], image[(masks < 0).expand(-1, 3, -1, -1)])
    assert not torch.equal(everywhere, image)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["whole", "matte"])
def test_what_earlier_steps_made_matters_to_mattes_only(form: str, mode: str) -> None:
    """The whole image of the paper is no composite; mattes, too, are painted over what was made before."""
    generator, (image, masks) = build(form), sample(5, 2)
    given = masks, torch.ones(1, 2, dtype=torch.bool), CompositingConfig.model_validate({"mode": mode})
    painted = torch.zeros(1, 1, *image.shape[2:], dtype=torch.bool)
    painted[..., ::2] = True
    with torch.no_grad():
        one, two = (translate_step(generator, image, *given, each) for each in (None, painted))
    for name in ("masks", "raw", "matte"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert torch.equal(one.image, two.image) == (mode == "whole")
    assert torch.equal(two.image, two.matte * two.raw + (1 - two.matte) * two.background) or mode == "whole"


@pytest.mark.parametrize("form", ["paper", "resize"])
def test_gradients_of_the_generator(form: str) -> None:
    generator, (image, masks) = build(form), sample(7, 2, side=8)
    valid = torch.tensor([[True, False]])

    def run(x: Tensor, m: Tensor) -> Tensor:
        out_image, out_masks = generator(x, m, valid)
        return out_image.square().mean() + out_masks.square().mean()

    image.requires_grad_()
    masks.requires_grad_()
    assert torch.autograd.gradcheck(run, (image, masks), fast_mode=True, atol=1e-6)
    run(image, masks).backward()
    assert masks.grad is not None
    expected = 2 * masks.detach()[:, 1] / masks.numel()  # padding passes through: its own square is all it feels
    assert torch.allclose(masks.grad[:, 1], expected)


def test_wrong_shapes_are_named() -> None:
    generator, (image, masks) = build("paper"), sample(0, 2, side=18)
    with pytest.raises(ValueError, match="multiples of 4, at least 8; got 18x18"):
        generator(image, masks, torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="valid bool"):
        generator(*sample(0, 2), torch.ones(1, 2))


def test_aggregations_agree_where_they_must() -> None:
    rng = torch.Generator().manual_seed(0)
    same = torch.rand(2, 1, 5, 3, 3, generator=rng).expand(2, 4, 5, 3, 3)
    valid = torch.tensor([[True, True, True, False], [True, False, False, False]])
    total = build_aggregation("sum", 5)(same, valid)
    assert torch.allclose(total[0], 3 * same[0, 0])
    assert torch.allclose(build_aggregation("mean", 5)(same, valid)[0], same[0, 0])
    # Attention over equal features is uniform: the sum.
    assert torch.allclose(build_aggregation("attention", 5)(same, valid), total, atol=1e-6)
    empty = torch.zeros(2, 4, dtype=torch.bool)
    for name in ("sum", "mean", "attention"):
        out = build_aggregation(name, 5)(same, empty)
        assert torch.equal(out, torch.zeros_like(out))


def test_spectral_norm_finds_the_largest_singular_value() -> None:
    torch.manual_seed(0)  # where the two largest are nearly equal, 60 iterations are too few
    layer = SpectralConv2d(3, 6, 3)
    largest = float(torch.linalg.svdvals(layer.weight.detach().flatten(1))[0])
    for _ in range(60):
        layer(torch.rand(1, 3, 5, 5))
    assert float(layer.sigmas(1).detach()) == pytest.approx(largest, rel=1e-4)
    before = layer.spectral_u.clone()
    with fixed_spectral_norm(layer):
        layer(torch.rand(1, 3, 5, 5))
    assert torch.equal(layer.spectral_u, before)


def test_set_discriminator_counts_but_does_not_order() -> None:
    discriminator = SetDiscriminator(4).double()
    image, masks = sample(1, 3, side=32)
    valid = torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad(), fixed_spectral_norm(discriminator):
        score = discriminator(image, masks, valid)
        assert torch.allclose(score, discriminator(image, masks[:, [2, 0, 1]], valid), atol=1e-10)
        padded = torch.cat([masks, torch.ones_like(masks)], dim=1)
        valid_padded = torch.cat([valid, ~valid], dim=1)
        assert torch.allclose(score, discriminator(image, padded, valid_padded), atol=1e-10)
        assert not torch.allclose(score, discriminator(image, masks[:, :2], valid[:, :2]))


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 40), per_step=st.integers(1, 8))
def test_steps_take_every_instance_once(count: int, per_step: int) -> None:
    steps = instance_steps(count, per_step)
    assert [i for step in steps for i in step] == list(range(count))
    assert len(steps) == math.ceil(count / per_step)


def test_cheaper_layers_are_those_that_they_stand_for() -> None:
    """Values and gradients, in float64."""
    torch.manual_seed(0)
    upsample, narrow = UpsampleConv(5, 3).double(), NarrowConv2d(4, 3, 7).double()
    written = (
        (upsample, upsample.conv, lambda x: upsample.conv(F.interpolate(x, scale_factor=2, mode="nearest"))),
        (narrow, narrow, lambda x: F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), narrow.weight, narrow.bias)),
    )
    for layer, conv, expected in written:
        x = torch.randn(2, conv.in_channels, 7, 6, dtype=torch.float64, requires_grad=True)
        parameters = [x, conv.weight, conv.bias]
        got, wanted = layer(x), expected(x)
        assert torch.allclose(got, wanted, atol=1e-12)
        weights = torch.randn_like(got)
        ours, theirs = (torch.autograd.grad((y * weights).sum(), parameters) for y in (got, wanted))
        assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(ours, theirs, strict=True))
