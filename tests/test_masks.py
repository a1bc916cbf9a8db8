"""Every mask format, written and read again; where masks are found; what a digest follows."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_worlds import large_parts, random_instances, write_all
from PIL import Image
from pycocotools import mask as pycoco

from instapipe import masks
from instapipe.errors import MaskError
from instapipe.masks import coco, folder, labelmap, labelme, png, polygons, rle, yolo
from instapipe.structures import Instances, Mask

SEEDS = st.integers(0, 2**32 - 1)
TRIES = settings(max_examples=40, deadline=None, derandomize=True)


def loaded(write, instances: Instances, source: str = ".", photo: str = "photo.jpg") -> Instances:
    """`instances` written by `write` and read back at the photo's size."""
    with tempfile.TemporaryDirectory() as place:
        write_all(Path(place), write([masks.Entry(photo, instances)]))
        found = masks.load(Path(place) / source, Path(photo), instances.size)
    assert found is not None
    return found


def assert_same_masks(found: Instances, wanted: Instances) -> None:
    assert found.size == wanted.size
    assert [m.box for m in found.masks] == [m.box for m in wanted.masks]
    assert all(np.array_equal(a.crop, b.crop) for a, b in zip(found.masks, wanted.masks, strict=True))


@TRIES
@given(SEEDS)
def test_png_is_exact_and_keeps_the_numbers(seed: int) -> None:
    wanted = random_instances(seed)
    if not len(wanted):
        return
    found = loaded(png.write, wanted)
    assert_same_masks(found, wanted)
    assert found.numbers == wanted.numbers
    assert set(found.labels) == {""}, "a PNG states no class"


@TRIES
@given(SEEDS)
def test_masks_folder_is_exact_in_everything(seed: int) -> None:
    wanted = random_instances(seed)
    found = loaded(folder.write, wanted)
    assert_same_masks(found, wanted)
    assert (found.labels, found.scores, found.numbers) == (wanted.labels, wanted.scores, wanted.numbers)


@pytest.mark.parametrize("form", ["rle", "counts"])
@TRIES
@given(seed=SEEDS)
def test_both_rle_forms_are_exact_in_everything(form, seed: int) -> None:
    wanted = random_instances(seed)
    found = loaded(lambda entries: coco.write(entries, form), wanted, "instances.json")
    assert_same_masks(found, wanted)
    assert (found.labels, found.scores, found.numbers) == (wanted.labels, wanted.scores, wanted.numbers)


@TRIES
@given(SEEDS)
def test_label_map_is_exact_without_overlap(seed: int) -> None:
    wanted = random_instances(seed, overlap=False)
    found = loaded(labelmap.write, wanted)
    assert_same_masks(found, wanted)


@pytest.mark.parametrize("format", ["coco-polygons", "yolo", "labelme"])
@TRIES
@given(seed=SEEDS)
def test_polygons_keep_every_large_part(format: str, seed: int) -> None:
    write = {"coco-polygons": lambda e: coco.write(e, "polygons"), "yolo": yolo.write, "labelme": labelme.write}[format]
    source = "instances.json" if format == "coco-polygons" else "."
    wholes = [large_parts(mask.dense()) for mask in random_instances(seed).masks]
    dense = [part for parts in wholes for part in parts] + [np.any(parts, axis=0) for parts in wholes if len(parts) > 1]
    if not dense:
        return
    n = len(dense)
    wanted = Instances(dense[0].shape, tuple(Mask.from_dense(mask) for mask in dense), ("sheep",) * n, (0.5,) * n)
    found = loaded(write, wanted, source)
    assert found.labels == wanted.labels
    assert min(before.iou(after) for before, after in zip(wanted.masks, found.masks, strict=True)) >= 0.97


@TRIES
@given(SEEDS)
def test_outlines_are_exact_before_they_are_simplified(seed: int) -> None:
    for mask in random_instances(seed).masks:
        part = (large_parts(mask.dense(), least=1) or [np.ones((1, 1), dtype=np.bool_)])[0]
        path = polygons.joined(polygons._loops(part))
        assert np.array_equal(polygons.fill([path], (part.shape[0], part.shape[1]), "test").dense(), part)


