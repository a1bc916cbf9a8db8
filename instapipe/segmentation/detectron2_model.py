"""detectron2's networks, built and run through its own API. Imports detectron2: only for a network that is loaded."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import GeneralizedRCNN, build_model
from torch import Tensor

from instapipe.errors import ConfigError, WeightsError
from instapipe.segmentation.pickles import read_arrays
from instapipe.segmentation.rcnn import MAX_INSTANCES, MIN_SCORE, paste
from instapipe.structures import Instances, Photo


class DataCheckpointer(DetectionCheckpointer):  # type: ignore[misc]
    """detectron2's, with its conversions of older names, but reading files as data only, and strict about what fits."""

    def _load_file(self, filename: str) -> dict[str, Any]:
        path = Path(filename)
        if path.suffix == ".pkl":
            content = read_arrays(path)
        else:
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises many kinds for damaged or unsafe files
                reason = " ".join(str(error).split())[:200]
                raise WeightsError(f"cannot read {str(path)!r} as data only: {reason}") from error
        if not isinstance(content, dict):
            raise WeightsError(f"{str(path)!r} holds no weights: expected a mapping, got {type(content).__name__}")
        if path.suffix == ".pkl" and not ("model" in content and "__author__" in content):
            # Caffe2's and Detectron1's files.
            blobs = {k: v for k, v in content.get("blobs", content).items() if not k.endswith("_momentum")}
            return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}
        return content if "model" in content else {"model": content}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        found = super()._load_model({k: v for k, v in checkpoint.items() if k != "optimizer"})
        bad = [*found.missing_keys, *(key for key, *_ in found.incorrect_shapes)]
        if bad:
            raise WeightsError(
                f"the weights do not fit the config: {len(bad)} tensors missing or of another shape, {bad[0]}"
            )
        return found


def build(config: dict[str, Any], weights: Path, device: str) -> Detectron2Model:
    """The network of `config` (bases merged in) with `weights`, in eval mode.

    Raises ConfigError for settings that detectron2 does not know, WeightsError for weights that do not fit.
    """
    cfg = get_cfg()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "config.yaml")
        plain.write_text(yaml.safe_dump(config), encoding="utf-8")
        try:
            cfg.merge_from_file(str(plain), allow_unsafe=False)
        except (AssertionError, KeyError, ValueError, AttributeError, TypeError) as error:
            raise ConfigError(f"detectron2 does not take the config: {' '.join(str(error).split())[:200]}") from error
    cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""  # a config may name a download
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = MIN_SCORE
    cfg.TEST.DETECTIONS_PER_IMAGE = MAX_INSTANCES
    if not weights.is_file():
        raise WeightsError(f"no weights {str(weights)!r}")
    model = build_model(cfg).eval()
    quiet = logging.getLogger("fvcore.common.checkpoint")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # what does not fit is an error here, and said once
    try:
        DataCheckpointer(model).load(str(weights.resolve()))
    except (RuntimeError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{str(weights)!r} does not fit its config: {' '.join(str(error).split())[:200]}") from error
    finally:
        quiet.setLevel(level)
    return Detectron2Model(model, cfg)


class Detectron2Model:
    """A network with the resizing and channel order of its config."""

    def __init__(self, model: GeneralizedRCNN, cfg: CfgNode) -> None:
        self._model = model
        self._bgr = cfg.INPUT.FORMAT == "BGR"
        self._resize = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)

    @torch.inference_mode()
    def __call__(self, photo: Photo) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Best first: boxes (N, 4) XYXY in pixels of the photo, masks (N, M, M) in [0, 1], classes and scores (N,)."""
        pixels = photo.pixels[:, :, ::-1] if self._bgr else photo.pixels
        resized = self._resize.get_transform(pixels).apply_image(np.ascontiguousarray(pixels))
        image = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))).float()
        height, width = photo.size
        given = [{"image": image, "height": height, "width": width}]
        # Without detectron2's own pasting, which makes N masks of the photo's size.
        (found,) = self._model.inference(given, do_postprocess=False)
        found = found[found.scores.argsort(descending=True, stable=True)].to("cpu")
        factors = torch.tensor([width / resized.shape[1], height / resized.shape[0]] * 2, dtype=torch.float64)
        boxes = found.pred_boxes.tensor.double() * factors
        return boxes, found.pred_masks[:, 0].float(), found.pred_classes, found.scores.float()


class Detectron2Segmenter:
    """A network of detectron2 with names for its classes."""

    def __init__(self, name: str, model: Detectron2Model, fingerprint: dict[str, Any]) -> None:
        self.name = name
        self.classes: tuple[str, ...] = tuple(fingerprint["classes"])
        self._model = model
        self._fingerprint = fingerprint

    def fingerprint(self) -> dict[str, Any]:
        """What decides the result; JSON."""
        return self._fingerprint

    def segment(self, photo: Photo) -> Instances:
        """Unfiltered instances of all classes, best first."""
        boxes, grids, classes, scores = self._model(photo)
        masks = [paste(g, b, photo.size) for g, b in zip(grids.numpy(), boxes.numpy(), strict=True)]
        kept = [i for i, mask in enumerate(masks) if mask.area]
        return Instances(
            photo.size,
            tuple(masks[i] for i in kept),
            tuple(self.classes[int(classes[i])] for i in kept),
            tuple(float(scores[i]) for i in kept),
        )
