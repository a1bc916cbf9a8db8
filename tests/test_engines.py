"""Engines: cheaper layers and parts compute what the generator computes; lower precision stays within what is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import worlds
from torch import nn

from instapipe.config import GeneratorConfig
from instapipe.errors import EngineError
from instapipe.networks import devices
from instapipe.networks.blocks import NarrowConv2d, UpsampleConv, initialise
from instapipe.networks.cards import read_card
from instapipe.networks.generator import SetGenerator
from instapipe.translation.engine import Translator, choose
from instapipe.translation.engines import backends, tiled
from instapipe.translation.engines import choice as choices
from instapipe.translation.engines.artefacts import KEPT, Artefacts
from instapipe.translation.engines.backends import PRECISIONS, why_not
from instapipe.translation.engines.choice import choose_engine, mask_agreement
from instapipe.translation.engines.parts import divided
from instapipe.translation.engines.probes import probe_window
from instapipe.translation.engines.rewrite import NarrowConv, PhaseConv, as_written
from instapipe.translation.engines.run import build
from instapipe.translation.engines.tiled import MapNorm, TiledConv, enlarged, plain

FORMS = {
    "paper": GeneratorConfig(form="paper", width=4, encoder_blocks=2),
    "resize": GeneratorConfig(
        form="resize", width=4, encoder_blocks=1, decoder_blocks=2, image_decoder_width=20, mask_decoder_width=12
    ),
    "mean": GeneratorConfig(form="resize", width=4, encoder_blocks=1, decoder_blocks=1, aggregation="mean"),
    "attention": GeneratorConfig(form="resize", width=4, encoder_blocks=1, decoder_blocks=1, aggregation="attention"),
    # Wide enough for tiles.
    "paper, wide": GeneratorConfig(form="paper", width=8, encoder_blocks=2),
    "resize, wide": GeneratorConfig(
        form="resize", width=8, encoder_blocks=1, decoder_blocks=1, image_decoder_width=64, mask_decoder_width=32
    ),
}
SIZE = (36, 48)


def generator(form: str, seed: int = 0) -> SetGenerator:
    """Random weights large enough for outputs all over [-1, 1]."""
    network = SetGenerator(FORMS[form])
    initialise(network, torch.Generator().manual_seed(seed), std=0.1)
    draws = torch.Generator().manual_seed(seed + 1)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=draws)
    return network.eval().requires_grad_(False)


def exact(network: SetGenerator, image: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        raw, mattes = network(
            torch.from_numpy(image)[None], torch.from_numpy(masks)[None], torch.ones(1, len(masks), dtype=torch.bool)
        )
    return raw[0].numpy(), mattes[0].numpy()


def soft_window(count: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A probe whose masks are neither -1 nor 1."""
    image, masks = probe_window(SIZE, count, seed)
    return image, (masks * np.random.default_rng(seed).uniform(0.2, 1, masks.shape)).astype(np.float32)