@TRIES
@given(SEEDS)
def test_rle_agrees_with_pycocotools(seed: int) -> None:
    for mask in random_instances(seed).masks:
        dense = mask.dense()
        theirs = pycoco.encode(np.asfortranarray(dense.astype(np.uint8)))
        assert rle.encode(dense)["counts"] == theirs["counts"].decode()
        assert np.array_equal(
            rle.decode({"size": list(dense.shape), "counts": theirs["counts"].decode()}, "test"), dense
        )
        assert pycoco.frPyObjects(rle.encode_list(dense), *dense.shape)["counts"] == theirs["counts"]


def test_polygons_agree_with_pycocotools() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        corners = rng.uniform(0, 60, size=(6, 2))
        [theirs] = pycoco.frPyObjects([corners.ravel().tolist()], 60, 60)
        assert polygons.fill([corners], (60, 60), "test").area == pycoco.area(theirs)
        assert rle.encode(polygons.fill([corners], (60, 60), "test").dense())["counts"] == theirs["counts"].decode()


# Where masks are found ------------------------------------------------------------------------------------------------


def square(size: tuple[int, int] = (20, 30), at: int = 4) -> Instances:
    dense = np.zeros(size, dtype=np.bool_)
    dense[at : at + 8, at : at + 9] = True
    return Instances(size, (Mask.from_dense(dense),), ("sheep",), (0.75,), (3,))


