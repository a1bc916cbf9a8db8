"""`instapipe masks convert` through the command line: from any format to any other, whole or not at all."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from mask_worlds import blob, write_all
from PIL import Image

from instapipe import masks
from instapipe.cli import main
from instapipe.masks import coco, png
from instapipe.structures import Instances, Mask

FORMATS = ["png", "folder", "labelmap", "coco", "coco-counts", "coco-polygons", "yolo", "labelme"]
EXACT = {"png", "folder", "labelmap", "coco", "coco-counts"}
PHOTOS = {"one.jpg": (40, 60), "two.v2.png": (64, 48), "empty.jpg": (30, 30)}


def run(*words: object) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return code or 0


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Instances]:
    """Three photos in `photos/`, without overlap between their instances, and the truth in `truth.json`."""
    rng = np.random.default_rng(3)
    truth: dict[str, Instances] = {}
    (tmp_path / "photos").mkdir()
    for name, size in PHOTOS.items():
        Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
        taken = blob(rng, size)
        found = [] if name == "empty.jpg" else [taken, ~taken]
        n = len(found)
        truth[name] = Instances(size, tuple(map(Mask.from_dense, found)), ("sheep", "cow")[:n], (0.5, 1.0)[:n])
    entries = [masks.Entry(name, instances) for name, instances in truth.items()]
    write_all(tmp_path, coco.write(entries))
    (tmp_path / "instances.json").rename(tmp_path / "truth.json")
    return truth


@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMATS, FORMATS)))
def test_from_any_to_any(tmp_path: Path, world: dict[str, Instances], first: str, second: str) -> None:
    photos = ("--photos", tmp_path / "photos", "--label", "sheep")
    assert run("masks", "convert", tmp_path / "truth.json", tmp_path / "first", "--to", first) == 0
    assert run("masks", "convert", tmp_path / "first", tmp_path / "second", "--to", second, *photos) == 0
    for name, wanted in world.items():
        found = masks.load(tmp_path / "second", tmp_path / "photos" / name, wanted.size)
        if not len(wanted):
            assert found is None if "png" in (first, second) else found is not None and not len(found)
            continue
        assert found is not None
        ious = [a.iou(b) for a, b in zip(found.masks, wanted.masks, strict=True)]
        assert min(ious) == 1 if {first, second} <= EXACT else min(ious) > 0.9
        if not {first, second} & {"png", "labelmap"}:
            assert found.labels == wanted.labels


def test_what_needs_a_class_says_so(tmp_path: Path, world: dict[str, Instances], capsys) -> None:
    assert run("masks", "convert", tmp_path / "truth.json", tmp_path / "seg", "--to", "png") == 0
    assert run("masks", "convert", tmp_path / "seg", tmp_path / "out.json", "--to", "coco") == 2
    assert "--label CLASS" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_what_needs_a_size_says_so(tmp_path: Path, world: dict[str, Instances], capsys) -> None:
    assert run("masks", "convert", tmp_path / "truth.json", tmp_path / "labels", "--to", "yolo") == 0
    assert run("masks", "convert", tmp_path / "labels", tmp_path / "out", "--to", "png") == 1
    assert "give the photos too" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["png", "coco"])
def test_a_bad_file_leaves_nothing_behind(tmp_path: Path, world: dict[str, Instances], to: str, capsys) -> None:
    assert run("masks", "convert", tmp_path / "truth.json", tmp_path / "m", "--to", "folder") == 0
    (tmp_path / "m" / "two.v2.masks" / "two.v2_1.png").write_bytes(png.SIGNATURE)
    before = sorted(tmp_path.rglob("*"))
    assert run("masks", "convert", tmp_path / "m", tmp_path / "new" / "out", "--to", to) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "two.v2_1.png" in captured.err
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_overwritten(tmp_path: Path, world: dict[str, Instances], capsys) -> None:
    before = (tmp_path / "truth.json").read_bytes()
    assert run("masks", "convert", tmp_path / "truth.json", tmp_path / "truth.json", "--to", "coco") == 1
    assert run("masks", "convert", tmp_path / "truth.json", tmp_path / "photos", "--to", "png") == 1
    assert (tmp_path / "truth.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == sorted(PHOTOS)


@pytest.mark.parametrize(("other", "to"), [("b/x.jpg", "png"), ("b/x.jpg", "coco"), ("x.png", "yolo")])
def test_two_photos_of_one_name(tmp_path: Path, other: str, to: str, capsys) -> None:
    one = Instances((9, 9), (Mask.from_dense(np.ones((9, 9), dtype=np.bool_)),), ("sheep",), (1.0,))
    document = coco.document([masks.Entry("a/x.jpg", one), masks.Entry(other, one)])
    (tmp_path / "c.json").write_text(json.dumps(document))
    assert run("masks", "convert", tmp_path / "c.json", tmp_path / "out", "--to", to) == 1
    assert "two photos" in capsys.readouterr().err


def test_unknown_formats_are_named(tmp_path: Path, world: dict[str, Instances], capsys) -> None:
    assert run("masks", "convert", tmp_path / "truth.json", tmp_path / "out", "--to", "jpeg") == 2
    assert "no mask format 'jpeg'; known: png, folder" in capsys.readouterr().err
    assert run("masks", "convert", tmp_path / "photos", tmp_path / "out", "--to", "png", "--from", "tiff") == 2
    assert "no mask format 'tiff'; known: png" in capsys.readouterr().err
