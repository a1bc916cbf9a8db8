"""Mask files that are wrong: one line that names the file, the value and the way out; no memory for absurd sizes."""

from __future__ import annotations

import base64
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_worlds import random_instances, write_all
from PIL import Image

from instapipe import masks
from instapipe.errors import MaskError
from instapipe.masks import coco, folder, labelmap, labelme, png, yolo
from instapipe.structures import Instances, Mask

SIZE = (20, 30)
PNG = png.encode_mask(np.eye(20, 30, dtype=np.bool_))


def refused(source: Path, *words: str, photo: str = "x.jpg", size: tuple[int, int] = SIZE) -> str:
    """The message of the MaskError that loading raises: one line with `words` in it."""
    with pytest.raises(MaskError) as caught:
        masks.load(source, Path(photo), size)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for word in words:
        assert word in message
    return message


# PNG ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty file"]),
        (PNG[:20], ["damaged or cut off"]),
        (PNG[:-20], ["damaged or cut off"]),
        (b"GIF89a" + bytes(60), ["not a PNG"]),
        (PNG[:40] + bytes(20) + PNG[60:], ["damaged or cut off"]),
        (png.encode_mask(np.ones((20, 31), dtype=np.bool_)), ["31x20", "30x20", "own size"]),
        (png.encode_mask(np.ones((30, 20), dtype=np.bool_)), ["20x30", "upright (EXIF)"]),
    ],
)
@pytest.mark.parametrize("name", ["x_0.png", "x.png"])
def test_png(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path, name, *words)


