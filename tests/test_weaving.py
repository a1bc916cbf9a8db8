"""Coats that go on evenly from an animal's middle, while outlines stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import training_worlds
import worlds
from conftest import Cli
from test_teaching import SIDE, Levels, generator

from instapipe.config import CompositingConfig
from instapipe.errors import DataError
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import weaving
from instapipe.training.pairs import Batch, Windows, translated
from instapipe.training.precision import Choice
from instapipe.training.weaving import Places, Weaver, Weaving, apart, closer


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """For pictures of 32 px."""
    monkeypatch.setattr(weaving, "_UP", 48)
    monkeypatch.setattr(weaving, "_MIDDLE", (0.3, 0.7))
    monkeypatch.setattr(weaving, "choose_precision", lambda *_: Choice("float32", "as asked"))


def animal(side: int) -> torch.Tensor:
    """An outline that looks to the right, (1, 1, side, side): trunk on two legs, neck, head."""
    outline = torch.zeros(1, 1, side, side)
    for left, top, right, bottom in (
        (0.10, 0.40, 0.75, 0.68), (0.12, 0.60, 0.25, 0.95), (0.60, 0.60, 0.73, 0.95), (0.60, 0.05, 0.75, 0.50),
        (0.70, 0.05, 0.90, 0.14),
    ):  # fmt: skip
        outline[:, :, round(top * side) : round(bottom * side), round(left * side) : round(right * side)] = 1
    return outline


def herd(count: int = 32) -> Windows:
    rng = np.random.default_rng(0)
    mask = animal(SIDE)[0, 0].numpy() > 0
    pixels = rng.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    return Windows(
        pixels, np.stack([mask] * count), np.full_like(pixels, 90), tuple(f"{n % 16}.png" for n in range(count))
    )


class Painter(SetGenerator):
    """A generator that hands the masks back, so that there is an outline at once; bright to the right."""

    def forward(
        self, image: torch.Tensor, masks: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raw, _ = super().forward(image, masks, valid)
        return raw * 0.5 + torch.linspace(-0.4, 0.4, image.shape[-1]), masks


def painter() -> Painter:
    like = generator()
    network = Painter(like.config)
    network.load_state_dict(like.state_dict())
    return network


def weaver(settings: Weaving) -> Weaver:
    backbone = FrozenBackbone(Levels(), SIDE)
    return Weaver(painter(), herd(), backbone, CompositingConfig(mode="matte"), settings, torch.device("cpu"))


def test_rump_takes_on_the_middle_s_coat_and_the_middle_keeps_it() -> None:
    run = weaver(Weaving(steps=120, batch=4, rate=3e-3))
    before = run.measure()
    told = list(run.learn(120, lambda: None))
    assert {"texture", "patches", "legs", "stay", "beyond"} == told[0].losses.keys()
    assert told[-1].held_out == run.measure()
    assert run.measure() < 0.7 * before
    batch = Batch.of(herd(), range(8), torch.device("cpu"))
    with torch.inference_mode():
        (was, _), (now, _) = (translated(network, batch) for network in (painter(), run.average))
    places = Places.of(batch.masks)

    def brightness(image: torch.Tensor, where: torch.Tensor) -> float:
        return float((image.mean(dim=1, keepdim=True) * where).sum() / where.sum())

    rump = (places.rest == 1).float()
    rump[..., SIDE // 2 :] = 0
    gap = brightness(was, places.middle) - brightness(was, rump)
    assert gap > 0.15
    assert abs(brightness(was, places.middle) - brightness(now, rump)) < 0.5 * gap
    assert abs(brightness(was, places.middle) - brightness(now, places.middle)) < 0.25 * gap
    assert run.picture().std() > 0


def test_nothing_but_the_image_s_decoder_learns() -> None:
    run = weaver(Weaving(steps=3, batch=4, rate=1e-2))
    for _ in run.learn(10, lambda: None):
        pass
    before = painter().state_dict()
    same = {name for name, value in run.average.state_dict().items() if torch.equal(value, before[name])}
    assert {name for name in before if not name.startswith("decoder_image.")} <= same
    assert not {name for name in before if name.startswith("decoder_image.") and name.endswith("weight")} & same


def test_places_on_an_animal() -> None:
    side = 100
    outline = animal(side)
    places = Places.of(outline)
    assert places.boxes == [(10, 5, 90, 95)]
    assert not (places.legs * torch.maximum(places.middle, places.rest)).any()

    def at(what: torch.Tensor, x: float, y: float) -> float:
        return float(what[0, 0, round(y * side), round(x * side)])

    assert [at(places.middle, x, y) for x, y in ((0.5, 0.45), (0.2, 0.45), (0.68, 0.3))] == [1, 0, 0], (
        "trunk, rump, neck"
    )
    assert [at(places.rest, x, y) for x, y in ((0.2, 0.45), (0.68, 0.3), (0.85, 0.1))] == [1, 1, 0], "not the head"
    assert [at(places.legs, x, y) for x, y in ((0.2, 0.75), (0.2, 0.9), (0.5, 0.45))] == [1, 1, 0]
    assert [at(places.feet, x, y) for x, y in ((0.2, 0.7), (0.2, 0.9))] == [0, 1]
    assert 0 < at(places.rest, 0.47, 0.45) < 1, "no seam"
    nothing = Places.of(torch.zeros(1, 1, 32, 32))
    assert not any(part.any() for part in (nothing.middle, nothing.rest, nothing.legs))


def test_textures_are_compared_as_distributions() -> None:
    rng = torch.Generator().manual_seed(0)
    theirs = torch.randn(400, 3, generator=rng) * torch.tensor([1.0, 10.0, 0.1])
    axes = torch.eye(3)
    assert apart(theirs, theirs, axes) == 0
    assert apart(theirs[torch.randperm(400, generator=rng)], theirs, axes) == pytest.approx(0, abs=1e-5), "not by place"
    assert apart(theirs.repeat(2, 1), theirs, axes) < 0.01, "whatever their number"
    assert apart(theirs + theirs.std(dim=0), theirs, axes) == pytest.approx(1, rel=0.02)
    assert apart(theirs.mean(dim=0).expand(50, -1), theirs, axes) > 0.5, "one colour is no coat"


def test_what_is_looked_at_holds_trunk_or_neck() -> None:
    where = torch.zeros(1, 1, 100, 100)
    where[:, :, 40:68, 10:75] = 1
    (trunk, neck) = (closer([(10, 5, 90, 95)], 100, near=near) for near in (False, True))
    assert trunk.shape == (1, 48, 48, 2)
    seen = torch.nn.functional.grid_sample(where, trunk, align_corners=False)
    part = 60.0  # three quarters of 80 px
    assert float(seen.mean()) * part**2 == pytest.approx(28 * 56, rel=0.2), "most of the trunk, enlarged"
    assert neck.min() >= -1
    assert neck.max() <= 1
    assert float(neck[..., 1].mean()) < float(trunk[..., 1].mean()), "necks are above"


def test_too_few_windows_are_named() -> None:
    with pytest.raises(DataError, match="windows can be learnt from, of which a step takes 100"):
        weaver(Weaving(batch=100))


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["bfloat16", "bfloat16", "float32"])
    monkeypatch.setattr(weaving, "choose_precision", lambda *_: Choice(next(answers), "as measured"))
    training_worlds.assert_goes_on_exactly(lambda: weaver(Weaving(steps=6, batch=4, rate=1e-3)), tmp_path)


def test_weights_get_even_coats(cli: Cli, ground_weights: Path, tmp_path: Path) -> None:
    """From weights to weights of which the way there alone has changed."""
    photos = training_worlds.write_animals(tmp_path / "photos")
    right = worlds.copy_weights(ground_weights, tmp_path / "right", facing="right")
    train = (
        "train-texture", "--source-data", photos, "--output", tmp_path / "run", "--steps", 2, "--batch", 2,
        "--device", "cpu", "--weights",
    )  # fmt: skip
    ran = cli(*train, right, "--export", tmp_path / "after")
    assert ran.code == 0, ran.err
    assert "distance of textures" in ran.out
    assert cli("weights", "verify", tmp_path / "after").code == 0
    before, after = (json.loads((path / "card.json").read_text()) for path in (right, tmp_path / "after"))
    assert "outlines kept: 2 steps of 2 of" in after["provenance"]
    changed = [
        before["directions"][way]["sha256"] != after["directions"][way]["sha256"]
        for way in ("source_to_target", "target_to_source")
    ]
    assert changed == [True, False]
    assert sorted(path.name for path in (tmp_path / "run/samples").iterdir()) == ["step-00000.png", "step-00002.png"]
    ran = cli(*train, right, "--export", tmp_path / "after")
    assert (ran.code, "never overwritten" in ran.err) == (2, True)
    ran = cli(*train, ground_weights, "--export", tmp_path / "third")
    assert (ran.code, "facing: any" in ran.err) == (2, True)
    assert not (tmp_path / "third").exists()
