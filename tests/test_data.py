"""Training sets: every form read alike, packs that train like their photos, one draw for image and masks, counts."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import worlds
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from instapipe.cli.train import without
from instapipe.data.balance import LEAST_SEEN, Matching, paste
from instapipe.data.counts import separation
from instapipe.data.domains import Cutting, Domain, cut_domain, cut_samples, match_counts
from instapipe.data.gate import Gate, judge
from instapipe.data.photos import AnnotatedPhoto, Instance, read_photos
from instapipe.data.samples import Sample
from instapipe.errors import DataError
from instapipe.imaging.facing import faces_left
from instapipe.masks import Entry
from instapipe.masks.coco import document
from instapipe.structures import Instances, Mask
from instapipe.training.config import DataSettings

CUTTING = Cutting(
    mode="window", size=32, load_size=36, window_scale=1.25, max_instances=4, order="largest",
    min_side=14, max_cut=0.2, max_company=0.2,
)  # fmt: skip
TALL: tuple[worlds.Blob, ...] = ((50, 50, 8, 30),)
FLOCKS: tuple[tuple[worlds.Blob, ...], ...] = (
    worlds.SHEEP,
    ((40, 40, 22, 16), (62, 44, 18, 14)),  # two that overlap: one of them is cut by windows around the other
    ((8, 50, 30, 20), (100, 60, 12, 10)),  # one cut off by the border
    ((70, 98, 20, 30),),  # only its back is in the photo
    ((70, 50, 6, 4), (110, 50, 10, 20)),  # one too small
    ((40, 30, 20, 14), (100, 12, 15, 11)),  # one close to the border: its window is reflected there
    (
        (40, 50, 12, 12),
        (50, 50, 2, 45),
    ),  # one less than half in the other's window, more than half of what a pack shows
)


def instances_of(blobs: Sequence[worlds.Blob], label: str) -> Instances:
    masks = tuple(Mask.from_dense(worlds.ellipse(worlds.SIZE, blob)) for blob in blobs)
    return Instances(worlds.SIZE, masks, (label,) * len(masks), (1.0,) * len(masks))


def write_coco(folder: Path, label: str, photos: Sequence[tuple[worlds.Blob, ...]]) -> Path:
    entries = []
    for n, blobs in enumerate(photos):
        name = f"{label}_{n}.png"
        worlds.write_photo(folder / "images" / name, worlds.photo_pixels(blobs, None, seed=n))
        entries.append(Entry(name, instances_of(blobs, label)))
    path = folder / "coco.json"
    path.write_text(json.dumps(document(entries)))
    return path


def cut(source: Path, label: str = "sheep", cutting: Cutting = CUTTING) -> Domain:
    return cut_domain(read_photos(source, label), label, cutting, held_out=2, seed=0)


def equal(one: Sequence[Sample], other: Sequence[Sample]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.image, b.image) and np.array_equal(a.masks, b.masks) for a, b in zip(one, other, strict=True)
    )


# Packs


@pytest.mark.parametrize("most", [1, 4])
def test_a_pack_gives_the_windows_of_its_photos(cli: Cli, tmp_path: Path, most: int) -> None:
    """Large enough not to be shrunk, its masks are those of the photos bit by bit, and every rule decides alike."""
    data = write_coco(tmp_path / "sheep", "sheep", FLOCKS)
    arguments = ("--data", data, "--class", "sheep", "-o", tmp_path / "pack", "--min-side", 0, "--size", 320)
    assert cli("data", "pack", *arguments).code == 0
    cutting = CUTTING.model_copy(update={"max_instances": most})
    ours, theirs = cut(data, cutting=cutting), cut(tmp_path / "pack", cutting=cutting)
    assert ours.dropped == theirs.dropped
    assert set(ours.dropped) == {"smaller than 14 px", "cut off by the photo's border", "crowded window"}
    for one, other in ((ours.learning, theirs.learning), (ours.held_out, theirs.held_out)):
        assert [len(sample.masks) for sample in one] == [len(sample.masks) for sample in other]
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a.masks, b.masks)
            assert np.abs(a.image.astype(int) - b.image.astype(int)).mean() < 12  # WebP, on noise


def test_a_small_pack_gives_nearly_those(cli: Cli, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "sheep", "sheep", FLOCKS[:-1])
    ran = cli("data", "pack", "--data", data, "--class", "sheep", "-o", tmp_path / "pack", "--size", 48)
    assert ran.code == 0
    assert "8 windows of sheep from 6 photos, 7 neighbours in them; left out: 4 smaller than 32 px" in ran.out
    sizes = [cv2.imread(str(path)).shape[:2] for path in (tmp_path / "pack" / "images").iterdir()]
    assert max(max(size) for size in sizes) == 48
    cutting = CUTTING.model_copy(update={"min_side": 32})
    ours, theirs = cut(data, cutting=cutting).learning, cut(tmp_path / "pack", cutting=cutting).learning
    assert len(ours) == len(theirs) == 3
    for a, b in zip(ours, theirs, strict=True):
        assert (a.masks[0] & b.masks[0]).sum() > 0.85 * (a.masks[0] | b.masks[0]).sum()


def test_a_pack_that_is_too_large_is_refused_whole(cli: Cli, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "sheep", "sheep", FLOCKS)
    arguments = ("data", "pack", "--data", data, "--class", "sheep", "-o", tmp_path / "pack")
    ran = cli(*arguments, "--max-mb", 0.015)
    assert ran.code == 1
    assert "--max-mb" in ran.err
    assert (
        sorted(path.name for path in tmp_path.iterdir()) == ["cache", "here", "sheep"]
        or not (tmp_path / "pack").exists()
    )
    assert cli(*arguments).code == 0
    again = cli(*arguments)
    assert again.code == 1
    assert "not an empty folder" in again.err
    twice = cli("data", "pack", "--data", tmp_path / "pack", "--class", "sheep", "-o", tmp_path / "other")
    assert twice.code == 1
    assert "packed window already" in twice.err
    with pytest.raises(DataError, match=r"--margin 2, less than these windows need \(window_scale 3,"):
        cut(tmp_path / "pack", cutting=CUTTING.model_copy(update={"window_scale": 3.0}))


def test_windows_of_one_photo_are_held_out_together(cli: Cli, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "sheep", "sheep", FLOCKS)
    assert cli("data", "pack", "--data", data, "--class", "sheep", "-o", tmp_path / "pack").code == 0
    windows = json.loads((tmp_path / "pack" / "instances.json").read_text())["images"]
    photos = {Path(image["cut_from"]["photo"]).name for image in windows}
    domain = cut(tmp_path / "pack")
    learning, held_out = ({s.photo for s in part} for part in (domain.learning, domain.held_out))
    assert learning | held_out <= photos, "samples say the photo that they were cut from first"
    assert learning
    assert held_out
    assert not learning & held_out


# Every form of a side


def test_forms_are_read_alike(tmp_path: Path) -> None:
    """COCO JSON, InstaGAN's layout (numbers from 1, with gaps), `<stem>.masks/`, and masks elsewhere."""
    data = write_coco(tmp_path / "coco", "sheep", FLOCKS)
    photos, beside = tmp_path / "sampleA", tmp_path / "sampleB"
    for n, blobs in enumerate(FLOCKS):
        for folder in (photos, beside):
            worlds.write_photo(folder / f"sheep_{n}.png", worlds.photo_pixels(blobs, None, seed=n))
        worlds.write_masks(tmp_path / "sampleA_seg", f"sheep_{n}", (*blobs,))
        worlds.write_masks(beside / f"sheep_{n}.masks", f"sheep_{n}", blobs)
    first = tmp_path / "sampleA_seg" / "sheep_0_0.png"
    first.rename(first.with_name("sheep_0_00.png"))
    worlds.write_photo(photos / "no_masks.png")
    wanted = cut(data)
    assert len(wanted.learning) > 4
    assert equal(cut(photos).learning, wanted.learning)
    assert equal(cut(beside).learning, wanted.learning)
    elsewhere = read_photos(tmp_path / "coco" / "images", "sheep", masks=data)
    assert equal(cut_domain(elsewhere, "sheep", CUTTING, held_out=2, seed=0).learning, wanted.learning)