def test_found_by_themselves_only_in_two_places(tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "a.v2.jpg"
    photo.parent.mkdir()
    entry = masks.Entry(photo.name, square())
    write_all(photo.parent, png.write([entry]))
    write_all(tmp_path / "masks", png.write([entry]))
    assert masks.find(photo) is None
    write_all(tmp_path / "photos_seg", png.write([masks.Entry("a.jpg", square())]))
    assert masks.find(photo) is None, "a.v2.jpg is not a.jpg"
    write_all(tmp_path / "photos_seg", png.write([entry]))
    assert masks.find(photo) == tmp_path / "photos_seg"
    write_all(photo.parent, folder.write([entry]))
    assert masks.find(photo) == photo.parent / "a.v2.masks"


def test_found_beside_a_photo_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    write_all(tmp_path / "photos_seg", png.write([masks.Entry("a.jpg", square())]))
    monkeypatch.chdir(tmp_path / "photos")
    found = masks.find(Path("a.jpg"))
    assert found is not None
    assert found.samefile(tmp_path / "photos_seg")


def test_instagan_layout_starts_anywhere_and_has_gaps(tmp_path: Path) -> None:
    """A missing `_0.png` crashed the original."""
    seg = tmp_path / "sampleA_seg"
    seg.mkdir()
    for name, at in [
        ("x_10.png", 1),
        ("x_2.png", 5),
        ("x_1_0.png", 9),
        ("X_5.png", 9),
        ("notes.txt", 0),
        ("._x_7.png", 0),
    ]:
        (seg / name).write_bytes(png.encode_mask(square(at=at).masks[0].dense()))
    found = masks.load(seg, Path("sampleA/x.jpg"), (20, 30))
    assert found is not None
    assert found.numbers == (2, 10)
    assert [mask.box[0] for mask in found.masks] == [5, 1]
    other = masks.load(seg, Path("sampleA/x_1.jpeg"), (20, 30))
    assert other is not None
    assert other.numbers == (0,)
    assert masks.load(seg, Path("sampleA/y.jpg"), (20, 30)) is None, "not listed: to be segmented"


@pytest.mark.parametrize(
    ("values", "mode"),
    [((0, 1), "L"), ((0, 255), "L"), ((0, 65535), "I;16"), ((0, 1), "1"), ((30, 200), "L")],
)
def test_a_png_is_read_whatever_its_values_and_depth(tmp_path: Path, values: tuple[int, int], mode: str) -> None:
    dense = square().masks[0].dense()
    kind = {"I;16": np.uint16, "1": np.bool_}.get(mode, np.uint8)
    Image.fromarray(np.where(dense, values[1], values[0]).astype(kind)).save(tmp_path / "x_0.png")
    found = masks.load(tmp_path, Path("x.jpg"), (20, 30))
    assert found is not None
    assert np.array_equal(found.masks[0].dense(), dense)


def test_a_grey_edge_stays_a_mask(tmp_path: Path) -> None:
    """Masks resized with interpolation have grey edges: half of the brightest is the border. Nothing is resized."""
    soft = cv2.GaussianBlur(square().masks[0].dense().astype(np.uint8) * 255, (5, 5), 0)
    cv2.imwrite(str(tmp_path / "x_0.png"), soft)
    found = masks.load(tmp_path, Path("x.jpg"), (20, 30))
    assert found is not None
    assert found.masks[0].crop.dtype == np.bool_
    assert abs(found.masks[0].area - square().masks[0].area) <= 4


@pytest.mark.parametrize("paint", [(255, 255, 255), (0, 0, 0), (250, 30, 30)])
def test_paint_on_a_transparent_ground_is_a_mask(tmp_path: Path, paint: tuple[int, int, int]) -> None:
    dense = square().masks[0].dense()
    pixels = np.zeros((20, 30, 4), dtype=np.uint8)
    pixels[dense] = (*paint, 255)
    Image.fromarray(pixels).save(tmp_path / "x_0.png")
    found = masks.load(tmp_path, Path("x.jpg"), (20, 30))
    assert found is not None
    assert np.array_equal(found.masks[0].dense(), dense)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize(("value", "area"), [(0, 0), (255, 600)])
def test_an_opaque_mask_of_one_colour_is_all_or_nothing(tmp_path: Path, channels: int, value: int, area: int) -> None:
    pixels = np.full((20, 30, channels), value, dtype=np.uint8)
    pixels[..., -1] = 255
    Image.fromarray(pixels).save(tmp_path / "x_0.png")
    found = masks.load(tmp_path, Path("x.jpg"), (20, 30))
    assert sum(mask.area for mask in (found.masks if found else ())) == area


@pytest.mark.parametrize("counts", ["\ud800abc", "ä0"])
def test_runs_of_other_characters_are_refused(counts: str) -> None:
    with pytest.raises(MaskError, match="does not belong"):
        rle.decode({"size": [20, 30], "counts": counts}, "here")


# Listed or not, edited, labelled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [png, folder, labelmap, coco, yolo, labelme])
def test_a_folder_with_masks_of_one_photo_does_not_list_another(tmp_path: Path, format) -> None:
    write_all(tmp_path, format.write([masks.Entry("x.jpg", square())]))
    assert len(masks.load(tmp_path, Path("x.jpg"), (20, 30)) or ()) == 1
    assert masks.load(tmp_path, Path("y.jpg"), (20, 30)) is None


@pytest.mark.parametrize("format", ["folder", "labelmap", "coco", "yolo", "labelme"])
def test_listed_without_instances_is_empty_and_not_listed_is_none(tmp_path: Path, format: str) -> None:
    writers = {"folder": folder, "labelmap": labelmap, "coco": coco, "yolo": yolo, "labelme": labelme}
    entries = [masks.Entry("full.jpg", square()), masks.Entry("empty.jpg", Instances((20, 30)))]
    write_all(tmp_path, writers[format].write(entries))
    empty = masks.load(tmp_path, Path("empty.jpg"), (20, 30))
    assert empty is not None
    assert (len(empty), empty.size) == (0, (20, 30))
    full = masks.load(tmp_path, Path("full.jpg"), (20, 30))
    assert full is not None
    assert len(full) == 1
    assert masks.load(tmp_path, Path("elsewhere.jpg"), (20, 30)) is None
    assert masks.digest(tmp_path, Path("elsewhere.jpg")) is None


def test_masks_beside_a_photo_are_found_through_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    write_all(tmp_path / "in_seg", png.write([masks.Entry("x.jpg", square())]))
    monkeypatch.chdir(tmp_path / "in" / "sub")
    assert masks.find(Path("../x.jpg")) == tmp_path / "in_seg"


@pytest.mark.parametrize("length", [241, 245, 249, 250, 251])
def test_a_masks_folder_of_a_long_name_is_found_again(tmp_path: Path, length: int) -> None:
    """Whatever was shortened: the folder, or only the names of numbers with several digits."""
    many = Instances((20, 30), square().masks * 12, ("sheep",) * 12, (1.0,) * 12, (*range(11), 1000))
    photo = tmp_path / ("n" * length + ".jpg")
    write_all(tmp_path, folder.write([masks.Entry(photo.name, many)]))
    place = masks.find(photo)
    assert place is not None
    for source in (place, tmp_path):
        found = masks.load(source, photo, (20, 30))
        assert found is not None
        assert (found.numbers, found.labels) == (many.numbers, many.labels)


def test_a_masks_folder_is_edited_by_its_pngs(tmp_path: Path) -> None:
    instances = Instances(
        (20, 30),
        tuple(square(at=at).masks[0] for at in (0, 4, 8)),
        ("sheep", "cow", "horse"),
        (0.5, 0.6, 0.7),
        (0, 1, 2),
    )
    write_all(tmp_path, folder.write([masks.Entry("x.jpg", instances)]))
    place = tmp_path / "x.masks"
    before = masks.digest(place, Path("x.jpg"))
    (place / "x_1.png").unlink()
    painted = square(at=10).masks[0]
    (place / "x_2.png").write_bytes(png.encode_mask(painted.dense()))
    (place / "x_9.png").write_bytes(png.encode_mask(painted.dense()))
    found = masks.load(place, Path("x.jpg"), (20, 30))
    assert found is not None
    assert (found.labels, found.scores, found.numbers) == (("sheep", "horse", ""), (0.5, 0.7, 1.0), (0, 2, 9))
    assert found.masks[1].box == painted.box
    assert masks.digest(place, Path("x.jpg")) != before
    for mask in place.glob("*.png"):
        mask.unlink()
    empty = masks.load(place, Path("x.jpg"), (20, 30))
    assert empty is not None
    assert len(empty) == 0


def test_crowds_are_no_instances_and_sparse_ids_get_their_names(tmp_path: Path) -> None:
    polygon = [[2, 2, 12, 2, 12, 12, 2, 12]]
    document = {
        "images": [{"id": 7, "file_name": "train/x.jpg", "width": 30, "height": 20}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 20, "segmentation": polygon, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 25, "segmentation": polygon, "iscrowd": 1},
        ],
        "categories": [{"id": 20, "name": "sheep"}, {"id": 25, "name": "giraffe"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(document))
    found = masks.load(tmp_path / "c.json", Path("x.jpg"), (20, 30))
    assert found is not None
    assert (found.labels, found.scores, found.masks[0].area) == (("sheep",), (1.0,), 100)


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    instances = [square(at=at) for at in (0, 9)]
    document = coco.document([masks.Entry("x.jpg", one) for one in instances])
    document["images"][0]["file_name"], document["images"][1]["file_name"] = "train\\x.jpg", "val/x.jpg"
    (tmp_path / "c.json").write_text(json.dumps(document))
    found = masks.load(tmp_path / "c.json", tmp_path / "val" / "x.jpg", (20, 30))
    assert found is not None
    assert found.masks[0].box[0] == 9
    with pytest.raises(MaskError, match=r"2 images are called 'x\.jpg'"):
        masks.load(tmp_path / "c.json", tmp_path / "test" / "x.jpg", (20, 30))


def test_labelme_shapes_of_every_kind_and_groups(tmp_path: Path) -> None:
    bitmap = png.encode_mask(np.ones((4, 6), dtype=np.bool_))
    shapes = [
        {"label": "sheep", "points": [[0, 0], [5, 5]], "shape_type": "rectangle", "group_id": 1},
        {"label": "cow", "points": [[10, 0], [15, 0], [15, 5], [10, 5]], "group_id": 1},
        {"label": "sheep", "points": [[20, 0], [25, 5]], "shape_type": "rectangle", "group_id": 1},
        {"label": "sheep", "points": [[10, 12], [10, 16]], "shape_type": "circle", "group_id": None},
        {
            "label": "sheep",
            "points": [[20, 10], [25, 13]],
            "shape_type": "mask",
            "mask": base64.b64encode(bitmap).decode(),
        },
    ]
    (tmp_path / "x.json").write_text(json.dumps({"shapes": shapes, "imageHeight": 20, "imageWidth": 30}))
    found = masks.load(tmp_path / "x.json", Path("x.jpg"), (20, 30))
    assert found is not None
    assert found.labels == ("sheep", "cow", "sheep", "sheep")
    assert [mask.area for mask in found.masks[:2]] == [50, 25], "the two rectangles of group 1 are one sheep"
    assert abs(found.masks[2].area - 50) <= 4
    assert found.masks[3].box == (20, 10, 26, 14)


@pytest.mark.parametrize("names", ["names: [cow, sheep]", "names: {0: cow, 1: sheep}"])
def test_yolo_names_from_the_data_set_above(tmp_path: Path, names: str) -> None:
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "x.txt").write_text("1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n0 0 0 1 0 1 1 0 1 0.25\n")
    with pytest.raises(MaskError, match=r"class 1 has no name; put classes\.txt"):
        masks.load(labels, Path("x.jpg"), (20, 30))
    (tmp_path / "data.yaml").write_text(names)
    found = masks.load(labels, Path("x.jpg"), (20, 30))
    assert found is not None
    assert (found.labels, found.scores) == (("sheep", "cow"), (1.0, 0.25))
    assert [mask.area for mask in found.masks] == [96, 600]


def test_palette_map_of_pascal_voc_leaves_the_border_out(tmp_path: Path) -> None:
    values = np.zeros((20, 30), dtype=np.uint8)
    values[2:9, 2:9], values[3:8, 3:8], values[12:15, 20:25] = 255, 1, 2
    picture = Image.fromarray(values)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * (252 * 3) + [224, 224, 192])
    picture.save(tmp_path / "x.png")
    found = masks.load(tmp_path / "x.png", Path("x.jpg"), (20, 30))
    assert found is not None
    assert [mask.area for mask in found.masks] == [25, 15]


