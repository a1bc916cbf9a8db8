"""The detectron2 adapter: files from anyone are data, and its networks give what detectron2 gives."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from instapipe.errors import ConfigError, WeightsError
from instapipe.segmentation import load_segmenter, registry
from instapipe.segmentation.detectron2 import read_config
from instapipe.segmentation.pickles import read_arrays
from instapipe.structures import Photo

pytestmark = pytest.mark.filterwarnings("ignore")  # detectron2's own, of which there are many
needs_detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None,
    reason="detectron2 is not installed (the README says how to build it)",
)

SMALL: dict[str, Any] = {
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": True,
        "WEIGHTS": "detectron2://never/fetched.pkl",
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {"DEPTH": 18, "RES2_OUT_CHANNELS": 64, "OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "OUT_CHANNELS": 16},
        "ANCHOR_GENERATOR": {"SIZES": [[16], [32], [64], [128], [256]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
        "RPN": {"IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"], "POST_NMS_TOPK_TEST": 50},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"], "NUM_CLASSES": 3},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 16, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 1, "CONV_DIM": 8, "POOLER_RESOLUTION": 14},
    },
    "INPUT": {"MIN_SIZE_TEST": 96, "MAX_SIZE_TEST": 160},
    "VERSION": 2,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small network whose settings lie in two files."""
    base = {**SMALL, "INPUT": {"MIN_SIZE_TEST": 800, "MAX_SIZE_TEST": 160}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "small.yaml").write_text("_BASE_: base.yaml\nINPUT: {MIN_SIZE_TEST: 96}\n")
    return tmp_path / "small.yaml"


@pytest.fixture
def weights(config: Path) -> Path:
    """Untrained weights of that network, as detectron2's trainer saves them, and names for its classes."""
    pytest.importorskip("detectron2", reason="detectron2 is not installed (the README says how to build it)")
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.merge_from_file(str(config), allow_unsafe=False)
    cfg.MODEL.DEVICE = "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(cfg)
    path = config.parent / "small.pth"
    torch.save({"model": model.state_dict(), "iteration": 5}, path)
    path.with_suffix(".classes.txt").write_text("llama\nalpaca\ncamel\n")
    return path


def photo() -> Photo:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    return Photo(pixels, "noise", "0" * 64)


@needs_detectron2
def test_masks_and_scores_are_detectron2s_own(config: Path, weights: Path) -> None:
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    segmenter = load_segmenter(f"detectron2:{config},{weights}")
    found = segmenter.segment(photo())
    assert segmenter.classes == ("llama", "alpaca", "camel")
    assert 1 <= len(found) <= 100
    assert found.size == (60, 90)

    cfg = get_cfg()
    cfg.merge_from_file(str(config), allow_unsafe=False)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", str(weights)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.05
    theirs = DefaultPredictor(cfg)(np.ascontiguousarray(photo().pixels[:, :, ::-1]))["instances"]
    theirs = theirs[theirs.scores.argsort(descending=True, stable=True)]
    masks = theirs.pred_masks.numpy()
    # They keep instances without a pixel.
    some = [i for i, mask in enumerate(masks) if mask.any()]
    np.testing.assert_allclose(found.scores, theirs.scores.numpy()[some], atol=1e-6)
    for mine, i in zip(found.masks, some, strict=True):
        # They clip a box to the photo before they paste.
        assert np.count_nonzero(mine.dense() ^ masks[i]) <= 0.02 * max(mine.area, 50)


@needs_detectron2
def test_the_description_is_the_loaded_ones(config: Path, weights: Path) -> None:
    name = f"detectron2:{config},{weights}"
    segmenter = load_segmenter(name)
    assert registry.describe(name) == (segmenter.classes, segmenter.fingerprint())


@needs_detectron2
def test_pickled_arrays_give_the_same_as_a_state_dict(config: Path, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)["model"]
    arrays = {key: value.numpy() for key, value in state.items()}
    path = weights.with_suffix(".pkl")
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}, protocol=2))
    one, two = (load_segmenter(f"detectron2:{config},{p}").segment(photo()) for p in (weights, path))
    assert one.scores == two.scores


@needs_detectron2
def test_weights_of_another_network_are_refused(config: Path, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)["model"]
    torch.save({"model": {k: v for k, v in state.items() if "mask_head" not in k}}, weights)
    with pytest.raises(WeightsError, match="do not fit the config"):
        load_segmenter(f"detectron2:{config},{weights}")


@needs_detectron2
def test_unknown_settings_are_refused(config: Path, weights: Path) -> None:
    config.write_text(config.read_text() + "MODEL: {NO_SUCH_THING: 1}\n")
    with pytest.raises(ConfigError, match="NO_SUCH_THING"):
        load_segmenter(f"detectron2:{config},{weights}")


