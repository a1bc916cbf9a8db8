"""Windows, resampling and blending at the photo's own scale; the rollout against the training's own step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instapipe.config import CompositingConfig
from instapipe.imaging.cutting import cut
from instapipe.imaging.facing import faces_left
from instapipe.imaging.seen import seen
from instapipe.imaging.windows import Framing, hull, inside, multiple_of_4, placed, whole_window
from instapipe.networks.cards import find_card
from instapipe.networks.weights import load_generator
from instapipe.pipeline.keys import key_of
from instapipe.pipeline.plan import lay_out, plan_steps
from instapipe.pipeline.records import StepRecord
from instapipe.pipeline.resolve import resolve_weights
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store
from instapipe.pipeline.surfaces import ModelSurface, NativeSurface
from instapipe.structures import Mask
from instapipe.translation.again import StepFunction
from instapipe.translation.engine import Translator
from instapipe.translation.native import Blend, blend, nearer, soft_union, without_slivers
from instapipe.translation.resampling import crisp_edge, enlarged_mask, missing_sharpness, shrink_mask
from instapipe.translation.step import translate_step, union_matte

TRIES = settings(max_examples=60, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 30), st.integers(1, 30))
windows = st.tuples(st.integers(-40, 40), st.integers(-40, 40), st.integers(1, 50), st.integers(1, 50)).map(
    lambda parts: (parts[0], parts[1], parts[0] + parts[2], parts[1] + parts[3])
)


@TRIES
@given(sizes, windows, SEEDS)
def test_a_window_shows_the_photo_and_mirrors_it_outside(size: tuple[int, int], window: tuple, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    x0, y0, x1, y1 = window
    shown = cut(pixels, window)
    assert shown.shape == (y1 - y0, x1 - x0, 3)
    left, top, right, bottom = inside(window, size)
    assert np.array_equal(shown[top - y0 : bottom - y0, left - x0 : right - x0], pixels[top:bottom, left:right])
    pad = 45
    wide = np.pad(pixels, ((pad, pad + 50), (pad, pad + 50), (0, 0)), mode="reflect")
    assert np.array_equal(shown, wide[y0 + pad : y1 + pad, x0 + pad : x1 + pad])


@TRIES
@given(sizes, windows, SEEDS)
def test_what_a_model_sees_of_the_photo_is_the_photo(size: tuple[int, int], window: tuple, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    nothing = Mask.from_dense(np.zeros(size, np.bool_))
    shown = seen(pixels, [nothing], window, (window[3] - window[1], window[2] - window[0]))
    x0, y0, x1, y1 = window
    left, top, right, bottom = inside(window, size)
    if left < right and top < bottom:
        part = cut(pixels[top:bottom, left:right], (x0 - left, y0 - top, x1 - left, y1 - top))
        assert np.array_equal(shown, part), "at the photo's own scale; beyond its border the same mirrored"
    assert seen(pixels, [nothing], window, (16, 12)).shape == (16, 12, 3)


def test_beyond_the_photo_there_is_no_second_animal() -> None:
    """A red animal at the upper border: above it, the model sees grass."""
    pixels, red, _ = crowd()
    window = Framing(1.3, 3, placement="ground").window([red.box])
    assert window[1] < 0
    above = (-window[1] * 96) // (window[3] - window[1])
    shown = seen(pixels, [red], window, (96, 96))
    is_red = (shown[:, :, 0] > 120) & (shown[:, :, 1] < 80)
    assert is_red[above:].any()
    assert not is_red[: above - 1].any()
    mirrored = seen(pixels, [], window, (96, 96))
    assert ((mirrored[: above - 1, :, 0] > 120) & (mirrored[: above - 1, :, 1] < 80)).any(), "else this shows nothing"


@TRIES
@given(st.lists(st.tuples(*[st.integers(0, 500)] * 2, *[st.integers(1, 300)] * 2), min_size=1, max_size=4))
def test_windows_are_square_centred_and_large_enough(parts: list) -> None:
    boxes = [(x, y, x + w, y + h) for x, y, w, h in parts]
    x0, y0, x1, y1 = Framing(1.25).window(boxes)
    assert x1 - x0 == y1 - y0
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[2] for b in boxes), max(b[3] for b in boxes)
    assert x0 <= left
    assert y0 <= top
    assert x1 >= right
    assert y1 >= bottom
    assert abs((x0 + x1) - (left + right)) <= 2
    assert abs((y0 + y1) - (top + bottom)) <= 2
    assert x1 - x0 >= 1.25 * max(right - left, bottom - top)


@TRIES
@given(sizes, st.tuples(st.integers(1, 40), st.integers(1, 40)), SEEDS)
def test_masks_stay_masks_and_none_is_lost(size: tuple[int, int], model: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.bool_)
    mask[rng.integers(size[0]), rng.integers(size[1])] = True
    small = shrink_mask(mask, model)
    assert small.dtype == np.bool_
    assert small.shape == model
    assert small.any(), "one pixel is a mask too"
    assert not shrink_mask(np.zeros(size, np.bool_), model).any()


def test_sizes_that_the_generator_takes() -> None:
    assert multiple_of_4((1, 1)) == (8, 8)
    assert multiple_of_4((51, 68)) == (52, 68)


@TRIES
@given(SEEDS, st.integers(0, 3), st.sampled_from([1, 3, 5]))
def test_the_union_is_that_of_training(seed: int, n: int, width: int) -> None:
    mattes = np.random.default_rng(seed).random((n, 12, 14)).astype(np.float32)
    trained = union_matte(torch.from_numpy(mattes)[None] * 2 - 1, torch.ones(1, n, dtype=torch.bool), width)
    assert np.abs(soft_union(mattes, width) - trained[0, 0].numpy()).max() < 1e-5


@TRIES
@given(SEEDS, st.sampled_from(["matte", "whole"]), st.sampled_from(["natural", "exact"]), st.integers(0, 6))
def test_blending_changes_nothing_elsewhere(seed: int, mode: str, background: str, seam: int) -> None:
    rng = np.random.default_rng(seed)
    window = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    old = worlds.ellipse((40, 40), (20, 20, int(rng.integers(3, 9)), int(rng.integers(3, 9))))
    new = worlds.ellipse((16, 16), (8, int(rng.integers(4, 12)), 3, 3))
    raw = (rng.random((16, 16, 3)) * 255).astype(np.float32)
    how = Blend(CompositingConfig(mode=mode), background, seam)  # type: ignore[arg-type]
    before = window.copy()
    out, changed = blend(window, old, raw, new[None].astype(np.float32), how, open_sides=(True, True, True, True))
    assert np.array_equal(window, before), "the input is left alone"
    assert np.array_equal(out[~changed], window[~changed])
    assert (out != window).any()
    if background == "exact":
        assert changed.mean() < 0.95
    if mode == "matte":
        kept = out[old & ~changed]
        assert kept.size == 0, "the old animal is nowhere left as it was"


@pytest.mark.parametrize(("top", "fades"), [(1, False), (0, True)])
def test_what_leaves_its_window_fades_and_nothing_else(top: int, fades: bool) -> None:
    """A head just below the window's upper border is painted as it is; a neck that is cut off by it fades out there."""
    photo = np.full((128, 128, 3), 40, np.uint8)
    raw = np.full((64, 64, 3), 200, np.float32)
    matte = np.zeros((1, 64, 64), np.float32)
    matte[:, top:60, 20:44] = 1
    how = Blend(CompositingConfig(mode="matte", soften=1), "natural", 5)
    out, _ = blend(photo, np.zeros((128, 128), np.bool_), raw, matte, how, open_sides=(True, True, True, True))
    assert out[2 * top + 6 : 110, 64].min() > 190, "all but its end is opaque"
    assert (out[2 * top + 1, 64, 0] < 150) == fades


