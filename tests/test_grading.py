"""Grades for outputs, the grader that learns from them, and what it does in a translation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_worlds
import worlds
from conftest import Cli
from graded_worlds import animal, graded
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from instapipe.config import CompositingConfig, GeneratorConfig
from instapipe.errors import DataError, WeightsError
from instapipe.imaging.windows import BELOW, MOST_TRIES, MOST_WIDENED, VIEWS, Framing, views
from instapipe.networks.generator import SetGenerator
from instapipe.networks.grader import BANDS, MOST_LEGS, Grader, GraderForm, legs, looks, outline, read_grader
from instapipe.pipeline.placing import find_place
from instapipe.pipeline.records import ChosenTry, StepRecord
from instapipe.pipeline.rollout import Rollout
from instapipe.pipeline.surfaces import NativeSurface, RoundTrips, Tries
from instapipe.structures import Instances, Mask
from instapipe.training.grading import Graded, fit_grader, read_graded, spearman
from instapipe.training.to_grade import SIDE, tile
from instapipe.translation.again import StepFunction, Turn, round_trip
from instapipe.translation.native import Blend
from instapipe.translation.step import translate_step

PAIR = ("--source", "sheep", "--target", "giraffe")
EXACT = ("--engine", "torch", "--precision", "float32")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return worlds.write_photo(tmp_path / "meadow.png")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return worlds.write_masks(tmp_path / "meadow", "meadow")


def test_a_grader_tells_animals_apart_that_it_never_saw(grader: Grader) -> None:
    unseen = graded(40, seed=1)
    with torch.inference_mode():
        said = np.array([grader.grade(matte[None].astype(np.float32) / 255) for matte in unseen.outputs.mattes])
    assert spearman(said, unseen.grades) > 0.8
    assert grader.form.agreement > 0.8, "measured on photos that were left out"
    assert grader.form.outputs == 80


def test_what_grades_do_not_explain_is_not_agreement() -> None:
    """Grades by chance: on photos left out, a grader knows nothing of them."""
    by_chance = graded()
    shuffled = np.random.default_rng(3).permutation(by_chance.grades)
    assert abs(fit_grader([Graded(by_chance.outputs, shuffled)]).form.agreement) < 0.35


def test_spearman_is_of_ranks() -> None:
    one = np.array([1, 2, 3, 4], np.float32)
    assert spearman(one, np.exp(one)) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(-1)
    # Ties share their mean rank: ranks 1.5, 1.5, 3.5, 3.5 against 1, 2, 3, 4.
    assert spearman(np.array([0, 0, 2, 2], np.float32), one) == pytest.approx(4 / np.sqrt(20))


def test_a_file_holds_the_grader(grader: Grader, grader_file: Path) -> None:
    read = read_grader(grader_file)
    assert read.form.outputs == grader.form.outputs
    assert read.form.agreement == pytest.approx(grader.form.agreement, abs=1e-4)
    mattes = graded(6, seed=2).outputs.mattes.astype(np.float32) / 255
    assert read.grade(mattes) == pytest.approx(grader.grade(mattes), abs=2e-3)
    assert read.grade(mattes) == pytest.approx(min(read.grade(matte[None]) for matte in mattes), abs=1e-4)


def test_a_grade_is_the_same_wherever_an_animal_stands(grader: Grader) -> None:
    """And whichever way it looks, and at whatever size the model works."""
    for seed in range(4):
        matte = animal(np.random.default_rng(seed), sound=bool(seed % 2)).astype(np.float32) / 255
        grade = grader.grade(matte[None])
        assert grader.grade(matte[None, :, ::-1]) == pytest.approx(grade, abs=1e-4)
        assert grader.grade(np.roll(matte, (2, -9), (0, 1))[None]) == pytest.approx(grade, abs=1e-4)
        larger = cv2.resize(matte, (128, 128), interpolation=cv2.INTER_LINEAR)
        assert grader.grade(larger[None]) == pytest.approx(grade, abs=0.35)


def test_an_outline_fills_its_square() -> None:
    matte = np.zeros((60, 90), np.float32)
    matte[20:50, 60:70] = 1
    matte[10:20, 52:60] = 1  # what is highest lies left
    shown = outline(matte, 100)
    rows, columns = np.nonzero(shown >= 0.5)
    assert (rows.min(), rows.max()) == (6, 93)
    assert abs(columns.min() + columns.max() + 1 - 100) <= 1
    assert columns[rows < 10].mean() > columns[rows > 50].mean(), "it faces right"
    assert not outline(np.zeros((8, 8), np.float32), 16).any()


@pytest.mark.parametrize("count", range(1, MOST_LEGS + 2))
def test_legs_are_counted(count: int) -> None:
    """Of a table with so many; what is more than the most is as many."""
    table = np.zeros((128, 128), np.float32)
    table[30:70, 8:120] = 1
    for left in np.linspace(8, 112, count).astype(int):
        table[70:118, left : left + 8] = 1
    said = legs(torch.from_numpy(np.stack([table, np.roll(table, (-20, 3), (0, 1))])))
    wanted = torch.zeros(len(BANDS), MOST_LEGS)
    wanted[:, min(count, MOST_LEGS) - 1] = 1
    assert torch.equal(said, torch.stack([wanted.flatten()] * 2))


def test_what_is_counted_reaches_the_grade(grader: Grader) -> None:
    """Of the whole outline, not of the legs in large."""
    mattes = graded(4, seed=4).outputs.mattes.astype(np.float32) / 255
    shown = torch.from_numpy(np.stack([looks(outline(matte, grader.form.side), 2) for matte in mattes]))
    counted = len(BANDS) * MOST_LEGS
    assert torch.equal(grader.outlines(shown)[:, -counted:], legs(shown[:, 0]))
    assert grader.weight[-counted:].abs().max() > 0


def test_a_leg_in_the_air_is_counted_from_where_it_ends() -> None:
    table = np.zeros((128, 128), np.float32)
    table[30:70, 8:120] = 1
    for left, foot in ((8, 118), (40, 118), (75, 118), (112, 104)):  # one ends at 0.16 of the height
        table[70:foot, left : left + 8] = 1
    said = legs(torch.from_numpy(table[None])).reshape(len(BANDS), MOST_LEGS).argmax(dim=1) + 1
    assert said.tolist() == [3, 3, 4, 4]
    assert not legs(torch.zeros(1, 128, 128)).any()


def test_a_grader_that_does_not_count_is_read(tmp_path: Path) -> None:
    """Files of before say nothing of it."""
    grader = fit_grader([graded()], GraderForm(counted=False))
    grader.write(tmp_path / "new.safetensors")
    with safe_open(str(tmp_path / "new.safetensors"), framework="pt") as file:
        facts = {name: value for name, value in file.metadata().items() if name != "counted"}
        save_file({name: file.get_tensor(name) for name in file.keys()}, tmp_path / "old.safetensors", facts)  # noqa: SIM118
    read = read_grader(tmp_path / "old.safetensors")
    mattes = graded(6, seed=2).outputs.mattes.astype(np.float32) / 255
    assert read.grade(mattes) == pytest.approx(grader.grade(mattes), abs=2e-3)


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_what_is_no_grader_is_refused(content: bytes | None, tmp_path: Path, matte_weights: Path) -> None:
    path = tmp_path / "grader.safetensors"
    path.write_bytes((matte_weights / "source_to_target.safetensors").read_bytes() if content is None else content)
    with pytest.raises(WeightsError, match=r"grader\.safetensors"):
        read_grader(path)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("0,2\n1,3\n", r"line 2: '1,3': expected a number below 80 and a grade"),
        ("number,grade\n80,1\n", r"line 2: '80,1'"),
        ("number,grade\nseven,1\n", r"line 2: 'seven,1'"),
    ],
)
def test_a_wrong_grade_is_named_by_its_line(answers: str, message: str, tmp_path: Path) -> None:
    graded().outputs.write(tmp_path)
    (tmp_path / "grades.csv").write_text(answers)
    with pytest.raises(DataError, match=message):
        read_graded(tmp_path)


def test_what_is_not_graded_is_left_out(tmp_path: Path) -> None:
    all_of_it = graded()
    all_of_it.outputs.write(tmp_path)
    (tmp_path / "grades.csv").write_text("\ufeffnumber,grade\n5,2,fine\n0,\n2,0\n", encoding="utf-8")
    read = read_graded(tmp_path)
    assert read.grades.tolist() == [0, 2]
    assert np.array_equal(read.outputs.mattes, all_of_it.outputs.mattes[[2, 5]])
    assert read.outputs.photos == (all_of_it.outputs.photos[2], all_of_it.outputs.photos[5])


def test_too_little_to_learn_from(tmp_path: Path) -> None:
    few, same = graded(20), graded()
    with pytest.raises(DataError, match="20 graded outputs of 5 photos: a grader needs 40 of 8"):
        fit_grader([few])
    with pytest.raises(DataError, match="all 80 outputs have grade 1"):
        fit_grader([Graded(same.outputs, np.ones(80, np.float32))])
    with pytest.raises(DataError, match=r"cannot read outputs\.npz"):
        read_graded(tmp_path)


@given(
    st.tuples(*[st.integers(0, 400)] * 2, *[st.integers(12, 300)] * 2), st.integers(1, MOST_TRIES),
    st.sampled_from([0.0, 1.2]), st.booleans(),
)  # fmt: skip
def test_views_stand_on_the_same_feet(part: tuple[int, int, int, int], tries: int, least: float, trips: bool) -> None:
    x, y, w, h = part
    window = Framing(1.35, 1.8, least, "ground").window([(x, y, x + w, y + h)])
    found = views(window, tries, trips)
    assert found[0][0] == window
    assert sum(1 + more for _, more in found) <= tries
    assert trips or not any(more for _, more in found)
    assert len({view for view, _ in found}) == len(found)
    for (x0, y0, x1, y1), _ in found:
        assert abs((y1 - BELOW * (y1 - y0)) - (y + h)) <= 2
        assert abs((x0 + x1) - (window[0] + window[2])) <= 2
        shown = (y1 - y0) / (x1 - x0)
        before = (window[3] - window[1]) / (window[2] - window[0])
        assert before * 0.8 <= shown <= max(before, MOST_WIDENED) * 1.05


def test_so_many_tries() -> None:
    """Windows and their round trips, or windows alone: as many as asked for, in the order of VIEWS."""
    window = Framing(1.35, 1.8, 1.2, "ground").window([(50, 80, 350, 290)])
    assert [trips for _, trips in views(window, MOST_TRIES, round_trips=True)] == [trips for _, _, trips in VIEWS]
    assert [trips for _, trips in views(window, 10, round_trips=True)] == [0, 2, 2, 2]
    assert [trips for _, trips in views(window, 6, round_trips=True)] == [0, 2, 1]
    assert [trips for _, trips in views(window, MOST_TRIES)] == [0] * len(VIEWS)


def made_of(mattes: dict[int, float]) -> tuple[StepFunction, Callable[[NDArray[np.float32]], float], list[int]]:
    """A step whose n-th matte is a bar of its own width, a grade for each, and how many were asked for."""
    made: list[int] = []

    def step(pixels: NDArray[np.float32], shown: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        matte = np.zeros((1, 32, 32), np.float32)
        matte[:, 8:29, 10 : 14 + 2 * len(made)] = 1
        made.append(len(made))
        return np.full((32, 32, 3), 200, np.float32), matte

    def grade(found: NDArray[np.float32]) -> float:
        return mattes[(int(found[0, 16].sum()) - 4) // 2]

    return step, grade, made


@pytest.mark.parametrize(
    ("grades", "best", "tried"),
    [
        ({0: 0.2, 1: 0.9, 2: 0.4, 3: 0.1, 4: 0.8, 5: 0.0}, 1, 6),
        ({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5, 5: 0.5}, 0, 6),
        ({0: 1.9, 1: 2.0}, 0, 1),
        ({0: 1.0, 1: 1.2, 2: 1.8, 3: 2.0}, 2, 3),
    ],
)
def test_of_several_tries_the_best_stays(grades: dict[int, float], best: int, tried: int) -> None:
    """The first where all are alike; after one that is good enough nothing more is tried."""
    pixels = worlds.photo_pixels()
    mask = Mask.from_dense(worlds.ellipse(worlds.SIZE, worlds.SHEEP[0]))
    window = Framing(1.35, 1.8, 0, "ground").window([mask.box])
    blend = Blend(CompositingConfig(mode="matte"), "natural", 5)
    step, grade, made = made_of(grades)
    chosen = NativeSurface(pixels, (32, 32), blend, None, "ground", Tries(6, grade)).run(window, [mask], step)
    assert len(made) == tried
    assert chosen.chosen == ChosenTry(grades[best], tried, views(window, 6)[best][0], 0, mirrored=False)
    assert StepRecord.read(chosen.files()).chosen == chosen.chosen, "kept in the cache"
    alone, _, _ = made_of({})
    for _ in range(best):
        alone(np.zeros((32, 32, 3), np.float32), np.zeros((1, 32, 32), np.bool_))
    expected = NativeSurface(pixels, (32, 32), blend, None, "ground").run(views(window, 6)[best][0], [mask], alone)
    assert chosen.masks[0].box == expected.masks[0].box
    assert np.array_equal(chosen.masks[0].crop, expected.masks[0].crop)


@pytest.mark.parametrize(
    ("grades", "tries", "best", "made"),
    [
        ([0.1, 0.2, 0.3, 0.9, 0.4, 0.5, 0.6], 7, 3, 7),  # the second view's second round trip
        ([0.1, 1.8], 10, 1, 2),  # good enough: the rest is not tried
        ([0.5, 0.4, 0.3], 3, 0, 3),
    ],
)
def test_round_trips_are_tries(grades: list[float], tries: int, best: int, made: int) -> None:
    """View after view, each round trip from what the one before made; nothing is computed that nobody looks at."""
    mask = Mask.from_dense(worlds.ellipse(worlds.SIZE, worlds.SHEEP[0]))
    window = Framing(1.35, 1.8, 0, "ground").window([mask.box])
    blend = Blend(CompositingConfig(mode="matte"), "natural", 5)
    seen: list[str] = []

    def bar(length: int) -> NDArray[np.float32]:
        matte = np.zeros((1, 32, 32), np.float32)
        matte[:, 8:29, 10 : 12 + 2 * length] = 1
        return matte

    def step(pixels: NDArray[np.float32], shown: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        seen.append("view")
        return np.full((32, 32, 3), 200, np.float32), bar(len(seen))

    def again(turn: Turn) -> Turn:
        assert np.array_equal(turn.mattes, bar(len(seen))), "from the last one"
        seen.append("trip")
        return Turn(turn.pixels, turn.masks, turn.raw, bar(len(seen)))

    def grade(found: NDArray[np.float32]) -> float:
        return grades[int(found[0, 16].sum()) // 2 - 2]

    pixels = worlds.photo_pixels()
    chosen = NativeSurface(pixels, (32, 32), blend, None, "ground", Tries(tries, grade, again))
    record = chosen.run(window, [mask], step)
    order = ["view", "view", "trip", "trip", "view", "trip", "trip"]
    assert seen == order[:made]
    view = views(window, tries, round_trips=True)[order[: best + 1].count("view") - 1][0]
    alone = NativeSurface(pixels, (32, 32), blend, None, "ground")
    trips = best - max(place for place, what in enumerate(order[: best + 1]) if what == "view")
    assert record.chosen == ChosenTry(grades[best], made, view, trips, mirrored=False)
    expected = alone.run(view, [mask], lambda *_: (np.full((32, 32, 3), 200, np.float32), bar(best + 1)))
    assert expected.chosen is None
    assert record.masks[0].box == expected.masks[0].box
    assert np.array_equal(record.masks[0].crop, expected.masks[0].crop)


@pytest.mark.parametrize(("comes_back", "taken"), [(5, 2), (1, 1), (0, 0)])
def test_where_nothing_chooses_so_many_round_trips_are_gone(comes_back: int, taken: int) -> None:
    """What the last trip made is taken; where nothing comes back, what there was before."""
    mask = Mask.from_dense(worlds.ellipse(worlds.SIZE, worlds.SHEEP[0]))
    window = Framing(1.35, 1.8, 0, "ground").window([mask.box])
    blend = Blend(CompositingConfig(mode="matte"), "natural", 5)

    def made(trips: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        matte = np.zeros((1, 32, 32), np.float32)
        matte[:, 8:29, 10 : 14 + 4 * trips] = 1
        return np.full((32, 32, 3), 60 + 50 * trips, np.float32), matte

    def again(turn: Turn) -> Turn | None:
        trips = int(turn.raw[0, 0, 0] - 60) // 50 + 1
        return Turn(turn.pixels, turn.masks, *made(trips)) if trips <= comes_back else None

    pixels = worlds.photo_pixels()
    found = NativeSurface(pixels, (32, 32), blend, None, "ground", RoundTrips(2, again)).run(
        window, [mask], lambda *_: made(0)
    )
    expected = NativeSurface(pixels, (32, 32), blend, None, "ground").run(window, [mask], lambda *_: made(taken))
    assert found.chosen is None
    assert np.array_equal(found.masks[0].crop, expected.masks[0].crop)
    assert found.patch is not None
    assert expected.patch is not None
    assert np.array_equal(found.patch, expected.patch)


def test_a_round_trip_goes_as_training_goes() -> None:
    """Each generator is given the composite that a training step would give it, and its masks, made hard."""
    torch.manual_seed(0)
    config = GeneratorConfig(form="resize", width=4, encoder_blocks=1, decoder_blocks=1)
    compositing = CompositingConfig(mode="matte", dilate=2)
    there, back = (SetGenerator(config).eval() for _ in range(2))

    def numpy_step(generator: SetGenerator) -> StepFunction:
        @torch.no_grad()
        def step(
            pixels: NDArray[np.float32], masks: NDArray[np.bool_]
        ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            image = torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(127.5) - 1)[None]
            shown = torch.from_numpy(masks.astype(np.float32) * 2 - 1)[None]
            raw, mattes = generator(image, shown, torch.ones(1, len(masks), dtype=torch.bool))
            return (raw[0].permute(1, 2, 0).numpy() + 1) * np.float32(127.5), (mattes[0].numpy() + 1) / np.float32(2)

        return step

    pixels = cv2.resize(worlds.photo_pixels(), (32, 32)).astype(np.float32)
    masks = np.zeros((1, 32, 32), np.bool_)
    masks[0, 10:24, 6:26] = True
    turn = Turn.of(numpy_step(there), pixels, masks)
    found = round_trip(turn, numpy_step(there), numpy_step(back), compositing)
    valid = torch.ones(1, 1, dtype=torch.bool)
    for generator, following in ((there, back), (back, there)):
        image = torch.from_numpy(turn.pixels.transpose(2, 0, 1) / np.float32(127.5) - 1)[None]
        shown = torch.from_numpy(turn.masks.astype(np.float32) * 2 - 1)[None]
        with torch.no_grad():
            expected = translate_step(generator, image, shown, valid, compositing)
        onward = turn.onward(numpy_step(following), compositing)
        assert onward is not None
        given = onward.pixels / 127.5 - 1
        assert np.abs(given - expected.image[0].permute(1, 2, 0).numpy()).max() < 1e-2
        assert np.array_equal(onward.masks, expected.masks[0].numpy() >= 0)
        turn = onward
    assert found is not None
    assert np.array_equal(found.raw, turn.raw)
    assert np.array_equal(found.mattes, turn.mattes)


def upright(lean: int) -> NDArray[np.float32]:
    """A body on legs whose neck goes up to one side: float32 (1, 32, 32)."""
    matte = np.zeros((1, 32, 32), np.float32)
    matte[0, 14:20, 10:22] = matte[0, 20:29, 10:13] = matte[0, 20:29, 19:22] = 1
    for row in range(3, 14):
        column = 16 + lean * (14 - row) // 2
        matte[0, row, column - 1 : column + 2] = 1
    return matte


@pytest.mark.parametrize("hidden", ["neck", "head", "nothing"])
def test_who_would_be_beheaded_looks_the_other_way(hidden: str) -> None:
    """An animal of an earlier step stands where head or neck belong; with tries the new one turns."""
    pixels = np.full((128, 128, 3), 90, np.uint8)
    mask = Mask.from_dense(worlds.ellipse((128, 128), (64, 80, 30, 26)))
    window = (0, 0, 128, 128)
    front = np.zeros((128, 128), np.bool_)
    if hidden != "nothing":
        front[(28 if hidden == "neck" else 15) : (44 if hidden == "neck" else 30), 58:128] = True
    found = {turned: find_place(window, [mask], upright(1), front, None, turned=(turned,)) for turned in (False, True)}
    assert found[False].beheaded == (hidden != "nothing")
    assert not found[True].beheaded
    surface = NativeSurface(
        pixels, (32, 32), Blend(CompositingConfig(mode="matte"), "natural", 5), None, "ground", Tries(1, lambda _: 0.5)
    )
    if hidden != "nothing":
        surface.apply(StepRecord((Mask.from_dense(front),), Mask.from_dense(front[:0]), np.zeros((0, 0, 3), np.uint8)))
    made = surface.run(window, [mask], lambda *_: (np.full((32, 32, 3), 200, np.float32), upright(1)))
    columns = np.flatnonzero(made.masks[0].dense()[:40].any(axis=0))
    assert (columns.mean() < 64) == (hidden != "nothing")


@pytest.mark.parametrize("cut", [False, True])
def test_who_would_be_beheaded_stands_before_those_whose_head_it_leaves(cut: bool) -> None:
    """An animal of an earlier step stands all around the neck: the new one covers it, unless it would be cut in two."""
    mask = Mask.from_dense(worlds.ellipse((128, 128), (64, 80, 30, 26)))
    front = np.zeros((128, 128), np.bool_)
    front[(20 if cut else 6) : (50 if cut else 64)] = True
    surface = NativeSurface(
        np.full((128, 128, 3), 90, np.uint8),
        (32, 32),
        Blend(CompositingConfig(mode="matte"), "natural", 5),
        None,
        "ground",
    )
    earlier = Mask.from_dense(front)
    surface.apply(StepRecord((earlier,), Mask.from_dense(front[:0]), np.zeros((0, 0, 3), np.uint8)))
    made = surface.run((0, 0, 128, 128), [mask], lambda *_: (np.full((32, 32, 3), 200, np.float32), upright(1)))
    (new,) = made.masks
    assert (new.dense()[30:44].any(axis=1).all()) != cut, "the neck"
    rollout = Rollout(np.zeros((128, 128, 3), np.uint8), "giraffe")
    for number, masks in enumerate(((earlier,), made.masks)):
        chosen = Instances((128, 128), masks, ("sheep",), (1.0,), (number,))
        rollout.add(StepRecord(masks, masks[0], None), chosen, False)
    rollout.uncover()
    first, second = (each.masks[0].dense() for each in rollout.translated())
    assert np.array_equal(second, new.dense())
    assert np.array_equal(first, front & ~second), "what can be seen"


def test_who_would_behead_another_stands_behind_it() -> None:
    """Where the old animal was visible the new one may cover earlier ones, unless that hides the upper end of one."""
    mask = Mask.from_dense(worlds.ellipse((128, 128), (64, 80, 30, 26)))
    how = Blend(CompositingConfig(mode="matte"), "natural", 5)
    earlier = np.zeros((128, 128), np.bool_)
    earlier[70:104, 56:62] = True
    covered = []
    for known in (False, True):
        surface = NativeSurface(np.full((128, 128, 3), 90, np.uint8), (32, 32), how, None, "ground")
        surface.apply(
            StepRecord((Mask.from_dense(earlier),), Mask.from_dense(earlier[:0]), np.zeros((0, 0, 3), np.uint8))
        )
        if not known:
            surface._standing.clear()
        made = surface.run((0, 0, 128, 128), [mask], lambda *_: (np.full((32, 32, 3), 200, np.float32), upright(1)))
        covered.append(int((made.masks[0].dense() & earlier).sum()))
    assert covered[0] > 0, covered
    assert covered[1] == 0


def test_what_is_lost_on_the_way_does_not_come_back() -> None:
    empty = np.zeros((1, 8, 8), np.float32)
    turn = Turn(np.zeros((8, 8, 3), np.float32), np.ones((1, 8, 8), np.bool_), np.zeros((8, 8, 3), np.float32), empty)

    def never(*_: object) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        raise AssertionError("there is nothing to translate")

    assert round_trip(turn, never, never, CompositingConfig(mode="matte")) is None


def test_a_speck_is_not_chosen_for_its_grade() -> None:
    """The second try makes almost nothing of the sheep; a grader that has never seen a speck likes it."""
    mask = Mask.from_dense(worlds.ellipse(worlds.SIZE, worlds.SHEEP[0]))
    window = Framing(1.35, 1.8, 0, "ground").window([mask.box])
    blend = Blend(CompositingConfig(mode="matte"), "natural", 5)
    made = []

    def step(pixels: NDArray[np.float32], shown: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        matte = np.zeros((1, 32, 32), np.float32)
        side = 20 if not made else 2
        matte[:, 28 - side : 28, 16 - side // 2 : 16 + side // 2] = 1
        made.append(side)
        return np.full((32, 32, 3), 200, np.float32), matte

    tries = Tries(3, lambda mattes: 0.1 if mattes.sum() > 100 else 2.0)
    record = NativeSurface(worlds.photo_pixels(), (32, 32), blend, None, "ground", tries).run(window, [mask], step)
    assert made == [20, 2, 2], "nor does it end the search"
    assert record.masks[0].area > mask.area / 4


@pytest.mark.parametrize(("across", "chosen"), [(2, 0), (1, 1)])
def test_a_head_that_the_window_cuts_off_is_worth_less(across: int, chosen: int) -> None:
    """The better graded second try leaves its window above; the tip of an ear (one pixel of 32) may."""
    mask = Mask.from_dense(worlds.ellipse(worlds.SIZE, worlds.SHEEP[0]))
    window = Framing(1.35, 1.8, 0, "ground").window([mask.box])
    blend = Blend(CompositingConfig(mode="matte"), "natural", 5)
    made: list[int] = []

    def step(pixels: NDArray[np.float32], shown: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        matte = np.zeros((1, 32, 32), np.float32)
        matte[:, 8:29, 10:22] = 1
        if made:
            matte[:, :8, 20 - across : 20] = 1
        made.append(len(made))
        return np.full((32, 32, 3), 200, np.float32), matte

    graded: list[float] = []

    def grade(mattes: NDArray[np.float32]) -> float:
        graded.append(0.9 if mattes[0, 4].any() else 0.5)
        return graded[-1]

    tries = Tries(2, grade)
    record = NativeSurface(worlds.photo_pixels(), (32, 32), blend, None, "ground", tries).run(window, [mask], step)
    assert graded == [0.5, 0.9]
    # What reaches further up was made smaller for it, or has the taller box: the neck alone tells them apart.
    top = record.masks[0].crop[0].sum() / record.masks[0].crop.shape[1]
    assert (top < 0.5) == bool(chosen)


def test_what_covers_others_is_worth_less() -> None:
    """The second try has the better outline, but lies over neighbours that the first leaves alone."""
    pixels = worlds.photo_pixels()
    mask = Mask.from_dense(worlds.ellipse(worlds.SIZE, worlds.SHEEP[0]))
    window = Framing(1.35, 1.8, 0, "ground").window([mask.box])
    blend = Blend(CompositingConfig(mode="matte"), "natural", 5)
    neighbour = np.zeros(worlds.SIZE, np.bool_)
    neighbour[:, :22] = neighbour[:, 61:89] = True
    boxes = {}
    for name, animals in (("alone", None), ("beside", neighbour)):
        step, grade, _ = made_of({0: 0.6, 1: 0.65})
        wide = widened(step)
        made = NativeSurface(pixels, (32, 32), blend, animals, "ground", Tries(2, grade)).run(window, [mask], wide)
        boxes[name] = made.masks[0].box
    alone, beside = ((x1 - x0) for x0, _, x1, _ in boxes.values())
    assert alone > beside


def widened(step: StepFunction) -> StepFunction:
    """Its second matte reaches to the window's right edge."""

    def wide(pixels: NDArray[np.float32], shown: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        raw, mattes = step(pixels, shown)
        if mattes[0, 16].sum() == 6:
            mattes[:, 8:15, 10:] = 1  # above the row by which made_of tells its mattes apart
        return raw, mattes

    return wide


def test_sheets_grades_grader_translation(
    cli: Cli, tmp_path: Path, photo: Path, masks: Path, ground_weights: Path
) -> None:
    """The whole way: sheets, grades, a grader, weights that have it, a translation that tries."""
    world = training_worlds.write_world(tmp_path / "world")
    asked = ("grade", "sheets", "--data", world / "sheep/coco.json", "--weights", ground_weights, "--views", 12)
    ran = cli(*asked, "--count", 60, "-o", tmp_path / "graded")
    assert ran.code == 1, "this small world holds nothing of 48 px"
    assert "large enough" in ran.err
    folders = []
    for number in range(2):
        folder = tmp_path / f"graded{number}"
        part = graded(48, seed=number)
        part.outputs.write(folder)
        (folder / "grades.csv").write_text(
            "number,grade\n" + "".join(f"{n},{grade:g}\n" for n, grade in enumerate(part.grades))
        )
        folders.append(folder)
    path = tmp_path / "grader.safetensors"
    ran = cli("grade", "fit", *folders, "-o", path)
    assert ran.code == 0, ran.err
    assert "96 outputs" in ran.out
    assert cli("grade", "fit", *folders, "-o", path).code == 2, "never overwritten"
    ran = cli("grade", "attach", path, "--weights", ground_weights, "-o", tmp_path / "with")
    assert ran.code == 0, ran.err
    ran = cli("weights", "verify", tmp_path / "with")
    assert ran.code == 0
    assert "good  with/grader.safetensors" in ran.out
    call = ("translate", photo, *PAIR, *EXACT, "--masks", masks, "--region", "instance", "--json")
    (without,) = cli(*call, "--weights", ground_weights, "-o", "without.png").json
    (one,) = cli(*call, "--weights", tmp_path / "with", "--tries", 1, "-o", "one.png").json
    assert Path(one["picture"]).read_bytes() == Path(without["picture"]).read_bytes()
    assert one["steps_from_cache"] == 3, "a grader that is not asked changes no key"
    (many,) = cli(*call, "--weights", tmp_path / "with", "-o", "many.png").json
    assert many["steps_from_cache"] == 0
    (again,) = cli(*call, "--weights", tmp_path / "with", "--tries", MOST_TRIES, "-o", "again.png").json
    assert again["steps_from_cache"] == 3, "so many is what happens without --tries"
    # Other networks' grader, or none: a folder's pictures are not those of before.
    reports = [json.loads(Path(made["report"]).read_text())["result"]["weights"] for made in (one, many)]
    assert reports[0]["grader"] is None
    assert reports[1]["grader"] == json.loads((tmp_path / "with" / "card.json").read_text())["grader"]["sha256"]
    folder = ("translate", photo.parent / "meadow.png", photo, *call[2:], "-o", tmp_path / "all")
    # Nor are those of the same networks without a way back: the windows alone are tried.
    shutil.copytree(tmp_path / "with", tmp_path / "one way")
    card = json.loads((tmp_path / "one way" / "card.json").read_text())
    assert reports[1]["back"] == card["directions"].pop("target_to_source")["sha256"]
    (tmp_path / "one way" / "card.json").write_text(json.dumps(card))
    seen = [
        (ground_weights, False),
        (tmp_path / "with", False),
        (tmp_path / "with", True),
        (tmp_path / "one way", False),
    ]
    for weights, earlier in seen:
        done = cli(*folder, "--weights", weights).json
        assert [each["earlier"] for each in done] == [earlier] * len(done)
    (fewer,) = cli(*call, "--weights", tmp_path / "one way", "--tries", len(VIEWS), "-o", "fewer.png").json
    assert fewer["steps_from_cache"] == 3, "so many windows are all there are"
    damaged = bytearray((tmp_path / "with" / "grader.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "with" / "grader.safetensors").write_bytes(damaged)
    ran = cli(*call, "--weights", tmp_path / "with", "--tries", 2, "-o", "damaged.png")
    assert ran.code == 2
    assert "grader.safetensors" in ran.err


def test_sheets_show_every_output_once(cli: Cli, tmp_path: Path, ground_weights: Path) -> None:
    """Larger photos; what outputs.npz holds are mattes of the weights themselves."""
    size = (200, 280)
    folder = tmp_path / "photos"
    for n in range(3):
        blob = (140, 100, 60, 40)
        worlds.write_photo(folder / f"{n}.png", worlds.photo_pixels((blob,), None, size=size, seed=n))
        worlds.write_masks(folder / f"{n}.masks", f"{n}", (blob,), size=size)
    out = tmp_path / "graded"
    ran = cli(
        "grade", "sheets", "--data", folder, "--class", "sheep", "--weights", ground_weights, "--views", 20, "--count",
        50, "-o", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in out.iterdir()) == [
        "grades.csv",
        "outputs.npz",
        *(f"sheet-0{n}.png" for n in (1, 2, 3)),
    ]
    lines = (out / "grades.csv").read_text().splitlines()
    assert lines == ["number,grade", *(f"{n}," for n in range(50))]
    with np.load(out / "outputs.npz") as file:
        assert file["mattes"].shape == (50, 32, 32)
        assert sorted(set(file["photos"].tolist())) == ["0.png", "1.png", "2.png"]
    assert cv2.imread(str(out / "sheet-01.png")).shape == (896, 1120, 3)
    assert (
        cli("grade", "sheets", "--data", folder, "--class", "sheep", "--weights", ground_weights, "-o", out).code == 2
    )


def test_a_tile_shows_the_photo_around() -> None:
    """A new animal where it was made, its photo beside it, and nothing of the old one."""
    pixels = np.full((64, 64, 3), (40, 120, 60), np.float32)
    old, matte = np.zeros((1, 64, 64), np.bool_), np.zeros((1, 64, 64), np.float32)
    old[0, 24:40, 8:24] = True
    matte[0, 24:40, 32:48] = 1
    pixels[old[0]] = 250
    shown = tile(Turn(pixels, old, np.full_like(pixels, 200), matte), CompositingConfig(mode="matte"))
    assert shown.shape == (SIDE, SIDE, 3)
    for row, column, colour in ((3, 3, (40, 120, 60)), (32, 40, (200, 200, 200)), (32, 16, (40, 120, 60))):
        assert np.abs(shown[row * SIDE // 64, column * SIDE // 64].astype(int) - colour).max() <= 3


def test_tries_need_a_grader(
    cli: Cli, photo: Path, masks: Path, ground_weights: Path, whole_weights: Path, grader_file: Path
) -> None:
    call = ("translate", photo, *PAIR, "--masks", masks)
    ran = cli(*call, "--weights", ground_weights, "--tries", 3)
    assert ran.code == 2
    assert "--tries 3" in ran.err
    assert "no grader" in ran.err
    ran = cli("grade", "attach", grader_file, "--weights", whole_weights, "-o", "with")
    assert ran.code == 2
    assert "make no outlines to grade" in ran.err
