"""New animals stand on all their feet, and the ground under them is darker."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from instapipe.config import CompositingConfig
from instapipe.translation.feet import Foot, feet_in, on_all_feet, shade_of, shaded
from instapipe.translation.native import Background, Blend, blend

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


def test_what_is_upscaled_is_as_crisp_as_photos_and_gets_no_halo() -> None:
    matte = animal((0, 0, 0, 0))
    large, size = cv2.resize(matte, (4 * WIDE, 4 * TALL)), (TALL, WIDE)
    region, old = np.full((*size, 3), 20, np.uint8), np.zeros(size, np.bool_)
    old[60:70, 30:60] = True
    how = Blend(CompositingConfig(mode="matte"))
    texture = np.random.default_rng(0).uniform(60, 220, (TALL, WIDE, 1)).astype(np.float32).repeat(3, axis=2)
    coats = cv2.resize(texture, (4 * WIDE, 4 * TALL)), np.full((4 * TALL, 4 * WIDE, 3), 180, np.float32)
    deep = cv2.erode((matte >= 0.5).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    fine = []
    for fineness in (1, 4):
        textured, even = (blend(region, old, raw, large[None], how, fineness=fineness)[0] for raw in coats)
        fine.append(textured[deep].std())
        assert np.abs(even[deep].astype(int) - 180).max() <= 1, "one colour stays one, at its border too"
    assert fine[1] > 1.3 * fine[0]