def crowd() -> tuple[NDArray[np.uint8], Mask, Mask]:
    """Grass with two animals side by side, red and blue, that touch; the red one is the larger."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[:] = (40, 120, 30)
    pixels += np.random.default_rng(0).integers(0, 20, pixels.shape).astype(np.uint8)
    red, blue = np.zeros((2, 120, 160), np.bool_)
    red[40:90, 30:90] = True
    blue[50:85, 90:130] = True
    pixels[red], pixels[blue] = (200, 20, 20), (20, 20, 200)
    return pixels, Mask.from_dense(red), Mask.from_dense(blue)


def painter(colour: float, shape: NDArray[np.bool_]) -> StepFunction:
    """A generator that paints this colour in this shape, bool (32, 32), whatever it is shown."""
    return lambda pixels, masks: (
        np.full((32, 32, 3), colour, np.float32),
        np.repeat(shape[None].astype(np.float32), len(masks), axis=0),
    )


def test_in_a_crowd_nothing_is_filled_with_animals_and_nothing_painted_is_lost() -> None:
    pixels, red, blue = crowd()
    how = Blend(CompositingConfig(mode="matte", dilate=3))
    surface = NativeSurface(pixels, (32, 32), how, red.dense() | blue.dense())
    whole = np.ones((32, 32), np.bool_)
    whole[23:] = False
    slim = np.zeros((32, 32), np.bool_)
    slim[:, 12:20] = True
    # The first animal becomes much wider than it was, over the second one; the second one slimmer.
    first = surface.run(Framing(1.6).window([red.box]), [red], painter(250, whole))
    surface.apply(first)
    wide = first.masks[0].dense()
    assert (wide & blue.dense()).any()
    before = surface.picture().copy()
    second = surface.run(Framing(1.8).window([blue.box]), [blue], painter(5, slim))
    surface.apply(second)
    now = surface.picture()
    # All but the soft seams: at the border of what was painted, and between the two.
    behind = cv2.erode((wide & ~blue.dense()).astype(np.uint8), np.ones((21, 21), np.uint8)) > 0
    assert behind.any()
    assert np.array_equal(now[behind], before[behind]), "what was painted and not the second animal's place stays"
    assert not (second.masks[0].dense() & wide & ~blue.dense()).any(), "a returned mask is what can be seen"
    assert (now[65, 108] < 30).all(), "where it was visible, the second is in front"
    gone = blue.dense() & ~second.masks[0].dense() & ~wide
    gone &= ~cv2.dilate(second.masks[0].dense().astype(np.uint8), np.ones((9, 9), np.uint8)).astype(np.bool_)
    assert gone.any()
    assert (now[gone][:, 1] > 90).all(), "grass, neither red nor painted nor blue"
    assert (now[gone][:, [0, 2]] < 90).all()


def test_who_stands_lower_stays_in_front() -> None:
    """Where the old animal was not seen, all that were painted are in front; where it was, those with lower feet."""
    made = np.zeros((4, 6), np.uint16)
    made[:, 1:3], made[:, 3:5] = 60, 80
    old = np.zeros((4, 6), np.bool_)
    old[2:] = True
    front = nearer(made, old, 70)
    assert front[:2].tolist() == [[False, True, True, True, True, False]] * 2
    assert front[2:].tolist() == [[False, False, False, True, True, False]] * 2


def test_the_key_of_a_step_knows_the_animals_around_it(matte_weights: Path, tmp_path: Path) -> None:
    """Who else is in the window decides what a hole is filled with: another key. One far away does not matter."""
    wanted = TranslateSettings(source="sheep", target="giraffe", weights=str(matte_weights))
    weights = resolve_weights(wanted, Store(tmp_path))
    layout = lay_out((400, 400), weights, wanted)
    boxes = {"a": (10, 10, 60, 60), "b": (58, 10, 100, 60), "c": (300, 300, 350, 350)}

    def first_key(names: str) -> str:
        records = [{"number": k, "box": boxes[name], "digest": name} for k, name in enumerate(names)]
        steps = plan_steps(records[:1], records, "photo", layout, weights, {}, wanted)
        return key_of(steps[0].inputs)

    assert first_key("a") != first_key("ab")
    assert first_key("a") == first_key("ac")
    # On the ground an animal may become wider than its window, or move: who stands there matters as well.
    boxes["b"] = (80, 10, 100, 60)
    assert first_key("a") == first_key("ab")
    layout = replace(layout, placement="ground")
    assert first_key("a") != first_key("ab")
    assert first_key("a") == first_key("ac")


def test_a_window_that_replaces_has_a_soft_border() -> None:
    window = np.zeros((64, 64, 3), np.uint8)
    raw = np.full((16, 16, 3), 200, np.float32)
    mattes = np.zeros((1, 16, 16), np.float32)
    out, _ = blend(
        window, np.zeros((64, 64), np.bool_), raw, mattes, Blend(CompositingConfig()), open_sides=(True,) * 4
    )
    assert out[32, 32, 0] == 200
    assert 0 < out[32, 0, 0] < 40
    assert np.all(np.diff(out[32, :4, 0].astype(int)) > 0)
    sharp, _ = blend(window, np.zeros((64, 64), np.bool_), raw, mattes, Blend(CompositingConfig()))
    assert (sharp == 200).all(), "at the photo's own border nothing is faded"


def rolled(weights: Path, pixels: NDArray[np.uint8], masks: list[Mask]) -> list[StepRecord]:
    """Whole mode, one mask a step, through the product's own pieces."""
    card, folder = find_card(str(weights), "translator")
    translator = Translator(card, folder, "source_to_target", device="cpu")
    frame = whole_window((pixels.shape[0], pixels.shape[1]))
    surface = ModelSurface(pixels, frame, (pixels.shape[0], pixels.shape[1]), Blend(card.compositing))
    records = []
    for mask in masks:
        records.append(surface.run(frame, [mask], translator.step))
        surface.apply(StepRecord.read(records[-1].files()))
    return records