def test_bases_are_merged_and_what_lies_above_wins(config: Path) -> None:
    merged = read_config(config)
    assert merged["INPUT"] == {"MIN_SIZE_TEST": 96, "MAX_SIZE_TEST": 160}
    assert merged["MODEL"] == SMALL["MODEL"]
    assert "_BASE_" not in merged


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", "MODEL: !!python/object/apply:os.mkdir [{ran}]", "is not plain YAML"),
        ("run.yaml", "_BASE_: !!python/object/apply:os.mkdir [{ran}]", "is not plain YAML"),
        ("run.py", "import os; os.mkdir('{ran}')", "only YAML is read"),
        ("run.yaml", "_BASE_: ../run.py", "only YAML is read"),
        ("run.yaml", "_BASE_: https://127.0.0.1:9/base.yaml", "must be a file of this machine"),
        ("run.yaml", "_BASE_: [1]", "must be a file of this machine"),
        ("run.yaml", "_BASE_: run.yaml", "in a circle"),
        ("run.yaml", "- a list", "must be a mapping"),
        ("run.yaml", "[" * 3000, "is not plain YAML"),
        ("run.yaml", "MODEL: {{MASK_ON: False}}", "is no Mask R-CNN"),
        ("run.yaml", "MODEL: {{MASK_ON: True, META_ARCHITECTURE: RetinaNet}}", "is no Mask R-CNN"),
    ],
)
def test_configs_are_data(tmp_path: Path, name: str, text: str, message: str) -> None:
    ran = tmp_path / "ran"
    (tmp_path / name).write_text(text.format(ran=ran))
    with pytest.raises(ConfigError, match=message):
        registry.describe(f"detectron2:{tmp_path / name},{tmp_path / 'weights.pth'}")
    assert not ran.exists()


@pytest.mark.parametrize("argument", ["", ":", ":a.yaml", ":a.yaml,", ":,w.pth", ":a.yaml,w.onnx"])
def test_what_the_name_must_say_is_said(argument: str) -> None:
    with pytest.raises(WeightsError, match=r"detectron2:CONFIG\.yaml,WEIGHTS\.pth|expected \.pth or \.pkl"):
        registry.describe(f"detectron2{argument}")


def test_classes_must_be_named_as_many_as_there_are(config: Path) -> None:
    weights = config.parent / "w.pth"
    weights.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"has 3 classes; name them, one a line, in .*w\.classes\.txt"):
        registry.describe(f"detectron2:{config},{weights}")
    weights.with_suffix(".classes.txt").write_text("one\ntwo\n")
    with pytest.raises(WeightsError, match=r"has 3 classes, .* names 2"):
        registry.describe(f"detectron2:{config},{weights}")


def test_the_fingerprint_ignores_what_does_not_matter(config: Path) -> None:
    weights = config.parent / "w.pth"
    weights.write_bytes(b"")
    weights.with_suffix(".classes.txt").write_text("one\ntwo\nthree\n")
    name = f"detectron2:{config},{weights}"
    before = registry.describe(name)
    text = config.read_text()
    config.write_text(text + "SOLVER: {BASE_LR: 7}\nMODEL: {WEIGHTS: elsewhere.pkl}\n")
    assert registry.describe(name) == before
    config.write_text(text.replace("96", "128"))
    assert registry.describe(name) != before


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_and_containers_are_read(tmp_path: Path, protocol: int) -> None:
    content = {
        "model": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asfortranarray(np.eye(3))},
        "__author__": "somebody",
        "more": [1, 2.5, None, True, (b"\xff\x00", "text"), {3, 4}, np.float32(0.5), np.int64(7)],
    }
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    got = read_arrays(path)
    np.testing.assert_array_equal(got["model"]["a"], content["model"]["a"])
    np.testing.assert_array_equal(got["model"]["b"], content["model"]["b"])
    assert got["more"] == content["more"]
    assert got["model"]["a"].dtype == np.float32


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_pickles_that_do_more_are_refused(tmp_path: Path) -> None:
    path, ran = tmp_path / "w.pkl", tmp_path / "ran"
    objects = np.asarray([Calls(os.mkdir, str(ran))], dtype=object)
    for content in (Calls(os.mkdir, str(ran)), Calls(eval, f"__import__('os').mkdir({str(ran)!r})"), objects):
        path.write_bytes(pickle.dumps({"model": content}))
        with pytest.raises(WeightsError, match="only arrays and containers are read"):
            read_arrays(path)
    for damaged in (
        b"",
        b"\x80\x04",
        pickle.dumps(np.arange(5))[:-9],
        b"\x80\x04\x8a\xff",
        io.BytesIO(b"no").getvalue(),
    ):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"cannot read .* as data only"):
            read_arrays(path)
    assert not ran.exists()
