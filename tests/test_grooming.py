"""Coats, learnt from real instances while outlines stay."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import training_worlds
from conftest import Cli
from numpy.typing import NDArray
from test_teaching import SIDE, Levels, generator

from instapipe.config import CompositingConfig
from instapipe.errors import DataError
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import grooming
from instapipe.training.grooming import Groomer, Grooming, body_of, coat_distance, common, on_a_colour, thinned
from instapipe.training.pairs import Batch, Windows, translated
from instapipe.training.precision import Choice

GREY, BLUE = 90, (60, 60, 200)


def bars(count: int, seed: int, *, tall: bool, colour: tuple[int, int, int]) -> Windows:
    """Bars, upright or lying, so that made and real ones differ in outline."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, SIDE, SIDE), np.bool_)
    pixels = np.full((count, SIDE, SIDE, 3), GREY, np.uint8)
    behind = pixels.copy()
    for n in range(count):
        x, y, side = (int(rng.integers(*bounds)) for bounds in ((2, 6), (2, 6), (8, 11)))
        high, wide = (2 * side, side) if tall else (side, 2 * side)
        masks[n, y : y + high, x : x + wide] = True
        pixels[n][masks[n]] = np.clip(np.array(colour) + rng.integers(-40, 41, 3), 0, 255)
    return Windows(pixels, masks, behind, tuple(f"{seed}-{n % 16}.png" for n in range(count)))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discriminators for pictures of 32 px, and for few steps; bars have no legs."""
    monkeypatch.setattr(grooming, "_LEGS", 0.0)
    monkeypatch.setattr(grooming, "_CRITIC_RATE", 1e-3)
    monkeypatch.setattr(grooming, "WIDTH", 8)
    monkeypatch.setattr(grooming, "HIDDEN", 16)
    monkeypatch.setattr(grooming, "choose_precision", lambda *_: Choice("float32", "as asked"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The COCO JSON of six photos of one animal each, by turns a sheep and a giraffe."""
    return training_worlds.write_animals(tmp_path / "photos")


def groomer(settings: Grooming) -> Groomer:
    backbone, compositing = FrozenBackbone(Levels(), SIDE), CompositingConfig(mode="matte", soften=3)
    shown = bars(48, 1, tall=False, colour=(200, 200, 200))
    real = bars(48, 2, tall=True, colour=BLUE)
    return Groomer(generator(), shown, real, backbone, compositing, settings, torch.device("cpu"))


def made(network: SetGenerator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What becomes of bars that are shown, image and matte."""
    windows = bars(8, 1, tall=False, colour=(200, 200, 200))
    with torch.inference_mode():
        raw, matte = translated(network, Batch.of(windows, range(8), torch.device("cpu")))
    return raw.numpy(), matte.numpy()


def test_coats_learn_to_be_taken_for_real_and_outlines_stay() -> None:
    """By discriminators that have learnt alone and then stay as they are."""
    alone = 25
    run = groomer(Grooming(steps=alone + 40, batch=8, rate=2e-3, alone=alone))
    raw, matte = made(generator())
    told = []
    for each in run.learn(alone + 40, lambda: None):
        told.append(each)
        if each.step == alone:
            for group in run._critic_optimizer.param_groups:
                group["lr"] = 0.0
    fooled = [each.losses["adversarial"] for each in told]
    assert np.mean(fooled[-5:]) < np.mean(fooled[alone - 5 : alone]) - 0.4
    new_raw, new_matte = made(run.average)
    assert np.abs(new_raw - raw).mean() > 0.3
    assert np.abs(new_matte - matte).mean() < 0.05
    assert told[-1].held_out == run.measure()
    before, reached, mixed = (net.state_dict() for net in (generator(), run.average, run.outcome()))
    assert all(torch.allclose(mixed[name], (before[name] + reached[name]) / 2) for name in mixed), "half of each"
    assert {"matte", "beyond", "legs", "adversarial", "critics"} == told[0].losses.keys()
    picture = run.picture()
    assert picture.dtype == np.uint8
    assert picture.std() > 0


def test_at_first_the_discriminators_learn_alone() -> None:
    run = groomer(Grooming(steps=60, batch=6, alone=30))
    judged = [each.losses["critics"] for each in itertools.islice(run.learn(100, lambda: None), 30)]
    assert np.mean(judged[-5:]) < 0.8 * np.mean(judged[:5])
    same = zip(run.average.state_dict().values(), generator().state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in same)


def test_what_is_cut_out_by_the_common_outline_has_one_silhouette(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grooming, "_COMMON", 1.0)
    one, two = torch.zeros(2, 3, 1, SIDE, SIDE)
    one[:, :, 4:20, 4:28] = 1
    two[0, :, 4:28, 4:20] = 1  # two thirds of the other
    two[1, :, 18:28, 4:20] = 1  # hardly any
    mine, theirs = common(one, two, np.random.default_rng(0))
    assert torch.equal(mine[0], theirs[0])
    assert mine[0].sum() == 16 * 16
    assert torch.equal(mine[1:], one[1:]), "too little in common: as they are"
    assert torch.equal(theirs[1:], two[1:])
    monkeypatch.setattr(grooming, "_COMMON", 0.0)
    mine, theirs = common(one, two, np.random.default_rng(0))
    assert torch.equal(mine, one)
    assert torch.equal(theirs, two)


def test_outlines_are_thinned_by_a_pixel() -> None:
    outline = torch.zeros(1, 1, 12, 12)
    outline[:, :, 2:9, 3:8] = 0.8
    thin = thinned(outline)
    assert thin.sum() == pytest.approx(5 * 3 * 0.8)
    assert (thin[:, :, 3:8, 4:7] == 0.8).all()
    assert (thinned(torch.ones(1, 1, 6, 6)) == 1).all(), "not at the border of the window"


def test_legs_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay as they were: a body on thin legs, of which the critics see the body; thick ones stand too low."""
    monkeypatch.setattr(grooming, "_LEGS", 0.38)
    animal = torch.zeros(2, 1, 24, 24)
    animal[:, :, 2:15, 3:20] = 1
    body = animal.clone()
    for x in (3, 9, 17):
        animal[0, :, 15:22, x : x + 3] = 1
    animal[1, :, 15:22, 3:12] = 1
    assert torch.equal(body_of(animal), body * (torch.arange(24) < 22 - 0.38 * 20)[:, None])
    assert (body_of(torch.ones(1, 1, 8, 8))[:, :, :4] == 1).all(), "not at the border of the window"
    assert not body_of(torch.zeros(1, 1, 8, 8)).any()


def test_no_colour_hides_an_instance() -> None:
    grey, outline = torch.zeros(64, 3, 8, 8), torch.zeros(64, 1, 8, 8)
    outline[:, :, 2:6, 2:6] = 1
    shown = on_a_colour(grey, outline, torch.Generator().manual_seed(0))
    assert (shown[:, :, 3, 3] == 0).all()
    behind = shown[:, :, 0, 0]
    assert (behind.abs().max(dim=1).values > 0.1).all()
    assert (behind.std(dim=0) > 0.4).all()


def test_the_distance_of_coats_is_in_units_of_what_real_ones_vary_by() -> None:
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(400, 3, generator=rng) * torch.tensor([1.0, 10.0, 0.1])
    assert coat_distance(real, real) == 0
    assert coat_distance(real + 2 * real.std(dim=0), real) == pytest.approx(4)
    assert coat_distance(real * 1e3, real * 1e3 + 1e3 * real.std(dim=0)) == pytest.approx(1, rel=1e-4)
    assert coat_distance(real.mean(dim=0).expand(9, -1), real) == pytest.approx(1), "all alike: their spread is missing"


def test_too_few_windows_are_named() -> None:
    with pytest.raises(DataError, match=r"48 windows of the source|windows of the source can be learnt from"):
        groomer(Grooming(batch=100))


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["bfloat16", "bfloat16", "float32"])
    monkeypatch.setattr(grooming, "choose_precision", lambda *_: Choice(next(answers), "as measured"))
    settings = Grooming(steps=6, batch=4, rate=1e-3, alone=2)
    training_worlds.assert_goes_on_exactly(lambda: groomer(settings), tmp_path)