def test_whole_mode_is_the_sequential_rollout_of_training(sizeless_weights: Path) -> None:
    """Step by step the image and the mattes of translation.step, which parity holds to the authors' code."""
    pixels = worlds.photo_pixels()
    masks = [Mask.from_dense(worlds.ellipse(worlds.SIZE, blob)) for blob in worlds.SHEEP]
    card, folder = find_card(str(sizeless_weights), "translator")
    generator = load_generator(card, folder, "source_to_target", "cpu")
    image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    for record, mask in zip(rolled(sizeless_weights, pixels, masks), masks, strict=True):
        planes = torch.from_numpy(mask.dense()).float()[None, None] * 2 - 1
        with torch.inference_mode():
            result = translate_step(generator, image, planes, torch.ones(1, 1, dtype=torch.bool), card.compositing)
        image = result.image
        assert record.state is not None
        expected = ((image[0].permute(1, 2, 0) + 1) * 127.5).numpy()
        assert np.abs(record.state - expected).max() < 1e-4 * 127.5
        matte = ((result.masks[0, 0] + 1) / 2).numpy()
        clear = np.abs(matte - 0.5) > 1e-4
        assert np.array_equal(record.masks[0].dense()[clear], (matte >= 0.5)[clear])


def test_records_survive_the_cache_bit_by_bit(matte_weights: Path) -> None:
    card, folder = find_card(str(matte_weights), "translator")
    translator = Translator(card, folder, "source_to_target", device="cpu")
    pixels = worlds.photo_pixels()
    surface = NativeSurface(pixels, (32, 32), Blend(card.compositing))
    mask = Mask.from_dense(worlds.ellipse(worlds.SIZE, worlds.SHEEP[0]))
    record = surface.run(Framing(1.25).window([mask.box]), [mask], translator.step)
    again = StepRecord.read(record.files())
    assert record.patch is not None
    assert again.patch is not None
    assert np.array_equal(record.patch, again.patch)
    assert np.array_equal(record.changed.dense(), again.changed.dense())
    assert [np.array_equal(a.dense(), b.dense()) for a, b in zip(record.masks, again.masks, strict=True)] == [True]
    assert np.array_equal(surface.picture(), pixels), "running a step leaves the state alone"
    surface.apply(again)
    outside = ~record.changed.dense()
    assert np.array_equal(surface.picture()[outside], pixels[outside])


