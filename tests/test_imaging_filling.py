"""Filling a hole from what lies around it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instapipe.imaging.filling import fill

DEMO = Path(__file__).parent / "data" / "demo"


def stripes(height: int = 120, width: int = 160, period: int = 10) -> NDArray[np.uint8]:
    """Vertical stripes, smooth, in one colour."""
    wave = 128 + 100 * np.sin(2 * np.pi * np.arange(width) / period)
    return np.repeat(np.broadcast_to(wave, (height, width))[:, :, None], 3, axis=2).astype(np.uint8)


def hole_of(shape: tuple[int, ...], centre: tuple[int, int], radius: int) -> NDArray[np.bool_]:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.circle(mask, centre, radius, 1, -1)
    return mask.astype(np.bool_)


@pytest.mark.parametrize("period", [8, 10, 20])
def test_texture_goes_on_through_the_hole(period: int) -> None:
    pixels = stripes(period=period)
    hole = hole_of(pixels.shape, (80, 60), 26)
    damaged = pixels.copy()
    damaged[hole] = (255, 0, 0)
    filled = fill(damaged, hole)
    error = np.abs(filled.astype(float) - pixels)[hole].mean()
    smooth = cv2.inpaint(damaged, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    assert error < 12
    assert error < 0.3 * np.abs(smooth.astype(float) - pixels)[hole].mean()
    assert np.array_equal(filled[~hole], damaged[~hole])
    assert np.array_equal(filled, fill(damaged, hole))


def test_each_side_of_a_horizon_stays_what_it_is() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 30, (120, 160, 3)).astype(np.uint8)
    pixels[:60, :, 2] += 200
    pixels[60:, :, 1] += 150
    hole = hole_of(pixels.shape, (80, 60), 25)
    damaged = np.where(hole[:, :, None], np.uint8(255), pixels)
    filled = fill(damaged, hole).astype(int)
    sky = filled[:, :, 2] > filled[:, :, 1]
    upper, lower = hole.copy(), hole.copy()
    upper[55:], lower[:65] = False, False
    assert sky[upper].mean() > 0.9
    assert sky[lower].mean() < 0.1
    assert filled[hole].max() < 240  # nothing of the old animal's white


def test_a_shore_goes_on_behind_what_stood_before_it() -> None:
    """Water between sky and sand, an animal in front of all three that stands wider in the sand than it is above."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 30, (150, 200, 3)).astype(np.uint8)
    pixels[:60] += np.array([150, 180, 220], np.uint8)
    pixels[60:80] += np.array([20, 60, 120], np.uint8)
    pixels[80:] += np.array([190, 170, 110], np.uint8)
    hole = hole_of(pixels.shape, (100, 100), 40)
    hole[20:100, 85:115] = True
    damaged = np.where(hole[:, :, None], np.uint8(255), pixels)
    filled = fill(damaged, hole).astype(int)
    for band, red in (((25, 52), 165), ((66, 74), 35), ((88, 135), 205)):
        inside = hole.copy()
        inside[: band[0]], inside[band[1] :] = False, False
        assert (np.abs(filled[:, :, 0] - red)[inside] < 40).mean() > 0.9, band


@pytest.mark.parametrize(("name", "centre", "radius"), [("sheep.jpg", (300, 520), 120), ("cows.jpg", (560, 500), 150)])
def test_a_real_photo_gets_no_colour_that_does_not_occur_nearby(
    name: str, centre: tuple[int, int], radius: int
) -> None:
    pixels = cv2.imread(str(DEMO / name))
    hole = hole_of(pixels.shape, centre, radius)
    filled = fill(pixels, hole)
    assert np.array_equal(filled[~hole], pixels[~hole])
    known = np.zeros((16, 16, 16), np.bool_)
    known[tuple((pixels[~hole] // 16).T)] = True
    wide = cv2.dilate(known.reshape(16, 256).astype(np.uint8), np.ones((3, 1), np.uint8)).reshape(16, 16, 16) > 0
    assert wide[tuple((filled[hole] // 16).T)].mean() > 0.99
    detail = [float(cv2.Laplacian(image, cv2.CV_32F)[hole].std()) for image in (filled, pixels)]
    assert detail[0] > 0.4 * detail[1]  # as sharp as a photo, not a smear


def test_a_hole_at_the_border_and_one_that_leaves_little() -> None:
    pixels = stripes(period=16)
    for hole in (hole_of(pixels.shape, (0, 60), 40), hole_of(pixels.shape, (80, 60), 75)):
        damaged = np.where(hole[:, :, None], np.uint8(0), pixels)
        filled = fill(damaged, hole)
        assert np.array_equal(filled[~hole], pixels[~hole])
        assert filled[hole].min() >= pixels.min()  # nothing of what lay under the hole
        assert np.array_equal(filled, fill(np.ascontiguousarray(damaged[:, ::-1])[:, ::-1], hole))


def test_copies_come_in_pieces() -> None:
    """Of colours of which each is there once: neighbours inside the hole were mostly neighbours before."""
    side = 100
    ids = np.random.default_rng(0).permutation(side * side)
    colours = np.stack([ids % 22, ids // 22 % 22, ids // 484], axis=-1).astype(np.uint8) * np.uint8(10)
    pixels = colours.reshape(side, side, 3)
    hole = hole_of(pixels.shape, (50, 50), 25)
    filled = fill(np.where(hole[:, :, None], np.uint8(0), pixels), hole)
    place = np.empty(side * side, dtype=np.intp)
    place[ids] = np.arange(side * side)
    digits = filled.astype(np.intp) // 10
    source = place[digits[..., 0] + 22 * digits[..., 1] + 484 * digits[..., 2]]
    for axis, beside in ((1, 1), (0, side)):
        together = np.diff(source, axis=axis) == beside
        within = (hole[:, 1:] & hole[:, :-1]) if axis else (hole[1:] & hole[:-1])
        assert together[within].mean() > 0.6


def test_little_or_nothing_around() -> None:
    pixels = np.full((9, 9, 3), 50, np.uint8)
    hole = np.zeros((9, 9), np.bool_)
    assert np.array_equal(fill(pixels, hole), pixels)
    assert np.array_equal(fill(pixels, ~hole), pixels)
    hole[3:6, 3:6] = True
    damaged = np.where(hole[:, :, None], np.uint8(200), pixels)
    assert np.abs(fill(damaged, hole).astype(int) - 50).max() <= 3
    for shape in ((1, 1), (1, 40), (3, 300)):
        one = np.zeros((*shape, 3), np.uint8)
        gap = np.zeros(shape, np.bool_)
        gap[..., :1] = True
        assert fill(one, gap).shape == one.shape


def test_grain_is_as_strong_inside_as_around() -> None:
    """A large photo's own scale: what is copied to and fro is not averaged away, nor is it stronger than it was."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 25, (432, 576, 3))
    pixels = np.clip(128 + grain, 0, 255).astype(np.uint8)
    hole = hole_of(pixels.shape, (288, 216), 90)
    filled = fill(np.where(hole[:, :, None], np.uint8(255), pixels), hole)
    inner = cv2.erode(hole.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    strengths = [filled[row::4, column::4][inner[row::4, column::4]].std() for row in range(4) for column in range(4)]
    around = pixels[~hole].std()
    assert min(strengths) / around > 0.85
    assert max(strengths) / around < 1.15