def test_colour_map_has_an_instance_for_each_colour(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[0:4, 0:4], pixels[8:12, 8:12] = (1, 2, 0), (9, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = masks.load(tmp_path, Path("x.jpg"), (20, 30))
    assert found is not None
    assert [mask.box[0] for mask in found.masks] == [8, 0], "in the order of R + 256 G + 65536 B"


def test_more_than_255_instances_make_a_deep_label_map() -> None:
    size = (40, 40)
    masks_ = [Mask(size, (x, y, x + 1, y + 1), np.ones((1, 1), dtype=np.bool_)) for y in range(10) for x in range(30)]
    wanted = Instances(size, tuple(masks_), ("",) * 300, (1.0,) * 300)
    assert_same_masks(loaded(labelmap.write, wanted), wanted)


# Digests --------------------------------------------------------------------------------------------------------------


def test_a_digest_follows_content_and_no_path(tmp_path: Path) -> None:
    entry = masks.Entry("x.jpg", square())
    for format in (png, folder, labelmap, coco, yolo, labelme):
        name = format.__name__.rsplit(".", 1)[-1]
        write_all(tmp_path / name / "one", format.write([entry]))
        shutil.copytree(tmp_path / name / "one", tmp_path / name / "two")
        first = masks.digest(tmp_path / name / "one", Path("x.jpg"))
        assert first == masks.digest(tmp_path / name / "two", tmp_path / "x.jpg")
        write_all(tmp_path / name / "three", format.write([masks.Entry("x.jpg", square(at=5))]))
        assert first != masks.digest(tmp_path / name / "three", Path("x.jpg"))


def test_another_photo_of_the_same_file_does_not_reach_a_digest(tmp_path: Path) -> None:
    one, two = masks.Entry("x.jpg", square()), masks.Entry("y.jpg", square(at=6))
    write_all(tmp_path / "alone", coco.write([one]))
    write_all(tmp_path / "both", coco.write([two, one]))
    alone, both = (tmp_path / place / "instances.json" for place in ("alone", "both"))
    assert masks.digest(alone, Path("x.jpg")) == masks.digest(both, Path("x.jpg"))
    assert masks.digest(both, Path("y.jpg")) != masks.digest(both, Path("x.jpg"))


def test_an_edited_coco_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(coco.document([masks.Entry("x.jpg", square())])))
    assert len(masks.load(path, Path("x.jpg"), (20, 30)) or ()) == 1
    path.write_text(json.dumps(coco.document([masks.Entry("x.jpg", Instances((20, 30)))])))
    assert len(masks.load(path, Path("x.jpg"), (20, 30)) or ()) == 0