@pytest.mark.parametrize("background", ["natural", "exact"])
def test_a_preview_is_the_picture_made_small(background: str) -> None:
    """What the filmstrip shows of the paper's whole images, without a composite at the photo's size for each step."""
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (403, 602, 3)).astype(np.uint8), (0, 0), 9)
    mask = Mask.from_dense(worlds.ellipse((403, 602), (200, 300, 90, 60)))
    surface = ModelSurface(pixels, (0, 0, 604, 404), (100, 152), Blend(CompositingConfig(), background))  # type: ignore[arg-type]
    assert surface.preview(320) is pixels, "before the first step"
    ramp = np.linspace(40, 220, 152, dtype=np.float32)[None, :, None].repeat(100, 0).repeat(3, 2)
    surface.apply(surface.run((0, 0, 604, 404), [mask], lambda seen, masks: (ramp, masks.astype(np.float32))))
    picture, preview = surface.picture(), surface.preview(301)
    assert max(preview.shape) == 301
    made_small = cv2.resize(picture, preview.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(preview.astype(int) - made_small).mean() < 1.5
    inside_it = shrink_mask(mask.dense(), preview.shape[:2])
    assert np.abs(preview.astype(int) - cv2.resize(pixels, preview.shape[1::-1]))[inside_it].mean() > 5
    assert np.array_equal(surface.preview(9999), picture)
    assert max(surface.preview(150).shape) == 150, "another side, another picture"


@TRIES
@given(sizes, windows, SEEDS)
def test_mattes_come_back_where_they_belong(size: tuple[int, int], window: tuple, seed: int) -> None:
    matte = np.random.default_rng(seed).random((9, 9)).astype(np.float32)
    mask = enlarged_mask(matte, window, size)
    assert mask.size == size
    if not mask.area:
        return
    left, top, right, bottom = inside(window, size)
    x0, y0, x1, y1 = mask.box
    assert left <= x0 < x1 <= right
    assert top <= y0 < y1 <= bottom


def test_a_window_needs_a_box() -> None:
    with pytest.raises(ValueError, match="at least one box"):
        Framing(1.25).window([])


def test_on_the_ground_feet_are_at_one_height() -> None:
    """In the window of a low animal and of a tall one, whether or not the photo ends above."""
    for box in ((100, 300, 200, 350), (100, 250, 200, 350), (160, 270, 180, 350), (100, 20, 200, 80)):
        x0, y0, x1, y1 = Framing(1.5, placement="ground").window([box])
        side = round(1.5 * max(box[2] - box[0], box[3] - box[1]))
        assert (x1 - x0, y1 - y0) == (side, side)
        assert abs((x0 + x1) - (box[0] + box[2])) <= 1
        assert y1 - box[3] == round(0.1 * side)
    flat, front = [(100, 300, 200, 350)], [(160, 270, 190, 350)]
    assert Framing(1.25, 1.75).window(front) == Framing(1.75).window(front)
    assert Framing(1.5, 1.75).window(flat) == Framing(1.5).window(flat)


@TRIES
@given(st.integers(20, 200), st.integers(20, 200), st.sampled_from([0.0, 0.8, 1.2]))
def test_narrow_animals_are_shown_wider(width: int, height: int, least: float) -> None:
    framing = Framing(1.35, 1.8, least, "ground")
    x0, y0, x1, y1 = framing.window([(300, 300, 300 + width, 300 + height)])
    shown = (width / (x1 - x0)) / (height / (y1 - y0))
    aspect = width / height
    expected = max(aspect, min(least, 1.7 * aspect))
    assert shown == pytest.approx(expected, rel=0.03)
    assert (y1 - y0) / max(width, height) <= framing.reach + 0.1
    assert (x1 - x0) <= (y1 - y0)


def test_an_animal_that_is_too_tall_is_made_smaller_on_its_feet() -> None:
    """Its head comes into the photo, its feet stay; one that leaves the photo sideways moves in."""
    size, box = (200, 300), (100, 30, 180, 180)
    window = Framing(1.35, 1.8, placement="ground").window([box])
    whole = (0.3, 0.1, 0.7, 0.9)
    x0, y0, x1, y1 = placed(window, size, whole)
    side = y1 - y0
    assert x1 - x0 == side
    assert side < window[3] - window[1]
    head, feet = y0 + 0.1 * side, y0 + 0.9 * side
    assert head == pytest.approx(0.02 * 180, abs=1.5)
    assert feet == pytest.approx(180, abs=1.5)
    assert abs((x0 + x1) - (box[0] + box[2])) <= 2
    assert placed(window, size, (0.3, 0.5, 0.7, 0.9)) == window, "what fits stays as it is"
    left = Framing(1.35, 1.8, placement="ground").window([(0, 100, 60, 180)])
    x0, y0, x1, y1 = placed(left, size, (0.1, 0.4, 0.7, 0.9))
    assert x0 + 0.1 * (x1 - x0) == pytest.approx(0, abs=1.5)
    assert y1 == left[3]
    narrow = Framing(1.35, 1.8, 1.2, "ground").window([(100, 100, 140, 180)])
    x0, y0, x1, y1 = placed(narrow, size, (0.3, 0.5, 0.7, 0.9))
    assert (y0, y1) == (narrow[1], narrow[3])
    assert x1 - x0 == y1 - y0 > narrow[2] - narrow[0], "in its own proportions"
    assert placed(narrow, size, (0.3, 0.5, 0.7, 0.9), freedom=0) == narrow, "as narrow as it was"
    low = placed((0, -300, 400, 100), (100, 400), whole)
    assert low[3] - low[1] == 200, "never less than half as large"


@pytest.mark.parametrize("bottom", [0.82, 0.9, 0.97])
def test_a_new_animal_stands_where_the_old_one_stood(bottom: float) -> None:
    """Wherever in its window its feet have come out; what has no legs is lowered by a tenth of the window at most."""
    size, box = (400, 300), (100, 230, 180, 300)
    window = Framing(1.35, 1.8, placement="ground").window([box])
    high = window[3] - window[1]
    x0, y0, x1, y1 = placed(window, size, (0.3, 0.2, 0.7, bottom))
    assert (x1 - x0, y1 - y0) == (window[2] - window[0], high)
    assert y0 + bottom * high == pytest.approx(300, abs=1.5)
    scrap = placed(window, size, (0.3, 0.2, 0.7, 0.5))
    assert scrap[1] - window[1] == pytest.approx(0.1 * high, abs=1.5)


def test_a_wider_animal_leaves_its_neighbours_room() -> None:
    """Alone, what was shown wider than it is has its own proportions; between two others it stays narrower, beside one
    it steps aside."""
    pixels, _, blue = crowd()
    narrow = np.zeros(pixels.shape[:2], np.bool_)
    narrow[50:85, 72:90] = True
    old = Mask.from_dense(narrow)
    body = np.zeros((32, 32), np.bool_)
    body[12:29, 6:26] = True
    window = Framing(1.35, 1.8, 1.2, "ground").window([old.box])
    assert window[2] - window[0] < window[3] - window[1]
    how = Blend(CompositingConfig(mode="matte", dilate=3))
    both = blue.dense()
    both[50:85, 40:68] = True
    widths, middles = {}, {}
    for name, animals in (("alone", narrow), ("beside", narrow | blue.dense()), ("between", narrow | both)):
        surface = NativeSurface(pixels, (32, 32), how, animals, "ground")
        x0, y0, x1, y1 = surface.run(window, [old], painter(250, body)).masks[0].box
        widths[name], middles[name] = x1 - x0, (x0 + x1) / 2
        assert y1 - y0 == pytest.approx((window[3] - window[1]) * 17 / 32, abs=2)
    assert widths["alone"] == pytest.approx((window[3] - window[1]) * 20 / 32, abs=2)
    assert widths["between"] < 0.8 * widths["alone"]
    assert widths["beside"] > widths["between"]
    assert abs(middles["beside"] - middles["alone"]) > 2


def test_what_is_seen_from_the_front_looks_where_there_is_room() -> None:
    """A neck to the right over a neighbour: the animal is turned and keeps its width; one seen from the side is not."""
    pixels, _, blue = crowd()
    necked = np.zeros((32, 32), np.bool_)
    necked[16:29, 12:19] = True
    necked[8:16, 17:26] = True
    how = Blend(CompositingConfig(mode="matte", dilate=3))
    boxes = {}
    for name, columns, animals in (
        ("alone", (72, 84), False), ("front", (72, 84), True), ("side", (48, 84), True),
    ):  # fmt: skip
        old = np.zeros(pixels.shape[:2], np.bool_)
        old[50:85, columns[0] : columns[1]] = True
        window = Framing(1.35, 1.8, 1.0, "ground").window([Mask.from_dense(old).box])
        surface = NativeSurface(pixels, (32, 32), how, old | blue.dense() if animals else old, "ground")
        record = surface.run(window, [Mask.from_dense(old)], painter(250, necked))
        box = record.masks[0].box
        middle = (columns[0] + columns[1]) / 2
        boxes[name] = (box[2] - middle) - (middle - box[0]), box[2] - box[0]
    assert boxes["alone"][0] > 3, "to the right"
    assert boxes["front"][0] < -3, "to the left"
    assert boxes["front"][1] == pytest.approx(boxes["alone"][1], abs=2)
    assert boxes["side"][0] > 0, "an animal seen from the side looks where it looked"


def test_a_step_fits_what_it_made_into_the_photo() -> None:
    """A tall animal in the place of one at the upper border: all of it is in the photo, and no old one is left."""
    pixels, red, _ = crowd()
    tall = np.zeros((32, 32), np.bool_)
    tall[2:29, 12:20] = True
    window = Framing(1.3, 3, placement="ground").window([red.box])
    made = {}
    for placement in ("centre", "ground"):
        how = Blend(CompositingConfig(mode="matte", dilate=3))
        surface = NativeSurface(pixels, (32, 32), how, red.dense(), placement)
        record = surface.run(window, [red], painter(250, tall))
        surface.apply(record)
        made[placement] = record.masks[0].box
        there = surface.picture()
        assert (there[:, :, 0] > 120)[red.dense() & ~record.changed.dense()].sum() == 0
        assert np.array_equal(there[~record.changed.dense()], pixels[~record.changed.dense()])
    assert made["centre"][1] == 0, "cut off at the border"
    assert made["ground"][1] > 0
    assert made["ground"][3] == pytest.approx(90, abs=3)
    x0, y0, x1, y1 = made["ground"]
    assert (y1 - y0) / (x1 - x0) == pytest.approx(27 / 8, rel=0.15)
    assert hull((0, 5, 10, 20), (-3, 7, 4, 30)) == (-3, 5, 10, 30)


@pytest.mark.parametrize("facing", ["any", "right"])
def test_weights_that_look_right_know_mirrored_animals(tmp_path: Path, facing: str) -> None:
    """What they make of a mirrored window is the mirrored result, exactly; others make something else of it."""
    folder = worlds.write_weights(tmp_path / "w-1")
    card, _ = find_card(str(folder), "translator")
    translator = Translator(card.model_copy(update={"facing": facing}), folder, "source_to_target")
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (32, 32, 3)).astype(np.float32)
    masks = np.zeros((1, 32, 32), np.bool_)
    masks[0, 14:28, 4:28] = True  # a body
    masks[0, 6:14, 20:28] = True  # a head, on its right
    assert not faces_left(masks[0])
    assert faces_left(masks[0, :, ::-1])
    raw, mattes = translator.step(pixels, masks)
    raw_there, mattes_there = translator.step(np.ascontiguousarray(pixels[:, ::-1]), masks[:, :, ::-1])
    same = np.array_equal(raw, raw_there[:, ::-1]) and np.array_equal(mattes, mattes_there[:, :, ::-1])
    assert same == (facing == "right")