def test_png_that_claims_to_be_huge_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "x_0.png").write_bytes(PNG[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + PNG[24:])
    refused(tmp_path, "2147483647x2147483647")


def test_two_files_of_one_number(tmp_path: Path) -> None:
    for name in ("x_0.png", "x_00.png"):
        (tmp_path / name).write_bytes(PNG)
    refused(tmp_path, "x_0.png and x_00.png have the same number")


def test_a_photo_is_no_label_map(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    refused(tmp_path, "instances; at most 1,000", size=(60, 60))


def test_a_masks_folder_whose_pngs_were_not_renamed_with_it_is_not_empty(tmp_path: Path) -> None:
    instances = Instances(SIZE, (Mask.from_dense(np.eye(*SIZE, dtype=np.bool_)),) * 4, ("sheep",) * 4, (1.0,) * 4)
    write_all(tmp_path, folder.write([masks.Entry("x.jpg", instances)]))
    place = (tmp_path / "x.masks").rename(tmp_path / "y.masks")
    for source in (place, tmp_path):
        refused(source, "y.masks", "not of photo 'y.jpg'", "x_0.png, x_1.png, x_2.png, ...", "y_<i>.png", photo="y.jpg")
    for path in place.glob("*.png"):
        path.rename(place / path.name.replace("x_", "y_"))
    assert len(masks.load(place, Path("y.jpg"), SIZE) or ()) == 4


def test_a_file_of_another_photo_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "labels.png").write_bytes(PNG)
    refused(tmp_path / "labels.png", "not of photo 'x.jpg'", "call them x.png")
    (tmp_path / "y.masks").mkdir()
    refused(tmp_path / "y.masks", "y.masks", "not of photo 'x.jpg'")


def test_folders_that_say_two_things(tmp_path: Path) -> None:
    (tmp_path / "x_0.png").write_bytes(PNG)
    (tmp_path / "x.png").write_bytes(PNG)
    refused(tmp_path, "x.png is a label map and x_<i>.png are masks")
    (tmp_path / "y.json").write_text("{}")
    refused(tmp_path, "both .json and .png files; keep one kind")


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.json", "none.json", "No such file")
    refused(tmp_path, "no .json, .txt or .png file")
    (tmp_path / "x.npz").write_bytes(b"")
    refused(tmp_path / "x.npz", "expected a folder, or a .json, .png or .txt file")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x_0.png").open("wb") as file:
        file.truncate(65 * 2**20)
    refused(tmp_path, "larger than 64 MiB")


# COCO -----------------------------------------------------------------------------------------------------------------


def coco_file(tmp_path: Path, **annotation: Any) -> Path:
    fields = {"id": 5, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 12, 2, 12, 12]], **annotation}
    document = {
        "images": [{"id": 1, "file_name": "x.jpg", "height": 20, "width": 30}],
        "annotations": [fields],
        "categories": [{"id": 1, "name": "sheep"}],
    }
    path = tmp_path / "c.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"size": [20, 30], "counts": [10**12]}, ["RLE count", "1000000000000"]),
        ({"size": [20, 30], "counts": [-5, 605]}, ["RLE count", "-5"]),
        ({"size": [20, 30], "counts": [100, 100]}, ["add up to 200", "is 600"]),
        ({"size": [20, 30], "counts": [0] * 700}, ["700 counts for 600 pixels"]),
        ({"size": [20, 30], "counts": [1.5]}, ["RLE count", "1.5"]),
        ({"size": [20, 30], "counts": ["600"]}, ["RLE count", "'600'"]),
        ({"size": [20, 30], "counts": "oooooooo"}, ["absurdly large"]),
        ({"size": [20, 30], "counts": "ooooo"}, ["cut off"]),
        ({"size": [20, 30], "counts": "ääää"}, ["does not belong"]),
        ({"size": [20, 30], "counts": "_" * 9000}, ["9,000 characters for 600 pixels"]),
        ({"size": [20, 30], "counts": 7}, ["expected a string or a list", "7"]),
        ({"size": [2**19, 2**19], "counts": [2**38]}, ["524288x524288", "absurdly large"]),
        ({"size": [21, 30], "counts": [630]}, ["30x21", "30x20"]),
        ({"size": "20x30", "counts": [600]}, ["[height, width]"]),
        ([[2, 2, 12, 2, 500, 12]], ["(500, 12) is outside the photo of 30x20"]),
        ([[2, 2, 12, 2, float("nan"), 12]], ["outside"]),
        ([[2, 2, 12, 2, float("inf"), 12]], ["outside"]),
        ([[2, 2, 12, 2, 10**400, 12]], ["absurdly large"]),
        ([[2, 2, 12, 2, 12]], ["x, y, x, y"]),
        ([[2, 2, 12, 2, "12", 12]], ["something else than numbers"]),
        ([[0, 0, 30, 20] * 20_000], ["outline", "at most 1,000,000"]),
        ([2, 2, 12, 2, 12, 12], ["x, y, x, y"]),
        ([], ["no segmentation"]),
        (None, ["no segmentation"]),
        ("polygon", ["no segmentation"]),
    ],
)
def test_coco_segmentation(tmp_path: Path, segmentation: Any, words: list[str]) -> None:
    path = coco_file(tmp_path, segmentation=segmentation)
    masks.digest(path, Path("x.jpg"))  # parsed, outside of the measurement
    tracemalloc.start()
    try:
        refused(path, "c.json", "x.jpg", "annotation 5", *words)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"category_id": 9}, ["category_id 9", "not listed"]),
        ({"category_id": [1]}, ["category_id [1]"]),
        ({"image_id": 8}, ["image_id 8", "not listed"]),
        ({"image_id": {}}, ["image_id {}"]),
        ({"score": 1.5}, ["score from 0 to 1", "1.5"]),
        ({"score": float("nan")}, ["score from 0 to 1", "nan"]),
        ({"score": "high"}, ["score from 0 to 1", "'high'"]),
        ({"number": -1}, ["number", "-1"]),
    ],
)
def test_coco_annotation(tmp_path: Path, fields: dict[str, Any], words: list[str]) -> None:
    refused(coco_file(tmp_path, **fields), "c.json", *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["not JSON"]),
        (b'{"images": [', ["not JSON"]),
        (b"\xff\xfe\x00", ["not JSON"]),
        (b"[]", ["expected a JSON object, got list"]),
        (b"{}", ["needs 'images'"]),
        (b'{"images": {}}', ["needs 'images'", "{}"]),
        (b'{"images": [3]}', ["needs 'images'"]),
        (b'{"images": [{"id": 1}]}', ["id and a file_name"]),
        (b'{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}', ["two images have the id 1"]),
        (b'{"images": [], "annotations": []}', ["needs 'categories'"]),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1}]}', ["a category needs"]),
        (b'{"images": ' + b"[" * 200_000, ["nested too deeply"]),
        (b'{"shapes": ' + b'{"a":' * 200_000, ["nested too deeply"]),
        (b'{"images": ' + b"9" * 10_000 + b"}", ["not JSON"]),
    ],
)
def test_json(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "x.json").write_bytes(content)
    refused(tmp_path / "x.json", "x.json", *words)


@pytest.mark.parametrize("depth", [300, 600, 900, 960, 980, 990])
def test_nesting_that_still_parses(tmp_path: Path, depth: int) -> None:
    bomb: Any = []
    for _ in range(depth):
        bomb = [bomb]
    text = coco_file(tmp_path, segmentation="BOMB").read_text()
    (tmp_path / "c.json").write_text(text.replace('"BOMB"', "[" * depth + "]" * depth))
    refused(tmp_path / "c.json", "c.json")


