"""torchvision's Mask R-CNN: ``torchvision``, ``torchvision:v1`` (ResNet-50 FPN), ``torchvision:v2`` (an improved one).

With their COCO weights, or with a state dict of one's own: ``torchvision:v1:/path/to/state.pth``. That has the COCO
classes, or those named one per line in a text file beside it (``state.classes.txt``), in the order of its outputs.

torch is imported when a network is loaded, not for its description. Nothing here opens a socket but :func:`pull`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instapipe.errors import WeightsError
from instapipe.networks.cards import digest
from instapipe.segmentation.class_names import COCO_NAMES, names_beside, names_file
from instapipe.structures import Instances, Photo

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum
    from torchvision.models.detection import MaskRCNN

VERSION = 1
"""Of what :meth:`TorchvisionSegmenter.segment` computes from given weights; part of its fingerprint."""

FILES: Mapping[str, str] = {
    "v1": "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    "v2": "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
}
"""The names of the COCO weights, as torchvision caches them; they end with the beginning of their sha256."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What an argument means.  variant: ``v1`` or ``v2``.  path: of a state dict; None for the COCO weights."""

    variant: str
    path: Path | None

    @classmethod
    def parse(cls, argument: str | None) -> Choice:
        """Raises WeightsError."""
        variant, _, path = (argument or "v2").partition(":")
        if variant not in FILES:
            raise WeightsError(f"no torchvision variant {variant!r}; known: {', '.join(FILES)} (as in torchvision:v2)")
        return cls(variant, Path(path).expanduser() if path else None)

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"torchvision:{self.variant}" + (f":{self.path}" if self.path else "")

    def labels(self) -> tuple[str, ...]:
        """The name of every output of the classifier, "" where it is none: the background, and unused COCO ids."""
        names = names_beside(self.path) if self.path else None
        return COCO_NAMES if names is None else ("", *names)

    def digest(self) -> str:
        """Of the weights; of COCO's only the published beginning, which :func:`load` checks."""
        if self.path is None:
            return FILES[self.variant].removesuffix(".pth").rpartition("-")[2]
        try:
            return digest(self.path)
        except OSError as error:
            raise WeightsError(f"cannot read weights {str(self.path)!r}: {error.strerror}") from error

    def fingerprint(self) -> dict[str, Any]:
        """JSON."""
        classes = [label for label in self.labels() if label]
        return {
            "segmenter": f"torchvision:{self.variant}",
            "version": VERSION,
            "weights": self.digest(),
            "classes": classes,
        }


class TorchvisionSegmenter:
    """One of torchvision's networks with weights, on one device."""

    def __init__(self, choice: Choice, model: MaskRCNN, fingerprint: dict[str, Any]) -> None:
        self.name = choice.name
        self.classes = tuple(fingerprint["classes"])
        self._labels = choice.labels()
        self._model = model
        self._fingerprint = fingerprint

    def fingerprint(self) -> dict[str, Any]:
        """What decides the result; JSON."""
        return self._fingerprint

    def segment(self, photo: Photo) -> Instances:
        """Unfiltered instances of all classes, best first."""
        from instapipe.segmentation.rcnn import detect

        return detect(self._model, photo.pixels, self._labels)


def describe(argument: str | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """(classes, fingerprint) without torch."""
    fingerprint = Choice.parse(argument).fingerprint()
    return tuple(fingerprint["classes"]), fingerprint


def load(argument: str | None, *, device: str) -> TorchvisionSegmenter:
    """The network with its weights; raises WeightsError where they are missing, damaged or of another network."""
    choice = Choice.parse(argument)
    path = choice.path or cached(choice.variant)
    fingerprint = choice.fingerprint()
    if choice.path is None and not digest(path).startswith(fingerprint["weights"]):
        raise WeightsError(
            f"{str(path)!r} is damaged: its sha256 does not begin with {fingerprint['weights']}; delete it"
        )

    import torch
    from torchvision.models import detection

    builders = {"v1": detection.maskrcnn_resnet50_fpn, "v2": detection.maskrcnn_resnet50_fpn_v2}
    labels = choice.labels()
    model: MaskRCNN = builders[choice.variant](
        weights=None, weights_backbone=None, num_classes=len(labels), box_score_thresh=0.05, box_detections_per_img=100
    )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        raise WeightsError(f"cannot read weights {str(path)!r}: {' '.join(str(error).split())[:200]}") from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{str(path)!r} is no state dict of torchvision's Mask R-CNN {choice.variant} with {len(labels)} outputs "
            f"({' '.join(str(error).split())[:200]}); another number of classes needs their names in "
            f"{str(names_file(path))!r}"
        ) from error
    return TorchvisionSegmenter(choice, model.eval().to(device), fingerprint)


def cached(variant: str) -> Path:
    """Where torchvision keeps the COCO weights; raises WeightsError, with a hint, where they are not there."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    path = Path(home).expanduser() / "hub" / "checkpoints" / FILES[variant]
    if not path.is_file():
        raise WeightsError(
            f"the COCO weights of torchvision:{variant} are not here ({str(path)!r}); where there is a network: "
            f"instapipe weights pull torchvision:{variant}; else bring the file, or give torchvision:{variant}:FILE"
        )
    return path


def pull(variant: str) -> Path:
    """Download the COCO weights through torchvision, which checks their digest; raises WeightsError."""
    Choice.parse(variant)
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights, MaskRCNN_ResNet50_FPN_Weights

    published: dict[str, WeightsEnum] = {
        "v1": MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
        "v2": MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    }
    try:
        published[variant].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, a cut transfer; a wrong digest
        raise WeightsError(
            f"cannot pull torchvision:{variant} from {published[variant].url}: {error}; bring the file from another "
            f"machine and give torchvision:{variant}:FILE"
        ) from error
    return cached(variant)