def test_slivers_apart_from_the_animal_go_and_legs_stay() -> None:
    matte = np.zeros((64, 64), np.float32)
    matte[10:40, 20:40] = 1  # body, 600 px
    matte[44:60, 22:26] = 0.9  # a leg, cut off from it: 64 px
    matte[4:9, 50:54] = 0.8  # a sliver: 20 px, with a faint edge
    matte[4:9, 54] = 0.1
    matte[39, 40] = 0.1  # the body's own faint edge
    two = np.zeros(matte.shape, np.bool_)
    two[5:20], two[30:40] = True, True
    out = without_slivers(matte, two)
    assert not out[:12, 45:].any()
    kept = matte.copy()
    kept[4:9, 50:55] = 0
    assert np.array_equal(out, kept)
    assert without_slivers(kept, two) is kept
    empty = np.zeros((8, 8), np.float32)
    assert without_slivers(empty, empty > 0) is empty


def test_an_animal_in_one_piece_stays_in_one_piece() -> None:
    matte = np.zeros((60, 60), np.float32)
    matte[10:30, 10:40] = 1
    matte[40:50, 10:17] = 1  # a leg, apart: a ninth of the body
    whole, behind_a_post = np.zeros((2, 60, 60), np.bool_)
    whole[10:30] = True
    behind_a_post[10:30, :20], behind_a_post[10:30, 25:40] = True, True
    assert without_slivers(matte, behind_a_post) is matte
    alone = without_slivers(matte, whole)
    assert not alone[35:].any()
    assert np.array_equal(alone[:35], matte[:35])