# YOLO, labelme --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0.5 0.5 0.2 0.2", ["line 1", "a box, not a polygon"]),
        ("0 0 0 1 0 1 1\n0 0.1 zero 0.2 0.2 0.3 0.3", ["line 2", "expected numbers", "zero"]),
        ("0 0 0 1 0 1 7", ["outside the photo of 30x20"]),
        ("0 0 0 1 0 1e308 1e308", ["outside"]),
        ("0 0 0 1 0 nan 1", ["outside"]),
        ("sheep 0 0 1 0 1 1", ["expected a class number", "'sheep'"]),
        ("-1 0 0 1 0 1 1", ["expected a class number"]),
        ("7 0 0 1 0 1 1", ["class 7 has no name"]),
        ("0 0 0 1 0 1 1 1 0 5", ["score", "5.0"]),
    ],
)
def test_yolo(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "classes.txt").write_text("sheep\n")
    (tmp_path / "x.txt").write_text(text)
    refused(tmp_path, "x.txt", *words)


@pytest.mark.parametrize("text", ["names: [", "names: 3", "[1]", "names: {a: b}"])
def test_yolo_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    (tmp_path / "x.txt").write_text("0 0 0 1 0 1 1")
    refused(tmp_path, "data.yaml")


def test_yolo_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00\x01")
    refused(tmp_path, "x.txt", "not a text file")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"points": [[1, 1], [9, 9]], "shape_type": "line"}, ["'line' has no area"]),
        ({"points": [[1, 1], [9, 9], [3, 3]], "shape_type": "circle"}, ["a circle has 2 points, got 3"]),
        ({"points": [[1, 1], [9]]}, ["list of [x, y]"]),
        ({"points": "none"}, ["list of [x, y]", "'none'"]),
        ({"points": [[1, 1], [99, 9], [3, 3]]}, ["(99, 9) is outside"]),
        ({"points": [[1, 1], [9, 9]], "shape_type": "mask"}, ["PNG in base64"]),
        ({"points": [[1, 1], [9, 9]], "shape_type": "mask", "mask": "?"}, ["not base64"]),
        ({"points": [[1, 1], [9, 9]], "shape_type": "mask", "mask": base64.b64encode(PNG).decode()}, ["30x20", "9x9"]),
        ({"points": [[1, 1], [9, 9], [1, 9]], "label": 3}, ["expected a label", "3"]),
        ({"points": [[1, 1], [9, 9], [1, 9]], "group_id": [3]}, ["expected a group_id"]),
        ({"points": [[1, 1], [9, 9], [1, 9]], "score": 2}, ["score"]),
    ],
)
def test_labelme(tmp_path: Path, shape: dict[str, Any], words: list[str]) -> None:
    document = {"shapes": [{"label": "sheep", **shape}], "imageHeight": 20, "imageWidth": 30}
    (tmp_path / "x.json").write_text(json.dumps(document))
    refused(tmp_path / "x.json", "x.json", "shape 0", *words)


def test_labels_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"shapes": [], "imageHeight": 40, "imageWidth": 60}))
    refused(tmp_path / "x.json", "60x40", "30x20")


# Anything else --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [png, folder, labelmap, coco, yolo, labelme])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_files_load_or_raise_a_mask_error(format, data: st.DataObject) -> None:
    """Bytes changed, cut or doubled anywhere: no other exception and no other size ever comes out."""
    instances = random_instances(data.draw(st.integers(0, 50)))
    with tempfile.TemporaryDirectory() as place:
        write_all(Path(place), format.write([masks.Entry("x.jpg", instances)]))
        files = sorted(path for path in Path(place).rglob("*") if path.is_file())
        if not files:
            return
        path = data.draw(st.sampled_from(files))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, max(len(content) - 1, 0)))
            kind = data.draw(st.sampled_from(["byte", "cut", "digit", "double"]))
            if kind == "byte":
                content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            elif kind == "digit":
                content[at : at + 1] = data.draw(
                    st.sampled_from([b"9999999", b"-1", b'"', b"[", b"}", b"null", b"1e999"])
                )
            elif kind == "double":
                content[at:at] = content[at : at + 40]
            else:
                del content[at:]
        path.write_bytes(content)
        message, size = "", instances.size
        try:
            found = masks.load(Path(place), Path("x.jpg"), instances.size)
            size = found.size if found is not None else size
        except MaskError as error:
            message = str(error)
        assert "\n" not in message
        assert size == instances.size