def test_only_the_class_that_was_asked_for(tmp_path: Path) -> None:
    both = instances_of(worlds.SHEEP, "sheep")
    mixed = Instances(both.size, both.masks, ("sheep", "horse", "sheep"), both.scores)
    for n in range(2):
        worlds.write_photo(tmp_path / f"{n}.png", worlds.photo_pixels(seed=n))
    (tmp_path / "masks.json").write_text(json.dumps(document(Entry(f"{n}.png", mixed) for n in range(2))))
    for label, areas in (("sheep", mixed.areas[[0, 2]]), ("horse", mixed.areas[[1]])):
        for photo in (
            *read_photos(tmp_path / "masks.json", label),
            *read_photos(tmp_path, label, masks=tmp_path / "masks.json"),
        ):
            assert [instance.mask.area for instance in photo.read()[1]] == areas.tolist()


def test_photos_are_read_upright_and_masks_that_are_not_are_refused(tmp_path: Path) -> None:
    """EXIF turns the photo: its masks are of the upright photo, as everywhere else."""
    pixels = worlds.photo_pixels(worlds.SHEEP, None)
    lying = np.rot90(pixels)  # orientation 6 turns it clockwise when it is shown
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(lying).save(tmp_path / "photos" / f"{name}.png", exif=exif)
        worlds.write_masks(tmp_path / "photos_seg", name)
    shown, instances = read_photos(tmp_path / "photos", "sheep")[0].read()
    assert np.array_equal(shown, pixels)
    assert (shown[instances[0].mask.dense()] > 200).all()
    for path in (tmp_path / "photos_seg").iterdir():
        cv2.imwrite(str(path), np.rot90(cv2.imread(str(path))))
    with pytest.raises(Exception, match="EXIF"):
        read_photos(tmp_path / "photos", "sheep")


