"""New animals stand on all their feet, on legs and in tones like those of real ones, and the ground in their shade."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import training_worlds
import worlds
from conftest import Cli

from instapipe.config import CompositingConfig
from instapipe.errors import DataError
from instapipe.pipeline.surfaces import NativeSurface
from instapipe.structures import Mask
from instapipe.training.matching import HUNDREDTHS, deviations, factors, tone_of, widths_of
from instapipe.translation.feet import Foot, feet_in, legs_in, on_all_feet, shade_of, shaded, with_leg_widths
from instapipe.translation.native import Background, Blend, blend
from instapipe.translation.tones import Match, first_of, toned

WIDE, TALL, LOWEST = 96, 128, 110
"""Of the window; the row of the lowest foot."""
BACKGROUNDS: tuple[Background, ...] = ("natural", "exact")


def animal(gaps: tuple[int, ...] = (12, 0, 7, 3)) -> np.ndarray:
    """A matte, float32 (TALL, WIDE): legs that hang so far above the lowest, a body, a neck, a head, a short tail."""
    matte = np.zeros((TALL, WIDE), np.float32)
    matte[50:76, 15:75] = 1
    matte[12:50, 66:74] = matte[10:18, 66:84] = 1
    matte[60:76, 10:13] = 1  # a tail
    for number, gap in enumerate(gaps):
        matte[70 : LOWEST + 1 - gap, 20 + 14 * number : 26 + 14 * number] = 1
    return matte


def gaps_of(matte: np.ndarray) -> list[int]:
    rows = [foot.row for foot in feet_in(matte >= 0.5)]
    return [max(rows) - row for row in rows]


def painted(matte: np.ndarray) -> np.ndarray:
    """Rows can be told apart by their colour."""
    rows = np.arange(matte.shape[0], dtype=np.float32)[:, None, None]
    return np.broadcast_to(rows, (*matte.shape, 3)).copy()


def test_feet_are_found_and_a_tail_is_none() -> None:
    assert feet_in(animal((12, 0, 7, 3)) >= 0.5) == [
        Foot(20 + 14 * number, 25 + 14 * number, LOWEST - gap) for number, gap in enumerate((12, 0, 7, 3))
    ]
    assert feet_in(np.zeros((8, 8), np.bool_)) == []


def test_feet_come_down_by_what_real_ones_hang_less_and_nothing_else_moves() -> None:
    matte = animal((12, 0, 7, 3))
    raw, mattes = on_all_feet(painted(matte), matte[None])
    for gap, wanted in zip(gaps_of(mattes[0]), (5.4, 0, 3.2, 1.4), strict=True):
        assert abs(gap - wanted) <= 1
    top = LOWEST - int(0.38 * (LOWEST - 10)) - 1
    assert np.array_equal(mattes[0, :top], matte[:top])
    assert np.array_equal(raw[:top], painted(matte)[:top])
    assert max(foot.row for foot in feet_in(mattes[0] >= 0.5)) == LOWEST
    # The hoof's colour goes down with the hoof.
    assert abs(raw[LOWEST - 5, 22, 0] - (LOWEST - 12)) < 1.5
    assert 0 <= mattes.min() <= mattes.max() <= 1


def test_mirrored_is_mirrored() -> None:
    matte = animal()
    _, there = on_all_feet(painted(matte), matte[None])
    _, back = on_all_feet(painted(matte), np.ascontiguousarray(matte[None, :, ::-1]))
    assert np.abs(there - back[:, :, ::-1]).max() < 1e-4


@pytest.mark.parametrize("gaps", [(0, 0, 0, 0), (5,), ()])
def test_who_stands_stays(gaps: tuple[int, ...]) -> None:
    matte = animal(gaps)
    raw, mattes = on_all_feet(painted(matte), matte[None])
    assert np.array_equal(mattes[0], matte)
    assert np.array_equal(raw, painted(matte))


def test_legs_do_not_grow_without_bounds_and_those_that_share_a_picture_stay() -> None:
    matte = animal((18, 0, 0, 0))
    _, mattes = on_all_feet(painted(matte), matte[None])
    length = LOWEST - 18 - (LOWEST - 0.38 * (LOWEST - 10))
    assert 1 < gaps_of(matte)[0] - gaps_of(mattes[0])[0] <= 0.35 * length + 1
    two = np.stack([matte, matte])
    assert on_all_feet(painted(matte), two)[1] is two


def test_legs_are_followed_up_to_the_body() -> None:
    legs = legs_in(animal((0, 4, 0, 0)) >= 0.5, most=80)
    assert [leg.foot.column for leg in legs] == [22.5 + 14 * number for number in range(4)]
    for leg, gap in zip(legs, (0, 4, 0, 0), strict=True):
        assert len(leg.widths) == LOWEST + 1 - gap - 76, "the body begins there"
        assert (leg.widths == 6).all()
        assert (leg.middles == leg.foot.column).all()
    assert [len(leg.widths) for leg in legs_in(animal((0, 4, 0, 0)) >= 0.5, most=5)] == [5] * 4
    assert legs_in(np.zeros((8, 8), np.bool_), most=5) == []


def test_a_slanting_foot_has_a_leg() -> None:
    """Its tip lies far from its middle."""
    matte = animal((0, 0, 0, 0))
    matte[LOWEST, 20:26] = 0
    matte[LOWEST - 1 : LOWEST + 1, 26:30] = 1
    legs = legs_in(matte >= 0.5, most=10)
    assert len(legs) == 4
    assert all(len(leg.widths) for leg in legs)
    with_leg_widths(painted(matte), matte[None], (0.5,) * 9)


def test_legs_become_as_wide_as_asked_at_each_height() -> None:
    """Wider at the foot, narrower above; what is no leg stays."""
    matte = animal((0, 0, 0, 0))
    raw, mattes = with_leg_widths(painted(matte), matte[None], (1.5,) * 5 + (0.5,) * 20)
    narrow = {leg.foot.column: leg.widths for leg in legs_in(mattes[0] >= 0.5, most=80)}
    assert narrow.keys() == {22.5 + 14 * number for number in range(4)}
    for widths in narrow.values():
        assert 8 <= widths[1] <= 10
        assert 2 <= widths[10] <= 4
        assert widths[-1] >= 6
    assert np.array_equal(mattes[0, : LOWEST - 26], matte[: LOWEST - 26])
    assert np.abs(raw - painted(matte)).max() < 0.5, "colours move sideways alone"
    two = np.stack([matte, matte])
    assert with_leg_widths(raw, two, (0.5,))[1] is two


def test_how_much_wider_real_legs_are_is_measured() -> None:
    """Of legs a third narrower than real ones, whatever the pictures' sizes."""
    made = animal((0, 0, 0, 0)) >= 0.5
    real = made.copy()
    for number in range(4):
        real[76 : LOWEST + 1, 20 + 14 * number : 29 + 14 * number] = True
    large = np.repeat(np.repeat(real, 2, axis=0), 2, axis=1)
    ratio = factors(widths_of([large] * 9), widths_of([made] * 9))
    assert len(ratio) == HUNDREDTHS
    assert np.allclose(ratio, 1.5, atol=0.02)
    with pytest.raises(DataError, match="0 made legs can be followed up"):
        factors(widths_of([large] * 9), widths_of([np.zeros_like(made)]))


