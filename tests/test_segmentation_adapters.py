"""Adapters: torchvision's networks, and segmenters of other packages."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from instapipe.errors import WeightsError
from instapipe.segmentation import load_segmenter, registry
from instapipe.segmentation import torchvision as adapter
from instapipe.segmentation.class_names import COCO_NAMES
from instapipe.structures import Photo


@pytest.fixture(scope="module")
def state_dict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ResNet-50 Mask R-CNN with three outputs, and the names of its two classes."""
    path = tmp_path_factory.mktemp("torchvision") / "own.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    torch.save(model.state_dict(), path)
    path.with_suffix(".classes.txt").write_text("llama\nalpaca\n")
    return path


def test_a_state_dict_of_ones_own_is_loaded_and_run(state_dict: Path) -> None:
    name = f"torchvision:v1:{state_dict}"
    segmenter = load_segmenter(name)
    assert segmenter.classes == ("llama", "alpaca")
    assert registry.describe(name) == (segmenter.classes, segmenter.fingerprint())
    # The long side becomes 1333 px whatever the photo's: a strip is what takes the least time.
    pixels = np.random.default_rng(0).integers(0, 256, (12, 120, 3), dtype=np.uint8)
    found = segmenter.segment(Photo(pixels, "noise", "0" * 64))
    assert found.size == (12, 120)
    assert set(found.labels) <= {"llama", "alpaca"}
    assert 1 <= len(found) <= 100


def test_the_fingerprint_follows_the_weights_not_the_path(state_dict: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pth"
    copy.hardlink_to(state_dict)
    copy.with_suffix(".classes.txt").write_text("llama\nalpaca\n")
    assert registry.describe(f"torchvision:v1:{copy}") == registry.describe(f"torchvision:v1:{state_dict}")
    assert registry.describe(f"torchvision:v2:{copy}") != registry.describe(f"torchvision:v1:{state_dict}")


def test_weights_of_another_network_are_refused(state_dict: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no state dict of torchvision's Mask R-CNN v2 with 3 outputs"):
        load_segmenter(f"torchvision:v2:{state_dict}")
    nameless = tmp_path / "nameless.pth"
    nameless.hardlink_to(state_dict)
    with pytest.raises(WeightsError, match=r"with 91 outputs .*nameless\.classes\.txt"):
        load_segmenter(f"torchvision:v1:{nameless}")


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps(Payload(), protocol=2))
        archive.writestr("evil/version", "3\n")
        archive.writestr("evil/byteorder", "little")
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        load_segmenter(f"torchvision:v1:{path}")
    assert not (tmp_path / "ran").exists()


def test_coco_classes_have_their_names() -> None:
    classes, fingerprint = registry.describe("torchvision")
    assert len(classes) == 80
    assert fingerprint["weights"] == "73cbd019"
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    published = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    assert list(classes) == [c for c in published.meta["categories"] if c not in ("N/A", "__background__")]
    assert published.url.endswith(adapter.FILES["v1"])
    assert [COCO_NAMES.index(c) for c in ("horse", "sheep", "cow", "giraffe")] == [19, 20, 21, 25]


def test_missing_coco_weights_name_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="instapipe weights pull torchvision:v1"):
        load_segmenter("torchvision:v1")


def test_damaged_coco_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / adapter.FILES["v2"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of it")
    assert adapter.cached("v2") == path == Path(torch.hub.get_dir(), "checkpoints", adapter.FILES["v2"])
    with pytest.raises(WeightsError, match="is damaged"):
        load_segmenter("torchvision")


def test_pulling_without_a_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(WeightsError, match=r"cannot pull torchvision:v1.*bring the file"):
        adapter.pull("v1")
    assert not list(tmp_path.rglob("*.pth"))


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(WeightsError, match="no torchvision variant 'v3'; known: v1, v2"):
        registry.describe("torchvision:v3")


PLUGIN = """
import numpy as np
from instapipe.structures import Instances, Mask


class Bright:
    classes = ("bright",)

    def __init__(self, threshold):
        self.name, self.threshold = f"bright:{threshold}", threshold

    def fingerprint(self):
        return {"segmenter": "bright", "threshold": self.threshold}

    def segment(self, photo):
        mask = Mask.from_dense(photo.pixels.mean(axis=2) > self.threshold)
        return Instances(photo.size, (mask,), ("bright",), (1.0,))


def describe(argument):
    return Bright.classes, Bright(int(argument)).fingerprint()


def load(argument, *, device):
    return Bright(int(argument))
"""
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "bright-segmenter"
version = "1"
[project.entry-points."instapipe.segmenters"]
bright = "bright_segmenter"
broken = "bright_segmenter.missing"
[tool.setuptools]
py-modules = ["bright_segmenter"]
"""
PROGRAM = """
import numpy as np
from instapipe.errors import WeightsError
from instapipe.segmentation import load_segmenter, registry
from instapipe.structures import Photo
pixels = np.zeros((20, 30, 3), dtype=np.uint8)
pixels[5:9, 10:20] = 200
segmenter = load_segmenter("bright:100")
assert registry.describe("bright:100") == (segmenter.classes, segmenter.fingerprint())
found = segmenter.segment(Photo(pixels, "p", ""))
print(segmenter.name, found.masks[0].box, *registry.adapters())
try:
    load_segmenter("broken")
except WeightsError as error:
    print(error)
"""


def test_another_package_adds_a_segmenter(tmp_path: Path) -> None:
    """Built and installed for real, found by its entry point."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "bright_segmenter.py").write_text(PLUGIN)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", str(target), str(source)], check=True)
    here = str(Path(__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), here])}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "bright:100 (10, 5, 20, 9) bright broken detectron2 torchvision"
    assert "segmenter 'broken' of 'bright_segmenter.missing' cannot be imported" in second