def test_what_is_no_training_set_is_told(tmp_path: Path) -> None:
    worlds.write_photo(tmp_path / "set" / "trainA" / "a.png")
    with pytest.raises(DataError, match="trainA"):
        read_photos(tmp_path / "set", "sheep")
    with pytest.raises(DataError, match=r"trainA_seg/ or <photo>\.masks/"):
        read_photos(tmp_path / "set" / "trainA", "sheep")
    with pytest.raises(DataError, match="no data at"):
        read_photos(tmp_path / "nowhere", "sheep")


# Batches


def domain_of(samples: Sequence[Sample], cutting: Cutting = CUTTING) -> Domain:
    return Domain("sheep", cutting, tuple(samples), tuple(samples), {})


def striped(count: int, side: int = 36, seed: int = 0) -> Sample:
    """The picture is the masks: instance k has the grey value 100 + 20 k, the rest is black."""
    rng = np.random.default_rng(seed)
    image, masks = np.zeros((side, side, 3), np.uint8), np.zeros((count, side, side), np.bool_)
    for k in range(count):
        y, x = rng.integers(0, side - 10, 2)
        masks[k, y : y + 9, x : x + 5] = True
        masks[:k, y : y + 9, x : x + 5] = False
        image[masks[k]] = 100 + 20 * k
    return Sample(image, masks, f"{seed}.png")


def test_one_draw_for_image_and_masks() -> None:
    """In `photo` mode the crop is not resized: the picture shows its masks, and both agree in each pixel."""
    domain = domain_of([striped(2, seed=n) for n in range(5)], CUTTING.model_copy(update={"mode": "photo"}))
    drawn = set()
    for step in range(12):
        batch = domain.batch(step, 2, seed=7)
        union = ((batch.masks > 0) & batch.valid[:, :, None, None]).any(dim=1)
        assert torch.equal(union, batch.image[:, 0] > -1)
        drawn.add(batch.image.numpy().tobytes())
    assert len(drawn) == 12


def test_masks_stay_masks_and_padding_is_marked() -> None:
    domain = domain_of([striped(n, seed=n) for n in (1, 2, 3)])
    for step in range(6):
        batch = domain.batch(step, 3, seed=0)
        assert set(batch.masks.unique().tolist()) == {-1.0, 1.0}
        assert sorted(batch.valid.sum(dim=1).tolist()) == [1, 2, 3]
        assert (batch.masks[~batch.valid] == -1).all()
        assert ((batch.masks > 0).any(dim=(2, 3)) == batch.valid).all()


@pytest.mark.parametrize("match", [False, True])
def test_a_batch_is_a_function_of_step_and_seed(match: bool) -> None:
    def fresh() -> Domain:
        one, other = (
            domain_of([striped(1, seed=n) for n in range(6)]),
            domain_of([striped(3, seed=n) for n in range(6)]),
        )
        return match_counts(one, other)[0] if match else one

    torch.manual_seed(1)
    in_order = [fresh().batch(step, 2, seed=3) for step in range(5)]
    torch.manual_seed(2)
    again = fresh().batch(4, 2, seed=3)
    for name in ("image", "masks", "valid"):
        assert torch.equal(getattr(again, name), getattr(in_order[4], name))
    assert not torch.equal(again.image, fresh().batch(4, 2, seed=4).image)