def test_a_step_gives_its_animal_such_legs() -> None:
    photo, matte = np.full((160, 160, 3), 90, np.uint8), animal((0, 0, 0, 0))
    old = Mask.from_dense(np.pad(np.ones((80, 60), np.bool_), ((60, 20), (50, 50))))

    def step(_: np.ndarray, __: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return painted(matte), matte[None]

    areas = []
    for widths in ((), (0.5,) * 24):
        surface = NativeSurface(
            photo, (TALL, WIDE), Blend(CompositingConfig(mode="matte")), placement="ground", match=Match(widths)
        )
        areas.append(surface.run((30, 20, 126, 148), [old], step).masks[0].area)
    assert 0.8 * areas[0] < areas[1] < 0.95 * areas[0]


def test_a_card_that_says_otherwise_is_another_result(cli: Cli, ground_weights: Path, tmp_path: Path) -> None:
    size, blob = (240, 320), (160, 120, 70, 60)
    worlds.write_photo(tmp_path / "p.png", worlds.photo_pixels((blob,), None, size=size))
    worlds.write_masks(tmp_path / "p.masks", "p", (blob,), size=size)
    call = (
        "translate", tmp_path / "p.png", "--source", "sheep", "--target", "giraffe", "--weights", ground_weights,
        "--engine", "torch", "--precision", "float32", "--region", "instance", "-o", tmp_path / "out.png",
    )  # fmt: skip
    assert "cached" not in cli(*call).out
    assert "(cached: segment, filter, translate)" in cli(*call).out
    card = json.loads((ground_weights / "card.json").read_text())
    (ground_weights / "card.json").write_text(json.dumps({**card, "leg_widths": [0.5] * 9}))
    again = cli(*call)
    assert (again.code, "(cached: segment, filter)" in again.out) == (0, True), again.out


def test_tones_vary_as_asked_and_stay_the_same_for_the_same_animal() -> None:
    raw = np.random.default_rng(0).uniform(60, 180, (24, 24, 3)).astype(np.float32)
    assert toned(raw, (0, 0, 0), 3) is raw
    shape, wanted = np.ones((24, 24), np.bool_), np.array([6.0, 2.0, 4.0])
    tones = np.array([tone_of(np.rint(toned(raw, (6, 2, 4), n)).astype(np.uint8), shape) for n in range(400)])
    scale = np.array([tone_of(raw.astype(np.uint8), shape)[0] / 50, 1, 1])
    assert np.allclose(tones.std(axis=0), wanted * scale, rtol=0.08)
    assert np.allclose(tones.mean(axis=0), tone_of(raw.astype(np.uint8), shape), atol=0.8)
    assert np.abs(np.diff(tones[:, 0])).min() > 4, "those that come one after the other differ"
    assert np.array_equal(toned(raw, (6, 2, 4), 7), toned(raw, (6, 2, 4), 7))
    photos = [np.full((64, 64, 3), value, np.uint8) for value in (10, 11)]
    assert first_of(photos[0]) != first_of(photos[1])


def test_how_much_more_tones_are_to_vary_is_measured() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(0, (10, 4, 2), (4000, 3)), rng.normal(0, (6, 0, 3), (4000, 3))
    assert np.allclose(deviations(real, made), (0.4 * 8, 0.4 * 4, 0), atol=0.2)


def test_legs_are_measured_or_it_is_said_why_not(cli: Cli, ground_weights: Path, tmp_path: Path) -> None:
    """Discs have none."""
    photos = training_worlds.write_animals(tmp_path / "photos")
    ran = cli(
        "weights", "match", ground_weights, "--source-data", photos, "--target-data", photos, "-o", tmp_path / "new"
    )
    assert (ran.code, "legs can be followed up" in ran.err) == (1, True), ran.err
    assert not (tmp_path / "new").exists()


def test_the_ground_is_darkest_at_the_feet_and_far_from_them_as_it_was() -> None:
    matte, place, size = animal((0, 0, 0, 0)), (20, 10, 20 + 2 * WIDE, 10 + 2 * TALL), (280, 260)
    shade = shade_of(matte, place, size)
    assert shade is not None
    region, spared = np.full((*size, 3), 200, np.uint8), np.zeros(size, np.bool_)
    spared[:, :70] = True
    out, changed = shaded(region, shade, spared)
    assert np.array_equal(out != 200, np.broadcast_to(changed[:, :, None], out.shape))
    assert not changed[spared].any(), "other animals keep their light"
    feet = 10 + 2 * (LOWEST + 1)
    at_a_foot, between, away = out[feet, 20 + 2 * 51, 0], out[feet, 20 + 2 * 44, 0], out[feet - 60, 20 + 2 * 51, 0]
    assert 80 < at_a_foot < between < 190
    assert away == 200
    assert not changed[: feet - 40].any()
    assert shade_of(np.zeros_like(matte), place, size) is None
    assert shade_of(matte, (20, 900, 20 + 2 * WIDE, 900 + 2 * TALL), size) is None, "outside of the region"


def test_a_shade_does_not_end_at_the_border_of_its_region() -> None:
    matte, place = animal((0, 0, 0, 0)), (20, 10, 20 + 2 * WIDE, 10 + 2 * TALL)
    size = (10 + 2 * (LOWEST + 1) + 3, 260)
    shade = shade_of(matte, place, size)
    assert shade is not None
    assert shade.box[3] == size[0]
    assert shade.missing[-1].max() < 0.1


def test_an_exact_background_keeps_its_light() -> None:
    """And a natural one what is declared unchanged."""
    matte, place, size = animal((0, 0, 0, 0)), (20, 10, 20 + 2 * WIDE, 10 + 2 * TALL), (280, 260)
    region = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    old, shade = np.zeros(size, np.bool_), shade_of(matte, place, size)
    old[120:200, 80:150] = True
    for background in BACKGROUNDS:
        blends = [
            blend(
                region, old, painted(matte), matte[None], Blend(CompositingConfig(mode="matte"), background),
                place=place, shade=each,
            )
            for each in (None, shade)
        ]  # fmt: skip
        (plain, before), (dark, changed) = blends
        assert np.array_equal(plain, dark) == (background == "exact")
        assert (dark <= plain).all()
        assert np.array_equal(dark[~changed], region[~changed])
        assert (changed >= before).all()
