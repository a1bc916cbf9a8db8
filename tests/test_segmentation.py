"""Segmenters through their front door: names, descriptions, real photos, masks at the photo's own size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instapipe.config import SegmenterCard
from instapipe.errors import UnknownClass, WeightsError
from instapipe.imaging import read_photo
from instapipe.networks.cards import bundled, digest
from instapipe.segmentation import load_segmenter, registry
from instapipe.segmentation.compact import compact_maskrcnn, taken, without_parts
from instapipe.segmentation.rcnn import paste
from instapipe.segmentation.settings import CompactSettings
from instapipe.structures import Instances, Mask, Photo

DEMO = Path(__file__).parent / "data" / "demo"
SMALL = CompactSettings(
    channels=16, box_width=32, mask_width=8, mask_layers=1, mask_grid=7, short_side=96, long_side=160
)
needs_weights = pytest.mark.skipif(
    not any(isinstance(card, SegmenterCard) for card, _ in bundled()), reason="no bundled segmenter in this checkout"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Untrained weights of a small network, with their card."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    file = tmp_path / "small.safetensors"
    state = compact_maskrcnn(SMALL, 2).state_dict()
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, str(file))
    card = SegmenterCard(
        name="small-1",
        settings=SMALL.model_dump(mode="json"),
        classes=("disc", "square"),
        file=file.name,
        sha256=digest(file),
        dtype="float16",
    )
    (tmp_path / "card.json").write_text(card.model_dump_json(), encoding="utf-8")
    return tmp_path


def noise(height: int, width: int) -> Photo:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Photo(pixels, "noise", "0" * 64)


def test_results_are_unfiltered_bounded_and_in_the_frame_of_the_photo(folder: Path) -> None:
    """An untrained network is unsure of everything: as many instances as are allowed."""
    segmenter = load_segmenter(str(folder))
    found = segmenter.segment(noise(700, 1100))
    assert 1 <= len(found) <= 100
    assert found.size == (700, 1100)
    assert min(found.scores) >= 0.05
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert set(found.labels) <= {"disc", "square"} == set(segmenter.classes)
    assert found.boxes[:, 2:].max() > 320  # not left at the size that the network worked at
    for mask in found.masks:
        assert mask.crop.any(axis=1)[[0, -1]].all()
        assert mask.crop.any(axis=0)[[0, -1]].all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (40, 40)])
def test_odd_sizes_are_legal(folder: Path, size: tuple[int, int]) -> None:
    assert load_segmenter(str(folder)).segment(noise(*size)).size == size


def test_segmenting_twice_gives_the_same(folder: Path) -> None:
    one, two = (load_segmenter(str(folder)).segment(noise(120, 90)) for _ in range(2))
    assert one.scores == two.scores
    assert all((a.crop == b.crop).all() for a, b in zip(one.masks, two.masks, strict=True))


def test_what_is_seen_both_ways_is_mirrored_with_the_photo(folder: Path) -> None:
    """To the last mask and score, though a network sees a photo and its mirror image differently."""
    photo = noise(90, 130)  # no multiple of the network's strides
    turned = Photo(np.ascontiguousarray(photo.pixels[:, ::-1]), "turned", "0" * 64)

    def segmented(mirrored: bool) -> tuple[Instances, Instances]:
        card = json.loads((folder / "card.json").read_text())
        card["settings"]["mirrored"] = mirrored
        (folder / "card.json").write_text(json.dumps(card))
        segmenter = load_segmenter(str(folder))
        return segmenter.segment(photo), segmenter.segment(turned)

    def apart(one: Instances, two: Instances) -> float:
        theirs = [mask.dense()[:, ::-1] for mask in two.masks]
        return max(
            min(np.count_nonzero(mask.dense() ^ their) / mask.area for their in theirs) for mask in one.masks[:20]
        )

    once, both = segmented(False), segmented(True)
    assert both[0].scores == pytest.approx(both[1].scores, abs=1e-5)
    assert apart(*both) < 0.01 < 0.1 < apart(*once)


def test_the_description_is_the_loaded_ones(folder: Path) -> None:
    segmenter = load_segmenter(str(folder))
    assert registry.describe(str(folder)) == (segmenter.classes, segmenter.fingerprint())
    assert json.loads(json.dumps(segmenter.fingerprint())) == segmenter.fingerprint()
    assert str(folder) not in json.dumps(segmenter.fingerprint())


def test_other_weights_have_another_fingerprint(folder: Path) -> None:
    before = registry.describe(str(folder))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    assert registry.describe(str(folder)) != before
    with pytest.raises(WeightsError, match="is not what its card says"):
        load_segmenter(str(folder))


def test_descriptions_import_no_torch(folder: Path) -> None:
    program = (
        "import sys; from instapipe.segmentation import registry\n"
        "for name in sys.argv[1:]: registry.describe(name)\n"
        "print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    names = [str(folder), "torchvision:v1", "torchvision:v2"]
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_weights_of_another_form_are_refused(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "settings": {**card["settings"], "channels": 24}}))
    with pytest.raises(WeightsError, match="does not fit its card"):
        load_segmenter(str(folder))


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "small.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"small\.safetensors"):
        load_segmenter(str(folder))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"no segmenter weights 'maskrccn'.*adapter: detectron2, torchvision"):
        load_segmenter("maskrccn")
    with pytest.raises(UnknownClass, match=r"no bundled segmenter knows 'unicorn'.*--segmenter torchvision"):
        registry.default_for("unicorn")


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Mask:
    dense = np.zeros((40, 60), dtype=np.bool_)
    dense[y0:y1, x0:x1] = True
    return Mask.from_dense(dense)


def test_half_an_animal_beside_the_whole_one_is_dropped() -> None:
    whole, half, neighbour = rectangle(5, 5, 25, 25), rectangle(5, 5, 15, 25), rectangle(22, 5, 42, 25)
    masks = (whole, half, neighbour, half, rectangle(50, 0, 60, 5))
    labels = ("sheep", "sheep", "sheep", "cow", "sheep")
    found = without_parts(Instances((40, 60), masks, labels, (0.9, 0.8, 0.7, 0.6, 0.5)))
    assert found.scores == (0.9, 0.7, 0.6, 0.5)
    assert found.numbers == (0, 1, 2, 3)
    assert taken(whole, [neighbour]) == taken(neighbour, [whole]) == 3 * 20
    assert taken(half, [masks[4]]) == 0


def test_the_halves_of_two_animals_are_no_third_one() -> None:
    one, two, between = rectangle(5, 5, 25, 25), rectangle(25, 5, 45, 25), rectangle(17, 5, 33, 25)
    found = without_parts(Instances((40, 60), (one, two, between), ("sheep",) * 3, (0.9, 0.8, 0.7)))
    assert found.scores == (0.9, 0.8)
    assert taken(between, [one, two]) == between.area
    found = without_parts(Instances((40, 60), (between, one, two), ("sheep",) * 3, (0.9, 0.8, 0.7)))
    assert found.scores == (0.9, 0.8, 0.7), "of each of them less than half"


coordinate = st.floats(-20, 60, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.tuples(coordinate, coordinate), st.floats(0.5, 70), st.floats(0.5, 70), st.integers(0, 2**32 - 1))
def test_pasting_is_bilinear_sampling(corner: tuple[float, float], width: float, height: float, seed: int) -> None:
    """As torch samples a grid over the whole photo, which is what detectron2 does."""
    size = (40, 50)
    grid = torch.rand(14, 14, generator=torch.Generator().manual_seed(seed))
    x0, y0 = corner
    xs = (torch.arange(size[1], dtype=torch.float64) + 0.5 - x0) / width * 2 - 1
    ys = (torch.arange(size[0], dtype=torch.float64) + 0.5 - y0) / height * 2 - 1
    points = torch.stack(torch.broadcast_tensors(xs[None, :], ys[:, None]), dim=-1)
    dense = torch.nn.functional.grid_sample(grid[None, None].double(), points[None], align_corners=False)[0, 0].numpy()
    # A box that ends inside a pixel leaves what fades out beyond it to the whole-photo method.
    left, top, right, bottom = np.floor(x0), np.floor(y0), np.ceil(x0 + width), np.ceil(y0 + height)
    columns, rows = np.arange(size[1]), np.arange(size[0])
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    got = paste(grid.numpy(), np.asarray([x0, y0, x0 + width, y0 + height]), size).dense()
    sure = abs(dense - 0.5) > 1e-4
    np.testing.assert_array_equal(got[sure], ((dense >= 0.5) & inside)[sure])


def test_a_large_photo_does_not_hold_dense_masks(folder: Path) -> None:
    """100 dense masks of 24 megapixels would be 2.4 GB; the crops are what the boxes ask for."""
    photo = Photo(np.zeros((2400, 3600, 3), dtype=np.uint8), "large", "0" * 64)
    found = load_segmenter(str(folder)).segment(photo)
    assert found.size == (2400, 3600)
    for mask in found.masks:
        x0, y0, x1, y1 = mask.box
        assert mask.crop.base is None
        assert mask.crop.nbytes == (x1 - x0) * (y1 - y0)


@needs_weights
@pytest.mark.parametrize(
    ("photo", "label", "least"), [("sheep.jpg", "sheep", 1), ("horses.jpg", "horse", 1), ("cows.jpg", "cow", 1)]
)
def test_the_bundled_segmenter_finds_the_animals_of_a_real_photo(photo: str, label: str, least: int) -> None:
    path = DEMO / photo
    if not path.exists():
        pytest.skip(f"{path} is not in this checkout")
    segmenter = load_segmenter(registry.default_for(label))
    found = segmenter.segment(read_photo(path))
    sure = [i for i, score in enumerate(found.scores) if score >= 0.5]
    assert sum(found.labels[i] == label for i in sure) >= least
    assert found.labels[0] == label
    largest = max((i for i in sure if found.labels[i] == label), key=lambda i: found.masks[i].area)
    # An animal fills a good part of its box, and not all of it.
    x0, y0, x1, y1 = found.masks[largest].box
    assert 0.3 < found.masks[largest].area / ((x1 - x0) * (y1 - y0)) < 0.95


@needs_weights
def test_found_animals_move_with_the_photo() -> None:
    """Mirrored, the photo has the mirrored animals."""
    path = DEMO / "sheep.jpg"
    if not path.exists():
        pytest.skip(f"{path} is not in this checkout")
    segmenter = load_segmenter(registry.default_for("sheep"))
    pixels = cv2.resize(read_photo(path).pixels, (512, 384), interpolation=cv2.INTER_AREA)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    one, two = (segmenter.segment(Photo(p, "sheep", "0" * 64)) for p in (pixels, mirrored))
    a, b = one.masks[0].dense(), two.masks[0].dense()[:, ::-1]
    assert one.labels[0] == two.labels[0] == "sheep"
    ious = [np.count_nonzero(a & m.dense()[:, ::-1]) / np.count_nonzero(a | m.dense()[:, ::-1]) for m in two.masks[:5]]
    assert max(ious) > 0.8, (a.sum(), b.sum())