@pytest.mark.parametrize("outputs", [1, 3])
def test_narrow_convolution_is_the_convolution(outputs: int) -> None:
    torch.manual_seed(0)
    conv = NarrowConv2d(5, outputs, 7)
    x = torch.randn(2, 5, 11, 9)
    torch.testing.assert_close(NarrowConv(conv)(x), nn.Conv2d.forward(conv, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_phases_are_the_transposed_convolution(bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(5, 3, 3, stride=2, padding=1, output_padding=1, bias=bias)
    x = torch.randn(2, 5, 7, 6)
    torch.testing.assert_close(PhaseConv.of_transposed(conv)(x), conv(x), atol=1e-5, rtol=1e-5)


def test_phases_are_the_enlargement_with_a_convolution() -> None:
    torch.manual_seed(0)
    layer = UpsampleConv(5, 3)
    x = torch.randn(2, 5, 7, 6)
    torch.testing.assert_close(PhaseConv.of_upsample(layer)(x), as_written(layer)(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("size", [(12, 16), (13, 7), (2, 3)])
def test_tiles_are_the_convolution(padding: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 5, 3, padding=1, padding_mode=padding)
    tiles = TiledConv(conv.weight, conv.bias, plain(), reflect=padding == "reflect")
    x = torch.randn(*size, 6)
    expected = conv(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    torch.testing.assert_close(tiles(x), expected, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(tiled, "_GROUP", 1)  # row of tiles by row of tiles
    torch.testing.assert_close(tiles(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(12, 9), (7, 5)])
def test_tiles_are_the_enlargement_with_a_convolution(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = UpsampleConv(5, 3)
    x = torch.randn(*size, 5)
    tiles = TiledConv(layer.conv.weight, layer.conv.bias, enlarged(), reflect=False)
    expected = as_written(layer)(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    torch.testing.assert_close(tiles(x), expected, atol=1e-5, rtol=1e-5)


def test_tiles_of_a_wide_convolution_lose_little() -> None:
    """256 channels after a ReLU, as in the paper's generator: a few times the plain convolution's own rounding."""
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect")
    x = torch.randn(24, 24, 256).relu()
    exact = nn.Conv2d.forward(conv.double(), x.double().permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    got = TiledConv(conv.weight, conv.bias, plain(), reflect=True)(x)
    assert (got - exact).abs().max() < 1.5e-5 * exact.std()


@pytest.mark.parametrize("affine", [False, True])
def test_norm_of_maps_is_the_instance_norm(affine: bool) -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(4, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = 3 + torch.randn(6, 5, 4)
    expected = norm(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    with torch.inference_mode():
        torch.testing.assert_close(MapNorm(norm)(x.clone()), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "transposed"])
def test_a_divided_convolution_adds_up(kind: str) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 4, 3, padding=1) if kind == "plain" else nn.ConvTranspose2d(6, 4, 3, 2, 1, 1)
    one, other = divided(conv, 2)
    x = torch.randn(1, 6, 5, 5)
    torch.testing.assert_close(one(x[:, :2]) + other(x[:, 2:]), conv(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("masks", ["binary", "soft"])
def test_torch_in_float32_is_the_generator(form: str, count: int, masks: str) -> None:
    network = generator(form)
    window = probe_window(SIZE, count, 3) if masks == "binary" else soft_window(count)
    made = build(network, "w", "cpu", "torch", "float32", Artefacts(None))
    for got, expected in zip(made.run(*window), exact(network, *window), strict=True):
        assert expected.std() > 0.05  # else anything would pass
        np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize("form", ["paper", "resize"])
def test_other_engines_in_float32_are_the_generator(engine: str, form: str, tmp_path: Path) -> None:
    for package in ("openvino",) if engine == "openvino" else ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    network = generator(form)
    made = build(network, form, "cpu", engine, "float32", Artefacts(tmp_path))
    for count in (1, 2):
        window = soft_window(count)
        for got, expected in zip(made.run(*window), exact(network, *window), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-3)
    # What was compiled is on disk and does again, without being made again.
    entries = {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}
    assert entries
    again = build(network, form, "cpu", engine, "float32", Artefacts(tmp_path))
    np.testing.assert_array_equal(again.run(*soft_window(2))[0], made.run(*soft_window(2))[0])
    assert entries == {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}


def test_damaged_artefacts_are_made_again(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    network = generator("resize")
    window = soft_window(1)
    before = build(network, "w", "cpu", "openvino", "float32", Artefacts(tmp_path)).run(*window)[0]
    for model in tmp_path.rglob("*.xml"):
        model.write_text("<net")
    np.testing.assert_array_equal(
        build(network, "w", "cpu", "openvino", "float32", Artefacts(tmp_path)).run(*window)[0], before
    )


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bfloat16_is_near(engine: str) -> None:
    if (reason := why_not(engine, "bfloat16")) is not None:
        pytest.skip(reason)
    network = generator("resize")
    window = soft_window(2)
    made = build(network, "w", "cpu", engine, "bfloat16", Artefacts(None))
    for got, expected in zip(made.run(*window), exact(network, *window), strict=True):
        assert got.dtype == np.float32
        assert np.abs(got - expected).mean() < 0.05


def test_results_do_not_change_with_what_ran_before() -> None:
    network = generator("resize")
    made = build(network, "w", "cpu", "torch", "float32", Artefacts(None))
    first = [array.copy() for array in made.run(*soft_window(2))]
    made.run(*probe_window((24, 24), 3, 9))
    for one, other in zip(first, made.run(*soft_window(2)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_translator_speaks_pixels(matte_weights: Path) -> None:
    card = read_card(matte_weights)
    assert card is not None
    assert card.kind == "translator"
    pixels = worlds.photo_pixels(size=(32, 32)).astype(np.float32)
    masks = np.zeros((2, 32, 32), np.bool_)
    masks[0, 4:20, 4:20] = masks[1, 12:30, 8:30] = True
    painted, mattes = Translator(card, matte_weights, "source_to_target").step(pixels, masks)
    assert (painted.shape, mattes.shape) == ((32, 32, 3), (2, 32, 32))
    assert (painted.dtype, mattes.dtype) == (np.float32, np.float32)
    assert painted.min() >= 0
    assert painted.max() <= 255
    assert mattes.min() >= 0
    assert mattes.max() <= 1


@pytest.mark.parametrize(
    ("engine", "precision", "says"),
    [("tpu", "float32", "torch, compile, openvino, onnx"), ("onnx", "int8", "float32"), ("torch", "int8", "bfloat16")],
)
def test_what_is_not_there_is_said(engine: str, precision: str, says: str, matte_weights: Path) -> None:
    card = read_card(matte_weights)
    assert card is not None
    assert card.kind == "translator"
    with pytest.raises(EngineError, match=says):
        Translator(card, matte_weights, "source_to_target", engine=engine, precision=precision)
    if precision != "float32":
        with pytest.raises(EngineError):
            choose(card, matte_weights, "source_to_target", "cpu", engine, precision)


def test_small_networks_are_not_measured() -> None:
    chosen = choose_engine(generator("resize"), "w", SIZE, 1, "cpu", "auto", "auto", Artefacts(None))
    assert (chosen.engine, chosen.precision, chosen.seconds) == ("torch", "float32", {})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are measured too, by every engine: how much slower one is at so small a size says nothing."""
    monkeypatch.setattr(choices, "SMALL", 0.0)
    monkeypatch.setattr(choices, "HOPELESS", float("inf"))
    monkeypatch.setattr(devices, "HOPELESS", float("inf"))


@pytest.mark.usefixtures("measured")
def test_auto_measures_what_is_installed(tmp_path: Path) -> None:
    chosen = choose_engine(generator("resize"), "w", SIZE, 2, "cpu", "auto", "float32", Artefacts(tmp_path))
    assert set(chosen.seconds) >= {"torch float32"}
    assert ("openvino float32" in chosen.seconds) == (why_not("openvino", "float32") is None)
    assert chosen.precision == "float32"
    assert f"{chosen.engine} float32" in chosen.reason
    least = min(chosen.seconds.values())
    assert chosen.seconds[f"{chosen.engine} float32"] <= choices.GAIN * least


@pytest.mark.usefixtures("measured")
def test_what_is_far_slower_is_not_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "HOPELESS", 0.0)  # all but the first
    chosen = choose_engine(generator("resize"), "w", SIZE, 1, "cpu", "torch", "auto", Artefacts(None))
    assert chosen.precision == "float32"
    assert set(chosen.seconds) == {"torch float32"}
    assert "times as long" in chosen.dropped["torch bfloat16"]


@pytest.mark.usefixtures("measured")
def test_where_one_convolution_says_enough_no_step_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU without any bfloat16 a step of torch's would take half a minute."""

    def built(*request: object) -> object:
        assert "bfloat16" not in request
        return build(*request)  # type: ignore[arg-type]

    monkeypatch.setattr(choices, "build", built)
    monkeypatch.setattr(devices, "HOPELESS", 8.0)
    monkeypatch.setattr(devices, "bfloat16_handicap", lambda _: 70.0)
    chosen = choose_engine(generator("resize"), "w", SIZE, 1, "cpu", "torch", "auto", Artefacts(None))
    assert (chosen.engine, chosen.precision) == ("torch", "float32")
    assert chosen.dropped["torch bfloat16"] == "a convolution takes 70 times as long"


def test_openvino_without_bfloat16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take the setting and compute in float32, on a processor that has none."""
    pytest.importorskip("openvino")
    for can in (("FP32", "INT8"), ("FP32", "BF16")):
        monkeypatch.setattr(backends, "_openvino_can", lambda can=can: can)
        assert (why_not("openvino", "bfloat16") is None) == ("BF16" in can)
    assert why_not("openvino", "float32") is None


@pytest.mark.usefixtures("measured")
def test_an_openvino_that_does_not_load_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")

    def broken() -> None:
        raise ImportError("no libopenvino.so")

    monkeypatch.setattr(backends, "_openvino_core", broken)
    monkeypatch.setattr(backends, "_openvino_can", backends._openvino_can.__wrapped__)  # not what was asked before
    chosen = choose_engine(generator("resize"), "w", SIZE, 1, "cpu", "auto", "auto", Artefacts(None))
    assert chosen.engine == "torch"
    assert "no libopenvino.so" in chosen.dropped["openvino float32"]


@pytest.mark.usefixtures("measured")
def test_a_precision_that_changes_results_is_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    # A generator of random weights, whose mattes hover around 0.5: half precision flips many pixels of the masks.
    monkeypatch.setattr(choices, "MASK_AGREEMENT", 1.0)
    monkeypatch.setattr(choices, "GAIN", 0.0)  # whatever is left would win by any time
    network = generator("paper")
    automatic = choose_engine(network, "w", SIZE, 2, "cpu", "torch", "auto", Artefacts(None))
    assert automatic.precision == "float32"
    assert "IoU" in automatic.dropped["torch bfloat16"] or "changes the image" in automatic.dropped["torch bfloat16"]
    # Asked for by name it is what one gets.
    asked = choose_engine(network, "w", SIZE, 2, "cpu", "torch", "bfloat16", Artefacts(None))
    assert (asked.engine, asked.precision) == ("torch", "bfloat16")


@pytest.mark.usefixtures("measured")
def test_an_engine_that_breaks_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(openvino, "convert_model", broken)
    chosen = choose_engine(generator("resize"), "w", SIZE, 1, "cpu", "auto", "float32", Artefacts(tmp_path))
    assert (chosen.engine, chosen.precision) == ("torch", "float32")
    assert "no such instruction" in chosen.dropped["openvino float32"]
    with pytest.raises(EngineError, match="no such instruction"):
        build(generator("resize"), "w", "cpu", "openvino", "float32", Artefacts(tmp_path)).run(*soft_window(1))


def test_agreement_of_masks() -> None:
    one, other = -np.ones((2, 2), np.float32), -np.ones((2, 2), np.float32)
    assert mask_agreement(one, other) == 1.0
    one[0], other[:, 0] = 1, 1
    assert mask_agreement(one, other) == pytest.approx(1 / 3)


def test_probes_are_like_photos() -> None:
    image, masks = probe_window((96, 96), 2, 5)
    again, _ = probe_window((96, 96), 2, 5)
    np.testing.assert_array_equal(image, again)
    assert image.shape == (3, 96, 96)
    assert -1 <= image.min() < image.max() <= 1
    assert set(np.unique(masks)) == {-1.0, 1.0}
    assert all(0.02 < (mask > 0).mean() < 0.6 for mask in masks)
    # Natural images have amplitudes near 1/f: neighbours are alike, and much more so than those far away.
    grey = image.mean(axis=0)
    near, far = np.abs(np.diff(grey, axis=1)).mean(), np.abs(grey[:, 48:] - grey[:, :48]).mean()
    assert near < far / 3


def test_artefacts_are_whole_and_few(tmp_path: Path) -> None:
    kept = Artefacts(tmp_path / "artefacts")
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "model").write_text("m")

    for number in range(KEPT + 3):
        with kept.folder({"number": number}, make) as folder:
            assert (folder / "model").read_text() == "m"
            assert json.loads((folder / "inputs.json").read_text()) == {"number": number}
    with kept.folder({"number": KEPT + 2}, make):
        assert len(made) == KEPT + 3
    assert len(list((tmp_path / "artefacts").iterdir())) == KEPT

    def fails(folder: Path) -> None:
        (folder / "half").write_text("")
        raise ValueError

    with pytest.raises(ValueError), kept.folder({"number": "bad"}, fails):  # noqa: PT011
        pass
    assert len(list((tmp_path / "artefacts").iterdir())) == KEPT


def test_every_engine_is_documented() -> None:
    from instapipe.translation import engines

    for engine, precisions in PRECISIONS.items():
        assert engine in (engines.__doc__ or "")
        assert ", ".join(precisions) in (engines.__doc__ or "")
