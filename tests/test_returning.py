"""The way back, learnt from what the way there has made of photos."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_worlds
import worlds
from conftest import Cli
from numpy.typing import NDArray
from test_teaching import SIDE, Levels, generator

from instapipe.config import CompositingConfig, TranslatorCard
from instapipe.data.photos import read_photos
from instapipe.errors import DataError
from instapipe.networks.grader import Grader
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import adversary, returning
from instapipe.training.lessons import windows_of, worth_of
from instapipe.training.pairs import Pairs, Windows, legs_of, pairs_of, views_of
from instapipe.training.precision import Choice
from instapipe.training.returning import Returner, Returning
from instapipe.training.teaching import held_out
from instapipe.training.turns import Turns, cutting_for

GREY, RED, BLUE = 90, (200, 30, 30), (30, 30, 200)


def pairs(count: int = 64, seed: int = 0) -> Pairs:
    """Red bars that were made of blue ones twice as wide."""
    rng = np.random.default_rng(seed)
    masks, outlines = np.zeros((2, count, SIDE, SIDE), np.bool_)
    behind = np.full((count, SIDE, SIDE, 3), GREY, np.uint8)
    pixels, wanted = behind.copy(), behind.copy()
    for n in range(count):
        x, y, side = (int(rng.integers(*bounds)) for bounds in ((2, 10), (2, 10), (5, 9)))
        masks[n, y : y + 2 * side, x : x + side] = True
        outlines[n, y : y + 2 * side, x : x + 2 * side] = True
        pixels[n][masks[n]], wanted[n][outlines[n]] = RED, BLUE
    photos = tuple(f"{n % 16}.png" for n in range(count))
    grades = np.linspace(0, 2, count, dtype=np.float32)
    return Pairs(Windows(pixels, masks, behind, photos), wanted, outlines, grades)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discriminators for pictures of 32 px."""
    monkeypatch.setattr(adversary, "WIDTH", 8)
    monkeypatch.setattr(adversary, "HIDDEN", 16)


def returner(settings: Returning) -> Returner:
    backbone, compositing = FrozenBackbone(Levels(), SIDE), CompositingConfig(mode="matte", soften=3)
    others = pairs(32, seed=1).shown
    return Returner(generator(), pairs(), others, backbone, compositing, settings, torch.device("cpu"))