def test_weights_get_coats(cli: Cli, photos: Path, ground_weights: Path, whole_weights: Path, tmp_path: Path) -> None:
    """From weights to weights of which the way there alone has changed; a second call changes nothing."""
    train = (
        "train-coats", "--source-data", photos, "--target-data", photos, "--weights", ground_weights,
        "--output", tmp_path / "run", "--views", 2, "--steps", 2, "--batch", 2, "--device", "cpu",
    )  # fmt: skip
    ran = cli(*train, "--batch", 50, "--export", tmp_path / "after")
    assert (ran.code, "of which a step takes 50" in ran.err) == (1, True)
    ran = cli(*train, "--export", tmp_path / "after")
    assert ran.code == 0, "what was asked for in vain does not stand in the way: " + ran.err
    assert "distance of coats" in ran.out
    assert cli("weights", "verify", tmp_path / "after").code == 0
    before, after = (json.loads((path / "card.json").read_text()) for path in (ground_weights, tmp_path / "after"))
    assert "outlines kept: 2 steps of 2 of" in after["provenance"]
    ways = [
        [card["directions"][way]["sha256"] for way in ("source_to_target", "target_to_source")]
        for card in (before, after)
    ]
    assert ways[0][0] != ways[1][0]
    assert ways[0][1] == ways[1][1]
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 2
    pictures = sorted(path.name for path in (tmp_path / "run/samples").iterdir())
    assert pictures == ["step-00000.png", "step-00002.png"]
    ran = cli(*train, "--export", tmp_path / "again")
    assert ran.code == 0, "the run is done, its weights are written once more"
    again = json.loads((tmp_path / "again/card.json").read_text())
    assert (again["directions"], again["provenance"]) == (after["directions"], after["provenance"])
    ran = cli(*train, "--export", tmp_path / "after")
    assert (ran.code, "never overwritten" in ran.err) == (2, True)
    ran = cli(*train, "--rate", 0.1, "--export", tmp_path / "third")
    assert (ran.code, "with rate 0.0002, not 0.1" in ran.err) == (2, True)
    wrong = tmp_path / "wrong.yaml"
    giraffes = [entry["file_name"] for entry in json.loads(photos.read_text())["images"]][1::2]
    wrong.write_text(f"base: animals\ndata: {{exclude: {json.dumps(giraffes)}}}\n")
    ran = cli(*train, "--config", wrong, "--export", tmp_path / "third")
    assert (ran.code, "no usable instance in 0 photos" in ran.err) == (1, True), "nothing of those"
    ran = cli(*train[:6], whole_weights, *train[7:], "--export", tmp_path / "third")
    assert (ran.code, "make no outlines" in ran.err) == (2, True)
    assert not (tmp_path / "third").exists()