def test_what_is_enlarged_gets_a_photos_edges() -> None:
    rng = np.random.default_rng(0)
    matte = cv2.GaussianBlur(cv2.circle(np.zeros((24, 24), np.float32), (11, 13), 6, 1, -1), (0, 0), 1)
    size = (192, 168)
    crisp, soft = crisp_edge(matte, size), cv2.resize(matte, size[::-1], interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(crisp >= 0.5, soft >= 0.5)  # the outline stays where it was
    undecided = [((each > 0.1) & (each < 0.9)).mean() for each in (crisp, soft)]
    assert undecided[0] < 0.4 * undecided[1]
    assert np.array_equal(crisp_edge(matte, matte.shape), matte)
    raw = cv2.GaussianBlur(rng.random((24, 24, 3)).astype(np.float32) * 255, (0, 0), 1)
    more = missing_sharpness(raw, size)
    grey = np.ascontiguousarray(raw.mean(axis=2))
    before = cv2.resize(grey, size[::-1], interpolation=cv2.INTER_CUBIC)
    steepness = [np.abs(np.diff(each, axis=1)).mean() for each in (before + more, before)]
    assert steepness[0] > 1.15 * steepness[1]
    assert grey.min() - 1e-3 <= (before + more).min() <= (before + more).max() <= grey.max() + 1e-3  # no halo
    assert not missing_sharpness(raw, (24, 24)).any()
