"""The measures against their reference libraries, and on worlds with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instapipe.evaluation.background import background, foreign_colours, ssim_map
from instapipe.evaluation.cases import Case, case_of, copy_case
from instapipe.evaluation.distribution import diversity, fid, kid, nearest
from instapipe.evaluation.masks import average_precision, mask_quality, worsen
from instapipe.structures import Instances, Mask, Translation

SIZE = (120, 160)


def box(x0: int, y0: int, x1: int, y1: int) -> Mask:
    return Mask.from_crop(SIZE, (x0, y0), np.ones((y1 - y0, x1 - x0), dtype=bool))


def instances(*masks: Mask, label: str = "sheep", scores: tuple[float, ...] = ()) -> Instances:
    return Instances(SIZE, masks, (label,) * len(masks), scores or (1.0,) * len(masks))


def photo(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)
    return np.ascontiguousarray(
        np.kron(coarse, np.ones((10, 10, 1), np.uint8)) // 2 + rng.integers(0, 100, (*SIZE, 3), dtype=np.uint8)
    )


class FirstPixels(torch.nn.Module):
    """A feature network for the reference libraries: the first values of the image."""

    num_features = 6

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :6].double() / 255


def as_images(features: np.ndarray) -> torch.Tensor:
    """Images whose features by FirstPixels are `features` (multiples of 1/255)."""
    images = torch.zeros(len(features), 3, 4, 4, dtype=torch.uint8)
    images.view(len(features), -1)[:, :6] = torch.from_numpy((features * 255).round().astype(np.uint8))
    return images


def two_sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    first = rng.integers(0, 200, (40, 6)) / 255
    second = rng.integers(60, 255, (30, 6)) / 255
    return first.astype(np.float32), second.astype(np.float32)


@pytest.mark.filterwarnings("ignore")
def test_fid_equals_torchmetrics() -> None:
    reference = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics (extra [metrics]) is not installed")
    first, second = two_sets()
    metric = reference.FrechetInceptionDistance(feature=FirstPixels())
    metric.set_dtype(torch.float64)
    metric.update(as_images(first), real=True)
    metric.update(as_images(second), real=False)
    assert fid(first, second) == pytest.approx(float(metric.compute()), rel=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_kid_equals_torchmetrics_on_one_full_subset() -> None:
    reference = pytest.importorskip("torchmetrics.image.kid", reason="torchmetrics (extra [metrics]) is not installed")
    first, second = two_sets()
    first = first[:30]
    metric = reference.KernelInceptionDistance(feature=FirstPixels(), subsets=1, subset_size=30)
    metric.update(as_images(first), real=True)
    metric.update(as_images(second), real=False)
    assert kid(first, second) == pytest.approx(float(metric.compute()[0]), rel=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_ssim_equals_torchmetrics() -> None:
    reference = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics (extra [metrics]) is missing")
    first, second = photo(0), photo(1) // 2 + photo(0) // 2

    def tensor(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].double()

    _, full = reference.structural_similarity_index_measure(
        tensor(first), tensor(second), data_range=255.0, return_full_image=True
    )
    np.testing.assert_allclose(ssim_map(first, second), full[0].mean(0).numpy(), atol=1e-6)


def test_kid_and_fid_are_near_zero_for_one_distribution_and_grow_with_distance() -> None:
    rng = np.random.default_rng(0)
    base, same = (rng.normal(0, 1, (300, 8)).astype(np.float32) for _ in range(2))
    values = [kid(base, same + shift) for shift in (0.0, 0.5, 1.0)]
    assert abs(values[0]) < 0.1 < values[1] < values[2]
    # Equal covariances: FID is the squared distance of the means, here 8 x 0.25.
    assert fid(base, base + 0.5) == pytest.approx(2.0, rel=1e-3)
    assert math.isnan(kid(base[:1], same))
    assert math.isnan(fid(base[:1], same))


def test_pasting_one_memorised_crop_shows_in_nearest_and_diversity() -> None:
    rng = np.random.default_rng(1)
    known = rng.normal(0, 1, (50, 16)).astype(np.float32)
    honest = rng.normal(0, 1, (20, 16)).astype(np.float32)
    pasted = np.repeat(known[7:8], 20, axis=0)
    assert nearest(pasted, known).max() == pytest.approx(0.0, abs=1e-6)
    assert nearest(honest, known).min() > 0.1
    assert diversity(pasted) == pytest.approx(0.0, abs=1e-6)
    assert diversity(honest) > 0.8
    assert np.isnan(nearest(honest, known[:0])).all()


def test_background_counts_only_what_lies_outside() -> None:
    before = photo()
    after = before.copy()
    after[20:60, 20:60] = 0
    outside = np.ones(SIZE, dtype=bool)
    outside[8:72, 8:72] = False
    untouched = background(before, after, outside)
    assert (untouched.l1, untouched.identical) == (0.0, 1.0)
    assert untouched.ssim == pytest.approx(1.0)
    after[100, 100:110] += np.uint8(1)
    touched = background(before, after, outside)
    assert touched.l1 == pytest.approx(10 / outside.sum())
    assert touched.identical == pytest.approx(1 - 10 / outside.sum())
    assert math.isnan(background(before, after, np.zeros(SIZE, dtype=bool)).l1)
    with pytest.raises(ValueError, match="expected equal sizes"):
        background(before, after[:-1], outside)


def test_neon_green_is_foreign_and_the_colours_nearby_are_not() -> None:
    before = photo()
    old, new = box(40, 40, 100, 100).dense(), box(60, 20, 80, 100).dense()
    filled = before.copy()
    filled[40:100, 40:100] = before[:1, :1]  # a colour of the photo, inside the neighbourhood below
    filled[old] = np.median(before[0:40, 40:100].reshape(-1, 3), axis=0).astype(np.uint8)
    neon = before.copy()
    neon[old & ~new] = (20, 255, 20)
    assert foreign_colours(before, filled, old, new) < 0.05
    assert foreign_colours(before, neon, old, new) == 1.0
    assert math.isnan(foreign_colours(before, neon, old, old))


def test_a_case_pairs_returned_masks_by_number_and_overlap() -> None:
    listed = instances(box(0, 0, 40, 40), box(80, 0, 120, 40), box(0, 80, 30, 110))
    chosen = Instances(
        SIZE, (box(78, 0, 120, 42), box(2, 0, 40, 40), box(130, 90, 150, 110)), ("sheep",) * 3, (1.0,) * 3, (4, 2, 9)
    )
    made = Instances(
        SIZE, (box(0, 0, 20, 70), box(90, 0, 110, 70), box(130, 80, 150, 110)), ("giraffe",) * 3, (1.0,) * 3, (2, 4, 9)
    )
    pixels = photo()
    changed = Mask.from_dense(np.ones(SIZE, dtype=bool))
    case = case_of("x", pixels, listed, chosen, Translation(pixels, made, (), changed))
    assert [None if m is None else m.box for m in case.returned] == [(0, 0, 20, 70), (90, 0, 110, 70), None]
    assert [m.box for m in case.extra] == [(130, 80, 150, 110)]
    outside = case.outside()
    assert not outside[100, 140]
    assert outside[118, 60]
    assert case.outside(5).sum() < outside.sum()
    with pytest.raises(ValueError, match="expected 3 returned masks"):
        Case("x", pixels, pixels, listed, (None,))


def test_the_copy_returns_the_sources_own_masks_of_the_source_class() -> None:
    both = Instances(SIZE, (box(0, 0, 40, 40), box(80, 0, 120, 40)), ("sheep", "giraffe"), (1.0, 1.0))
    case = copy_case("x", photo(), both, "sheep")
    assert [m is None for m in case.returned] == [False, True]
    assert (case.before == case.after).all()


def test_average_precision_of_known_sets() -> None:
    listed = [instances(box(0, 0, 40, 40), box(80, 0, 120, 40))]
    assert average_precision(listed, listed) == (1.0, 1.0)
    assert average_precision(listed, [instances()]) == (0.0, 0.0)
    assert average_precision([instances()], listed) == (-1.0, -1.0)
    # IoU 0.8 for one of two: found at 0.50 ... 0.80 (seven of ten thresholds), 51 of 101 recall points each.
    part = [instances(box(0, 0, 40, 32))]
    ap, ap50 = average_precision(listed, part)
    assert ap50 == pytest.approx(51 / 101, abs=1e-3)
    assert ap == pytest.approx(0.7 * 51 / 101, abs=0.06)


def test_mask_quality_is_of_one_class() -> None:
    listed = Instances(SIZE, (box(0, 0, 40, 40), box(80, 0, 120, 40)), ("sheep", "horse"), (1.0, 1.0))
    made = instances(box(0, 0, 40, 20), scores=(0.9,))
    quality = mask_quality([(listed, made)], "sheep")
    assert (quality.n, quality.found, quality.iou) == (1, 1.0, 0.5)


def test_masks_get_worse_as_asked() -> None:
    given = instances(box(10, 10, 60, 60), box(80, 20, 130, 70), box(20, 80, 50, 110))
    rng = np.random.default_rng(0)
    assert worsen(given, "none", 1.0, rng) is given
    assert (worsen(given, "erode", 0.5, rng).areas < given.areas).all()
    assert (worsen(given, "dilate", 0.5, rng).areas > given.areas).all()
    holed = worsen(given, "holes", 0.3, rng)
    assert (holed.areas < 0.71 * given.areas).all()
    assert (holed.areas > 0.4 * given.areas).all()
    assert len(worsen(given, "drop", 1.0, rng)) == 0
    assert len(worsen(given, "drop", 0.0, rng)) == 3
    merged = worsen(given, "merge", 1.0, rng)
    assert len(merged) == 1
    assert merged.areas.sum() == given.areas.sum()
    with pytest.raises(ValueError, match="amount must lie"):
        worsen(given, "drop", 1.5, rng)


def test_worse_masks_keep_their_numbers_and_are_seeded() -> None:
    given = instances(*(box(x, 10, x + 14, 60) for x in range(0, 150, 15)))
    first = worsen(given, "drop", 0.5, np.random.default_rng(3))
    again = worsen(given, "drop", 0.5, np.random.default_rng(3))
    assert first.numbers == again.numbers
    assert 0 < len(first) < len(given)
