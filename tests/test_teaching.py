"""A generator that learns to make at once what was the best of its own tries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import training_worlds
import worlds
from conftest import Cli
from graded_worlds import animal
from torch import nn

from instapipe.config import GeneratorConfig, TranslatorCard
from instapipe.data.photos import read_photos
from instapipe.errors import DataError
from instapipe.networks.blocks import initialise
from instapipe.networks.generator import SetGenerator
from instapipe.networks.grader import Grader, read_grader
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import teaching
from instapipe.training.lessons import WORST, Lessons, lessons_of, windows_of, worth_of
from instapipe.training.precision import Choice
from instapipe.training.teaching import Teacher, Teaching, held_out, teaching_losses
from instapipe.training.turns import Turns

SIDE = 32


class Levels(nn.Module):
    """A stand-in for the ImageNet network where what it sees does not matter: four levels of fixed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(3 if n == 0 else 4, 4, 3, 2, 1) for n in range(4))
        for layer in self.layers:
            initialise(layer, rng, std=0.3)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        out = []
        for layer in self.layers:
            x = torch.tanh(layer(x))
            out.append(x)
        return out


def generator() -> SetGenerator:
    net = SetGenerator(GeneratorConfig(form="resize", width=8, encoder_blocks=1, decoder_blocks=1))
    initialise(net, torch.Generator().manual_seed(0), std=0.05)
    return net


