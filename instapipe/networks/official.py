"""The authors' published checkpoints: state dicts, read as data only, converted key by key."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from instapipe.config import GeneratorConfig
from instapipe.errors import WeightsError

_ENCODER = {"1": "stem.0", "4": "down1.0", "7": "down2.0"}
_DECODER = {"0": "up1.0", "3": "up2.0", "7": "out"}
_FIRST_BLOCK = 10
_NAMES = {"img": "image", "seg": "mask"}
_KEY = re.compile(r"(encoder|decoder)_(img|seg)\.(\d+)(?:\.conv_block\.(1|5))?\.(weight|bias)")


def generator_from_official(state: dict[str, Tensor]) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    """The form and the renamed state dict of a `net_G` checkpoint; width and blocks are read from its shapes.

    Raises WeightsError where it is no set generator of the authors' code.
    """
    out: dict[str, Tensor] = {}
    blocks = 0
    for key, value in state.items():
        match = _KEY.fullmatch(key.removeprefix("module."))
        if match is None:
            if key.endswith(("running_mean", "running_var", "num_batches_tracked")):
                continue  # instance norm of old torch versions kept statistics that it did not use
            raise WeightsError(f"unexpected key {key!r}: no set generator of the authors' code")
        part, branch, index, conv, kind = match.groups()
        if conv is not None:
            block = int(index) - _FIRST_BLOCK
            blocks = max(blocks, block + 1)
            name = f"blocks.{block}.conv{1 if conv == '1' else 2}"
        else:
            table = _ENCODER if part == "encoder" else _DECODER
            if index not in table:
                raise WeightsError(f"unexpected key {key!r}: no set generator of the authors' code")
            name = table[index]
        out[f"{part}_{_NAMES[branch]}.{name}.{kind}"] = value.float()
    stem = out.get("encoder_image.stem.0.weight")
    if stem is None:
        raise WeightsError("no encoder_img.1.weight in the state dict: no set generator of the authors' code")
    return GeneratorConfig(form="paper", width=stem.shape[0], encoder_blocks=blocks), out


def discriminator_from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The renamed state dict of a `net_D` checkpoint."""
    names = {
        "feature_img": "features_image",
        "feature_seg": "features_mask",
        "classifier": "classifier",
        "weight_bar": "weight",
        "weight_u": "spectral_u",
        "weight_v": "spectral_v",
        "bias": "bias",
    }
    out = {}
    for key, value in state.items():
        part, index, _, kind = key.removeprefix("module.").split(".")
        out[f"{names[part]}.{index}.{names[kind]}"] = value.float()
    return out


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A `.pth` of tensors only. Raises WeightsError for anything else: it is never unpickled into objects."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"no file {str(path)!r}") from error
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"cannot load {str(path)!r} as data only: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{str(path)!r} is no state dict: expected a mapping of names to tensors")
    return dict(state)