def test_what_was_made_learns_to_become_what_it_was_made_of() -> None:
    run = returner(Returning(steps=40, batch=6, rate=5e-3, least=0.5))
    before = run.measure()
    told = list(run.learn(20, lambda: None))
    assert run.measure() < 0.6 * before, "on photos that were held out, by the average of the weights"
    assert told[-1].held_out == pytest.approx(run.measure())
    assert {"matte", "style", "adversarial", "beyond", "critics"} <= told[0].losses.keys()
    shown = pairs()
    image = torch.from_numpy(shown.shown.pixels[run.held_out].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    masks = torch.from_numpy(shown.shown.masks[run.held_out].astype(np.float32) * 2 - 1)[:, None]
    with torch.inference_mode():
        _, made = run.average(image, masks, torch.ones(len(image), 1, dtype=torch.bool))
    wanted, found = shown.outlines[run.held_out], made[:, 0].numpy() > 0
    assert (wanted & found).sum() / (wanted | found).sum() > 0.7
    picture = run.picture()
    assert picture.dtype == np.uint8
    assert picture.std() > 0


def test_discriminators_learn_to_tell_a_generator_that_stays_as_it_is() -> None:
    run = returner(Returning(steps=30, batch=6, rate=0.0, least=0.5))
    judged = [each.losses["critics"] for each in run.learn(100, lambda: None)]
    assert np.mean(judged[-5:]) < 0.8 * np.mean(judged[:5])
    same = zip(run.average.state_dict().values(), generator().state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in same)


def test_a_generator_learns_to_be_taken_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """By discriminators that stay as they are, without any other loss."""
    monkeypatch.setattr(returning, "_CRITIC_RATE", 0.0)
    monkeypatch.setattr(returning, "_RAMP", 1)
    monkeypatch.setattr(returning, "teaching_losses", lambda raw, *_: {"colour": 0 * raw.sum()})
    monkeypatch.setattr(returning, "continued", lambda image, _: image)
    monkeypatch.setattr(returning, "choose_precision", lambda *_: Choice("float32", "as asked"))
    ends = {}
    for rate in (0.0, 3e-3):  # their spectral norms settle meanwhile, so the one is compared with the other
        run = returner(Returning(steps=20, batch=6, rate=rate, least=0.5))
        ends[rate] = np.mean([each.losses["adversarial"] for each in run.learn(100, lambda: None)][-5:])
    assert ends[3e-3] < ends[0.0] - 0.002


def test_only_good_pairs_of_other_photos_are_learnt_from() -> None:
    known, least = pairs(), 1.2
    run = returner(Returning(batch=4, least=least))
    apart = held_out(known.photos)
    assert set(run.learnt) == set(np.flatnonzero(~apart & (known.grades >= least)))
    assert set(run.held_out) == set(np.flatnonzero(apart & (known.grades >= least)))
    with pytest.raises(DataError, match=r"0 of 64 pairs are good enough .* lower --least or --legs"):
        returner(Returning(batch=4, least=3))
    with pytest.raises(DataError, match="0 of 64 pairs"):
        returner(Returning(batch=4, legs=2))  # bars have none
    with pytest.raises(DataError, match=r"28 windows of the target .* fewer --others"):
        returner(Returning(batch=4, others=30))


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine what is measured may differ from run to run: a run keeps what it began with.
    answers = iter(["bfloat16", "bfloat16", "float32"])
    monkeypatch.setattr(returning, "choose_precision", lambda *_: Choice(next(answers), "as measured"))
    settings = Returning(steps=6, batch=4, rate=1e-3, least=0.5)
    training_worlds.assert_goes_on_exactly(lambda: returner(settings), tmp_path)


def standing(legs: int) -> NDArray[np.bool_]:
    plane = np.zeros((64, 64), np.uint8)
    cv2.rectangle(plane, (8, 10), (56, 34), 1, -1)
    for leg in range(legs):
        cv2.rectangle(plane, (10 + 14 * leg, 30), (13 + 14 * leg, 56), 1, -1)
    return plane.astype(np.bool_)


def test_legs_that_can_be_seen_are_counted() -> None:
    lying = cv2.ellipse(np.zeros((64, 64), np.uint8), (32, 44), (24, 12), 0, 0, 360, 1, -1).astype(np.bool_)
    assert legs_of(np.stack([standing(2), standing(3), standing(4), lying])).tolist() == [2, 3, 4, 1]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The COCO JSON of six photos of one animal each, by turns a sheep and a giraffe."""
    return training_worlds.write_animals(tmp_path / "photos")


def test_pairs_have_the_photo_as_their_answer(
    photos: Path, ground_weights: Path, grader: Grader, tmp_path: Path
) -> None:
    card = TranslatorCard.model_validate_json((ground_weights / "card.json").read_text())
    turns = Turns(card, ground_weights, "source_to_target", max_company=1.0)
    samples = windows_of(read_photos(photos, "sheep"), turns.cutting)
    done: list[int] = []
    made = pairs_of(samples, turns, grader, seed=0, view=1, done=done.append)
    assert done == [*range(1, len(samples) + 1)]
    shown = made.shown
    assert len(made) == len(samples)
    for n in range(len(made)):
        inside = shown.masks[n] | made.outlines[n]
        beside = ~cv2.dilate(inside.astype(np.uint8), np.ones((13, 13))).astype(np.bool_)
        assert np.array_equal(shown.pixels[n][beside], made.wanted[n][beside])
        assert np.array_equal(shown.behind[n][beside], made.wanted[n][beside])
        assert not np.array_equal(shown.pixels[n][shown.masks[n]], made.wanted[n][shown.masks[n]])
        if beside.any():  # else there is nothing to fill it with
            assert not np.array_equal(shown.behind[n][made.outlines[n]], made.wanted[n][made.outlines[n]])
    made.write(tmp_path / "one.npz")
    read = Pairs.read(tmp_path / "one.npz")
    assert (read.photos, read.grades.tolist()) == (made.photos, made.grades.tolist())
    assert np.array_equal(read.outlines, made.outlines)
    (tmp_path / "half.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:1000])
    with pytest.raises(DataError, match="remove it"):
        Pairs.read(tmp_path / "half.npz")
    ungraded = pairs_of(samples, turns, None, seed=0, view=1, done=done.append)
    assert np.array_equal(ungraded.shown.pixels, made.shown.pixels), "the same by the same seed"
    assert not ungraded.grades.any()
    other = pairs_of(samples, turns, None, seed=0, view=2, done=done.append)
    assert other.photos == made.photos
    assert not np.array_equal(other.wanted, made.wanted), "another crop"
    for mask, grade in zip(shown.masks, made.grades, strict=True):
        assert worth_of(grader, mask.astype(np.float32)) == pytest.approx(float(grade), abs=0.5)

    cutting = cutting_for(card, "target_to_source", 1.0, 0.0)
    giraffes = windows_of(read_photos(photos, "giraffe"), cutting)
    seen = views_of(giraffes, cutting, card.compositing, seed=0, views=2)
    assert seen.photos == ("1.png", "3.png", "5.png") * 2


def test_the_way_back_of_weights_is_learnt(
    cli: Cli, photos: Path, ground_weights: Path, whole_weights: Path, tmp_path: Path
) -> None:
    """From weights to weights of which the way back alone has changed; a second call changes nothing."""
    train = (
        "train-back", "--source-data", photos, "--target-data", photos,
        "--weights", ground_weights, "--output", tmp_path / "run", "--views", 2, "--steps", 2, "--batch", 2,
        "--device", "cpu",
    )  # fmt: skip
    ran = cli(*train, "--legs", 6, "--export", tmp_path / "after")
    assert (ran.code, "lower --least or --legs" in ran.err) == (1, True)
    ran = cli(*train, "--export", tmp_path / "after")
    assert ran.code == 0, "what was asked for in vain does not stand in the way: " + ran.err
    assert "held out" in ran.out
    assert cli("weights", "verify", tmp_path / "after").code == 0
    before = json.loads((ground_weights / "card.json").read_text())
    after = json.loads((tmp_path / "after/card.json").read_text())
    assert "2 steps of 2 of" in after["provenance"]
    assert after["target_size"] is None
    ways = [
        {way: card["directions"][way]["sha256"] for way in ("source_to_target", "target_to_source")}
        for card in (before, after)
    ]
    assert ways[0]["target_to_source"] != ways[1]["target_to_source"]
    assert ways[0]["source_to_target"] == ways[1]["source_to_target"]
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
    one_way = worlds.copy_weights(
        ground_weights, tmp_path / "one-way", directions={"source_to_target": before["directions"]["source_to_target"]}
    )
    ran = cli(*train[:6], one_way, *train[7:], "--export", tmp_path / "third")
    assert (ran.code, "target_to_source is missing" in ran.err) == (2, True)
    ran = cli(*train, "--least", 1, "--export", tmp_path / "third")
    assert (ran.code, "have no grader: instapipe grade attach" in ran.err) == (2, True)
    ran = cli(*train[:6], whole_weights, *train[7:], "--export", tmp_path / "third")
    assert (ran.code, "make no outlines" in ran.err) == (2, True)
    assert not (tmp_path / "third").exists()
    assert after["target_round_trips"] == 2
    translate = (
        "translate", photos.parent / "images/1.png", "--masks", photos, "--source", "giraffe", "--target", "sheep",
        "--weights", tmp_path / "after", "--device", "cpu", "--cache", tmp_path / "cache",
    )  # fmt: skip
    backs = []
    for name, more in (("trips", ()), ("soon", ("--tries", 1))):
        ran = cli(*translate, *more, "--output", tmp_path / f"{name}.png")
        assert ran.code == 0, ran.err
        report = json.loads((tmp_path / f"{name}.report.json").read_text())
        backs.append(report["result"]["weights"]["back"])
    assert backs == [after["directions"]["source_to_target"]["sha256"], None]
    assert (tmp_path / "trips.png").read_bytes() != (tmp_path / "soon.png").read_bytes()