def lessons(count: int = 64) -> Lessons:
    """Squares that are to become squares half as wide, in red; the photo says nothing."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, SIDE, SIDE), np.bool_)
    mattes = np.zeros((count, SIDE, SIDE), np.uint8)
    for n in range(count):
        x, y, side = (int(rng.integers(*bounds)) for bounds in ((2, 12), (2, 12), (10, 16)))
        masks[n, y : y + side, x : x + side] = True
        mattes[n, y : y + side, x : x + side // 2] = 255
    raws = np.broadcast_to(np.array([200, 30, 30], np.uint8), (count, SIDE, SIDE, 3))
    grades = np.linspace(0, 2, count, dtype=np.float32)
    photos = tuple(f"{n % 16}.png" for n in range(count))
    return Lessons(np.full_like(raws, 90), masks, np.array(raws), mattes, grades, grades - 1, photos)


def teacher(grader: Grader, settings: Teaching) -> Teacher:
    return Teacher(generator(), lessons(), grader, FrozenBackbone(Levels(), SIDE), settings, torch.device("cpu"))


def test_it_learns_what_it_is_shown(grader: Grader) -> None:
    taught = teacher(grader, Teaching(steps=80, batch=8, rate=3e-3, least=0.5))
    losses = [each.losses["matte"] for each in taught.learn(80, lambda: None)]
    assert np.mean(losses[-5:]) < 0.35 * np.mean(losses[:5])
    unseen = lessons()
    shown = torch.from_numpy(unseen.masks[taught.held_out].astype(np.float32) * 2 - 1)[:, None]
    image = torch.full((len(shown), 3, SIDE, SIDE), 90 / 127.5 - 1)
    with torch.inference_mode():
        _, made = taught.average(image, shown, torch.ones(len(shown), 1, dtype=torch.bool))
    wanted = unseen.mattes[taught.held_out] > 127
    found = made[:, 0].numpy() > 0
    overlap = (wanted & found).sum() / (wanted | found).sum()
    assert overlap > 0.75, "photos that were held out, by the average of the weights"


def test_only_good_lessons_of_other_photos_are_learnt_from(grader: Grader) -> None:
    taught = teacher(grader, Teaching(batch=4, least=1.2))
    apart = held_out(lessons().photos)
    assert sorted({lessons().photos[n] for n in taught.held_out}) == sorted(
        {photo for photo, out in zip(lessons().photos, apart, strict=True) if out}
    )
    assert not set(taught.learnt) & set(taught.held_out)
    assert (lessons().grades[taught.learnt] >= 1.2).all()
    assert len(taught.learnt) == int(((lessons().grades >= 1.2) & ~apart).sum())
    assert held_out(lessons().photos[:7]).tolist() == apart[:7].tolist(), "of some of the photos the same"
    with pytest.raises(DataError, match="0 of 64 lessons have a grade of 3"):
        teacher(grader, Teaching(batch=4, least=3))


def test_a_run_that_was_stopped_goes_on_exactly(
    grader: Grader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine what is measured may differ from run to run: a run keeps what it began with.
    answers = iter(["bfloat16", "bfloat16", "float32"])
    monkeypatch.setattr(teaching, "choose_precision", lambda *_: Choice(next(answers), "as measured"))
    settings = Teaching(steps=6, batch=4, rate=1e-3, least=0.5)
    training_worlds.assert_goes_on_exactly(lambda: teacher(grader, settings), tmp_path)


def test_every_loss_is_nothing_where_nothing_is_wrong() -> None:
    rng = torch.Generator().manual_seed(0)
    # Of one colour: outside the outline the coat goes on.
    raw, matte = torch.full((2, 3, 24, 24), 0.3), torch.rand(2, 1, 24, 24, generator=rng)
    levels = [torch.rand(4, 5, 12 // 2**n + 1, 12 // 2**n + 1, generator=rng) for n in range(4)]
    same = teaching_losses(raw, matte, raw, matte, levels, levels)
    assert {name: float(value) for name, value in same.items()} == pytest.approx(dict.fromkeys(same, 0.0), abs=1e-6)
    other = teaching_losses(raw, matte, -raw, 1 - matte, levels, [level + 1 for level in levels])
    assert all(float(value) > 0 for value in other.values())
    # Coats are compared by the correlations of their features: where the same ones stand elsewhere nothing is lost.
    moved = [level.flip(2) for level in levels]
    assert float(teaching_losses(raw, matte, raw, matte, moved, levels)["style"]) == pytest.approx(0, abs=1e-5)
    assert float(teaching_losses(raw, matte, raw, matte, moved, levels)["outline"]) > 0.1


def test_a_head_that_is_cut_off_is_worth_less(grader: Grader) -> None:
    matte = animal(np.random.default_rng(0), True).astype(np.float32) / 255
    moved = np.roll(matte, -int(np.flatnonzero(matte.any(axis=1))[0]) - 2, axis=0)
    cut = moved.copy()
    cut[-2:] = 0
    assert worth_of(grader, cut) < worth_of(grader, matte) - 0.7
    assert worth_of(grader, np.zeros((96, 96), np.float32)) == WORST


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    size = (200, 280)
    folder = tmp_path / "photos"
    for n in range(4):
        blob = (140, 100, 60 - 4 * n, 40)
        worlds.write_photo(folder / f"{n}.png", worlds.photo_pixels((blob,), None, size=size, seed=n))
        worlds.write_masks(folder / f"{n}.masks", f"{n}", (blob,), size=size)
    return folder


def test_of_the_first_try_and_its_round_trips_the_best_is_the_lesson(
    photos: Path, ground_weights: Path, grader: Grader, tmp_path: Path
) -> None:
    card = TranslatorCard.model_validate_json((ground_weights / "card.json").read_text())
    turns = Turns(card, ground_weights, "source_to_target", max_company=1.0)
    samples = windows_of(read_photos(photos, "sheep"), turns.cutting)
    done: list[int] = []
    made = lessons_of(samples, turns, grader, seed=0, view=1, done=done.append)
    assert done == [1, 2, 3, 4]
    assert (made.grades >= made.first).all()
    assert made.pixels.shape == made.raws.shape == (len(made), SIDE, SIDE, 3)
    for matte, grade in zip(made.mattes, made.grades, strict=True):
        assert worth_of(grader, matte.astype(np.float32) / 255) == pytest.approx(float(grade), abs=0.05)
    made.write(tmp_path / "one.npz")
    read = Lessons.read(tmp_path / "one.npz")
    assert read.photos == made.photos
    assert np.array_equal(read.mattes, made.mattes)
    again = lessons_of(samples, turns, grader, seed=0, view=1, done=done.append)
    other = lessons_of(samples, turns, grader, seed=0, view=2, done=done.append)
    assert np.array_equal(again.pixels, made.pixels)
    assert not np.array_equal(other.pixels, made.pixels)


def test_weights_are_taught(cli: Cli, photos: Path, ground_weights: Path, grader_file: Path, tmp_path: Path) -> None:
    """From weights with a grader to weights that were taught, which translate; a second call changes nothing."""
    ran = cli("grade", "attach", grader_file, "--weights", ground_weights, "-o", tmp_path / "before")
    assert ran.code == 0, ran.err
    teach = (
        "grade", "teach", "--data", photos, "--weights", tmp_path / "before", "--output", tmp_path / "run",
        "--views", 2, "--least", -9, "--steps", 2, "--batch", 2, "--device", "cpu",
    )  # fmt: skip
    ran = cli(*teach, "--export", tmp_path / "after")
    assert ran.code == 0, ran.err
    assert "held out" in ran.out
    assert cli("weights", "verify", tmp_path / "after").code == 0
    before, after = (json.loads((tmp_path / name / "card.json").read_text()) for name in ("before", "after"))
    assert after["name"] == "after"
    assert "Taught by its own best tries: 2 steps of 2" in after["provenance"]
    assert after["grader"] == before["grader"]
    assert after["directions"]["target_to_source"]["sha256"] == before["directions"]["target_to_source"]["sha256"]
    assert after["directions"]["source_to_target"]["sha256"] != before["directions"]["source_to_target"]["sha256"]
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 2
    ran = cli(*teach, "--export", tmp_path / "again")
    assert ran.code == 0, "the run is done, its weights are written once more"
    again = json.loads((tmp_path / "again/card.json").read_text())
    assert again["directions"] == after["directions"]
    assert again["provenance"] == after["provenance"], "what was reached is measured, not forgotten"
    ran = cli(*teach, "--export", tmp_path / "after")
    assert (ran.code, "never overwritten" in ran.err) == (2, True)
    ran = cli(*teach, "--rate", 0.1, "--export", tmp_path / "third")
    assert (ran.code, "with rate 0.0002, not 0.1" in ran.err) == (2, True)
    assert not (tmp_path / "third").exists()
    ran = cli(*teach[:4], "--weights", ground_weights, *teach[6:], "--export", tmp_path / "third")
    assert (ran.code, "have no grader" in ran.err) == (2, True)
    read_grader(tmp_path / "after/grader.safetensors")
    ran = cli(
        "translate", photos / "0.png", "--source", "sheep", "--target", "giraffe", "--weights", tmp_path / "after",
        "--output", tmp_path / "out.png", "--device", "cpu", "--tries", 3,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (step,) = json.loads((tmp_path / "out.report.json").read_text())["result"]["steps"]
    grade = step["chosen"]["grade"]
    # A try that hides others is made again, looking the other way.
    assert 1 <= step["chosen"]["tried"] <= 6
    assert ("may look broken" in ran.out) == (grade is None or grade < 1.0), "a blob with the legs of no animal"
