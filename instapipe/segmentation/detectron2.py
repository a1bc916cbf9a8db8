"""Any Mask R-CNN of detectron2: ``detectron2:CONFIG.yaml,WEIGHTS``.

Classes are those named one a line in a text file beside the weights (``WEIGHTS``' name with ``.classes.txt``), in the
order of the network's outputs; without it a network of 80 classes has COCO's.

The files may come from anyone, so nothing in them is run and nothing that they name is fetched: configurations are YAML
read as data (Python ones are refused), with their ``_BASE_`` files from this machine only; weights are ``.pkl`` with
arrays and containers alone, or ``.pth`` read with ``weights_only``.

detectron2 and torch are imported when a network is loaded, not for its description.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instapipe.config import parse_yaml
from instapipe.errors import ConfigError, WeightsError
from instapipe.networks.cards import digest
from instapipe.segmentation.class_names import COCO_NAMES, names_beside, names_file

if TYPE_CHECKING:
    from instapipe.segmentation.detectron2_model import Detectron2Segmenter

VERSION = 1
"""Of what the adapter computes from given weights; part of its fingerprint."""

BUILD = "git clone https://github.com/facebookresearch/detectron2 && pip install --no-build-isolation ./detectron2"
MAX_CONFIG_BYTES = 1 << 20
MAX_BASES = 16
COCO_CLASSES = 80


@dataclass(frozen=True, slots=True)
class Choice:
    """What an argument means.  config: the YAML's content, its bases merged in.  weights: the file."""

    config: dict[str, Any]
    weights: Path

    @classmethod
    def parse(cls, argument: str | None) -> Choice:
        """Raises WeightsError or ConfigError."""
        config, comma, weights = (argument or "").rpartition(",")
        if not comma or not config or not weights:
            raise WeightsError("detectron2 needs a config and weights: detectron2:CONFIG.yaml,WEIGHTS.pth (or .pkl)")
        path = Path(weights).expanduser()
        if path.suffix not in (".pth", ".pkl"):
            raise WeightsError(f"weights {str(path)!r}: expected .pth or .pkl, got {path.suffix!r}")
        choice = cls(read_config(Path(config).expanduser()), path)
        model = choice.model
        if model.get("META_ARCHITECTURE", "GeneralizedRCNN") != "GeneralizedRCNN" or model.get("MASK_ON") is not True:
            raise ConfigError(
                f"config {config!r} is no Mask R-CNN: expected META_ARCHITECTURE GeneralizedRCNN, MASK_ON True"
            )
        return choice

    @property
    def model(self) -> dict[str, Any]:
        """The section MODEL of the config."""
        section = self.config.get("MODEL", {})
        return section if isinstance(section, dict) else {}

    def classes(self) -> tuple[str, ...]:
        """One name for each output; raises WeightsError where they are not known."""
        heads = self.model.get("ROI_HEADS")
        number = heads.get("NUM_CLASSES", COCO_CLASSES) if isinstance(heads, dict) else COCO_CLASSES
        names = names_beside(self.weights)
        if names is None and number == COCO_CLASSES:
            return tuple(name for name in COCO_NAMES if name)
        if names is None:
            raise WeightsError(
                f"the config has {number} classes; name them, one a line, in {str(names_file(self.weights))!r}"
            )
        if len(names) != number:
            raise WeightsError(f"the config has {number} classes, {str(names_file(self.weights))!r} names {len(names)}")
        return names

    def fingerprint(self) -> dict[str, Any]:
        """JSON; raises WeightsError where the weights cannot be read."""
        # What decides the result, and not where things lie.
        parts = {key: value for key, value in self.config.items() if key in ("MODEL", "INPUT", "TEST", "VERSION")}
        parts["MODEL"] = {key: value for key, value in self.model.items() if key not in ("WEIGHTS", "DEVICE")}
        canonical = json.dumps(parts, sort_keys=True, default=str)
        try:
            weights = digest(self.weights)
        except OSError as error:
            raise WeightsError(f"cannot read weights {str(self.weights)!r}: {error.strerror}") from error
        return {
            "segmenter": "detectron2",
            "version": VERSION,
            "config": hashlib.sha256(canonical.encode()).hexdigest(),
            "weights": weights,
            "classes": list(self.classes()),
        }


def describe(argument: str | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """(classes, fingerprint) without torch or detectron2."""
    choice = Choice.parse(argument)
    return choice.classes(), choice.fingerprint()


def load(argument: str | None, *, device: str) -> Detectron2Segmenter:
    """The network with its weights; WeightsError where detectron2 is not installed, or the weights do not fit."""
    choice = Choice.parse(argument)
    fingerprint = choice.fingerprint()
    if importlib.util.find_spec("detectron2") is None:
        raise WeightsError(f"detectron2 is not installed; it is built by: {BUILD}")
    from instapipe.segmentation.detectron2_model import Detectron2Segmenter, build

    model = build(choice.config, choice.weights, device)
    return Detectron2Segmenter(f"detectron2:{choice.weights}", model, fingerprint)


def read_config(path: Path) -> dict[str, Any]:
    """The YAML `path` with its ``_BASE_`` files merged in, as detectron2 does; raises ConfigError."""
    return _read_config(path, ())


def _read_config(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    where = f"config {str(path)!r}"
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"{where}: only YAML is read (a Python config runs code); expected .yaml, got {path.suffix!r}"
        )
    if path.resolve() in above or len(above) >= MAX_BASES:
        raise ConfigError(f"{where}: its _BASE_ files go round in a circle")
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{where} has more than {MAX_CONFIG_BYTES >> 20} MB")
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {where}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{where} is not plain YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must be a mapping of settings, got {type(content).__name__}")
    bases = content.pop("_BASE_", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        if not isinstance(base, str) or "://" in base:
            raise ConfigError(f"{where}: _BASE_ must be a file of this machine, got {base!r}")
        _merge(merged, _read_config(path.parent / Path(base).expanduser(), (*above, path.resolve())))
    _merge(merged, content)
    return merged


def _merge(into: dict[str, Any], over: dict[str, Any]) -> None:
    """`over` wins; sections are merged."""
    for key, value in over.items():
        below = into.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            _merge(below, value)
        else:
            into[key] = value