# Counts


def test_separation() -> None:
    assert separation([1, 1, 2], [1, 1, 2]) == 0.5
    assert separation([3, 4], [1, 2]) == separation([1, 2], [3, 4]) == 1.0
    assert separation([1, 2], [1, 1]) == pytest.approx(0.75)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_matching_only_adds_and_makes_the_domains_alike(ours: list[int], theirs: list[int]) -> None:
    """In expectation over the draw, both domains come to the same counts: the larger at each place of the order."""
    reached = []
    for own, other in ((ours, theirs), (theirs, ours)):
        matching, rng = Matching.of(own, other), torch.Generator().manual_seed(0)
        wanted = [(count, matching.wanted(count, rng)) for count in own * (600 // len(own))]
        assert all(goal >= count for count, goal in wanted)
        reached.append(float(np.mean([goal for _, goal in wanted])))
    fine = 12 * 11 * 10 * 9 * 7
    larger = np.maximum(*(np.repeat(np.sort(c), -(-fine // len(c)))[:fine] for c in (ours, theirs)))
    assert reached == pytest.approx([larger.mean()] * 2, abs=0.35)


def test_matched_batches_show_as_many() -> None:
    one = domain_of([striped(1, seed=n) for n in range(8)])
    three = domain_of([striped(3, seed=n) for n in range(8)])
    few, many = match_counts(one, three)
    counts = [int(n) for step in range(10) for n in few.batch(step, 4, seed=0).valid.sum(dim=1)]
    assert np.mean(np.asarray(counts) == 3) > 0.8
    assert torch.equal(many.batch(0, 4, seed=0).image, three.batch(0, 4, seed=0).image)  # nothing to add there


@pytest.mark.parametrize("seed", range(6))
def test_pasted_instances_are_in_front_and_agree_with_their_masks(seed: int) -> None:
    """Onto an instance that fills most of the picture, so that it is covered; a triangle, so that flips would show."""
    sample, donor = (Sample(np.zeros((64, 64, 3), np.uint8), np.zeros((1, 64, 64), np.bool_), name) for name in "ab")
    sample.masks[0, 6:58, 6:58] = True
    sample.image[sample.masks[0]] = 90
    donor.masks[0, 12:52, 12:52] = np.tri(40, dtype=np.bool_)
    donor.image[donor.masks[0]] = 250
    three = paste(sample, [donor], 3, torch.Generator().manual_seed(seed))
    assert three.masks.dtype == np.bool_
    assert three.masks.sum(axis=0).max() == 1  # each pixel shows one instance
    out = paste(sample, [donor], 2, torch.Generator().manual_seed(seed))
    assert len(out.masks) == 2
    assert LEAST_SEEN <= out.masks[0].sum() / sample.masks[0].sum() < 1
    pasted = out.masks[1]
    assert np.array_equal(out.image[~pasted], sample.image[~pasted])
    inside = cv2.erode(pasted.astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert inside.any()
    assert out.image[inside].min() > 200  # the donor's, all of it
    assert paste(sample, [donor], 1, torch.Generator()) is sample


# Photos without masks


def test_the_gate_says_why() -> None:
    size = (100, 100)

    def box(x0: int, y0: int, x1: int, y1: int) -> Mask:
        mask = np.zeros(size, np.bool_)
        mask[y0:y1, x0:x1] = True
        return Mask.from_dense(mask)

    found = (
        (box(10, 10, 40, 40), "sheep", 0.95, None),
        (box(50, 50, 90, 90), "sheep", 0.6, "score 0.60 below 0.7"),
        (box(11, 10, 40, 40), "sheep", 0.9, "repeats sheep 0.95 (no. 0)"),
        (box(95, 95, 98, 98), "sheep", 0.9, "covers 0.09% of the photo, less than 0.50%"),
        (box(0, 60, 20, 100), "sheep", 0.9, "50% of its outline on the photo's border, more than 30%"),
        (box(60, 10, 90, 40), "sheep", 0.9, "67% is also horse 0.80 (no. 6)"),
        (box(70, 10, 95, 40), "horse", 0.8, None),
        (box(50, 52, 90, 90), "sheep", 0.2, None),
        (box(22, 62, 45, 95), "sheep", 0.9, None),  # called a cow as well, with less certainty
        (box(22, 62, 45, 94), "cow", 0.6, None),
    )
    masks, labels, scores, _ = zip(*found, strict=True)
    instances = Instances(size, masks, labels, scores)
    reasons = {each.index: each.reason for each in judge(instances, "sheep", Gate())}
    assert reasons == {index: found[index][3] for index in (*range(6), 8)}
    crowd = {each.index for each in judge(instances, "sheep", Gate()) if each.counts}
    assert crowd == {1, 3, 4, 5}  # what repeats another is not there twice


TINY = """
steps: 1
batch_size: 2
data:
  {mode: photo, size: 32, load_size: 36, max_instances: 2, instances_per_step: 1, gate: {score: 0.5, max_area: 0.5}}
generator: {form: resize, width: 4, encoder_blocks: 1, decoder_blocks: 1}
compositing: {mode: matte}
discriminator_width: 4
losses: {cycle: 5, identity: 1, context: 2}
pool_size: 0
precision: float32
held_out: 1
"""


def test_what_was_packed_of_an_excluded_photo_is_excluded(cli: Cli, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "giraffe", "giraffe", [TALL] * 3)
    assert cli("data", "pack", "--data", data, "--class", "giraffe", "-o", tmp_path / "pack").code == 0
    name = Path(json.loads(data.read_text())["images"][1]["file_name"]).name
    for whole, folder in ((data, data), (tmp_path / "pack", tmp_path / "pack")):
        photos = read_photos(folder, "giraffe")
        left = without(photos, (name,))
        assert len(photos) == 3, whole
        assert [photo.origin for photo in left] == [photo.origin for photo in photos if Path(photo.origin).name != name]
        assert len(left) == 2


def test_train_on_a_pack_and_on_photos_without_masks(cli: Cli, tmp_path: Path, colour: str) -> None:
    import colour_segmenter

    data = write_coco(tmp_path / "giraffe", "giraffe", [TALL] * 3)
    assert cli("data", "pack", "--data", data, "--class", "giraffe", "-o", tmp_path / "pack").code == 0
    photos = tmp_path / "photos"
    for n in range(3):
        worlds.write_photo(photos / f"{n}.png", worlds.photo_pixels(seed=n))
    worlds.write_photo(photos / "none.png", worlds.photo_pixels((), None))
    worlds.write_photo(photos / "cut.png", worlds.photo_pixels(((0, 50, 20, 45),), None))
    (photos / "broken.png").write_bytes(b"not a photo")
    (tmp_path / "tiny.yaml").write_text(TINY)
    arguments = (
        "train", "--source-data", photos, "--target-data", tmp_path / "pack", "--source", "sheep",
        "--target", "giraffe", "--segmenter", colour, "--config", tmp_path / "tiny.yaml", "--set", "data.balance=match",
    )  # fmt: skip
    colour_segmenter.RUNS.clear()
    ran = cli(*arguments, "--output", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert len(colour_segmenter.RUNS) == 5
    assert "6 photos without masks, segmented by colour" in ran.out
    assert "the number of instances alone tells sheep from giraffe" in ran.out
    with (tmp_path / "run" / "refused.csv").open() as file:
        refused = {(Path(row["photo"]).name, row["reason"].split(",")[0][-30:]) for row in csv.DictReader(file)}
    names = {name for name, _ in refused}
    assert {"none.png", "cut.png", "broken.png", "0.png"} <= names  # 0.png: its smallest sheep
    assert ("none.png", "no sheep found") in refused
    assert (tmp_path / "run" / "refused-sheep.png").is_file()
    assert not (tmp_path / "run" / "refused-giraffe.png").exists()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["data"]["gate"]["score"] == 0.5
    colour_segmenter.RUNS.clear()
    bad = cli(*arguments, "--output", tmp_path / "other", "--set", "data.gate.score=0.99")
    assert bad.code == 1
    assert "good enough to learn from" in bad.err
    assert colour_segmenter.RUNS == []  # from the cache: another gate does not segment again


def test_windows_that_face_right(tmp_path: Path) -> None:
    """`facing: right` mirrors image and masks together, and draws no mirrored ones."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.bool_)
    mask[30:50, 10:50] = True
    mask[12:30, 10:20] = True  # the head, on the left
    pixels[mask] = 200
    photos = []
    for n in range(2):
        path = worlds.write_photo(tmp_path / f"{n}.png", pixels)
        photos.append(AnnotatedPhoto(path, path.name, lambda _size: (Instance.of(Mask.from_dense(mask)),)))
    cutting = Cutting(mode="window", size=32, load_size=40, max_instances=1, facing="right")
    domain = cut_domain(photos, "sheep", cutting, held_out=1, seed=0)
    for step in range(6):
        batch = domain.batch(step, 2, seed=0)
        for image, masks in zip(batch.image, batch.masks, strict=True):
            shown = masks[0].numpy() > 0
            assert not faces_left(shown)
            assert float(image[:, shown].mean()) > 0.4
    with pytest.raises(ValidationError, match="needs mode: window"):
        Cutting(mode="photo", facing="right")


@pytest.mark.parametrize("least", [0.5, 0.9, 1.0])
def test_smallest_crop_bounds_what_a_window_loses(least: float) -> None:
    """Each column of the sample says where it lay: a crop shows `smallest_crop` of them and more, another each step."""
    image = np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    sample = Sample(image, np.ones((1, 200, 200), np.bool_), "ramp.png")
    cutting = Cutting(mode="window", size=100, load_size=200, smallest_crop=least, facing="right")
    domain = Domain("ramp", cutting, (sample,), (), {})
    rows = [domain.batch(step, 1, seed=0).image[0, 0, 0] for step in range(40)]
    shown = [float(row[-1] - row[0]) / 2 for row in rows]
    assert min(shown) == pytest.approx(least, abs=0.03)
    assert max(shown) == pytest.approx(1, abs=0.03 + 0.1 * (1 - least))


def test_windows_on_the_ground(tmp_path: Path) -> None:
    """`placement: ground` puts the feet of a low animal and of a tall one at the same height, the target's windows may
    be narrower, and a pack must show as much more above."""
    pixels = np.zeros((200, 200, 3), np.uint8)
    feet, shares = 180, {}
    wide = DataSettings(
        mode="window", size=80, load_size=80, max_instances=1, placement="ground", window_scale=1.6,
        target_window_scale=1.25, window_height_scale=1.75,
    )  # fmt: skip
    assert (wide.framing.reach, wide.of_target().framing.reach) == (pytest.approx(3.15), pytest.approx(2.25))
    turned = wide.model_copy(update={"least_aspect": 0.8})
    boxes = (
        ("low", 30, 60, wide),
        ("tall", 60, 24, wide.of_target()),
        ("front", 60, 24, wide),
        ("turned", 60, 24, turned),
    )
    for name, rows, columns, cutting in boxes:
        mask = np.zeros((200, 200), np.bool_)
        mask[feet - rows : feet, 100 - columns // 2 : 100 + columns // 2] = True
        path = worlds.write_photo(tmp_path / f"{name}.png", pixels)
        instance = Instance.of(Mask.from_dense(mask))
        photo = AnnotatedPhoto(path, path.name, lambda _size, instance=instance: (instance,))
        (sample,) = cut_samples(photo, cutting, {})
        inside = np.flatnonzero(sample.masks[0].any(axis=1))
        assert abs(int(inside[-1]) + 1 - 72) <= 1  # nine tenths of 80
        shares[name] = sample.masks[0].any(axis=0).mean()
    expected = {"low": 1 / 1.6, "tall": 0.4 / 1.25, "front": 0.4 / 1.75, "turned": 1.7 * 0.4 / 1.75}  # of the width
    assert shares == {name: pytest.approx(share, abs=0.03) for name, share in expected.items()}
    with pytest.raises(ValidationError, match="needs mode: window"):
        Cutting(mode="photo", placement="ground")
    packed = replace(photo, reach=2.0)
    with pytest.raises(DataError, match=r"less than these .*window_height_scale 1.75.*: pack again with --margin 3.15"):
        list(cut_samples(packed, wide, {}))
    dropped: dict[str, int] = {}
    assert list(cut_samples(photo, wide.model_copy(update={"narrowest": 0.5}), dropped)) == []
    assert dropped == {"narrower than 0.5 x its height": 1}
