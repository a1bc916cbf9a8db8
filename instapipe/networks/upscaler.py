"""Twice as many pixels: what a generator painted gets the detail that enlarging it lacks.

A generator works on windows of a hundred pixels or so, photos show animals of a thousand. The form is that of Lim et
al., "Enhanced deep residual networks for single image super-resolution" (CVPR workshops 2017), small; what is learnt is
what is missing after cubic interpolation (:mod:`instapipe.training.upscaling`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from instapipe.config import AttachedFile
from instapipe.errors import WeightsError
from instapipe.imaging import write_atomically
from instapipe.networks.cards import attached
from instapipe.networks.eight_bits import packed, unpacked

_KIND = "upscaler"
_WIDEST, _DEEPEST = 256, 64
"""What a file may ask for before its weights are looked at."""
_LEAK = 0.2
_RESIDUE = 0.3
"""Of each block, so that a deep network without norms learns from the first step on."""
WORTH = 1.25
"""What is to be shown so many times larger is doubled, once: doubled again, edges turned into hatching, and there was
nothing real to learn that from."""


@dataclass(frozen=True, slots=True)
class UpscalerForm:
    """What a file says of itself. width: channels.  blocks: residual ones, of two convolutions each."""

    width: int = 32
    blocks: int = 7


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + _RESIDUE * self.second(F.leaky_relu(self.first(x), _LEAK))
        return out


class Upscaler(nn.Module):
    """A window and its matte to a window of twice the side. Untrained, it interpolates."""

    def __init__(self, form: UpscalerForm) -> None:
        super().__init__()
        self.form = form
        self.inwards = nn.Conv2d(4, form.width, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(form.width) for _ in range(form.blocks)))
        self.up = nn.Conv2d(form.width, form.width, 3, padding=1)
        self.out = nn.Conv2d(form.width, 3, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, image: Tensor, matte: Tensor) -> Tensor:
        """image: (B, 3, H, W) in [-1, 1], matte: (B, 1, H, W) in [0, 1] -> (B, 3, 2 H, 2 W), about [-1, 1]."""
        features = self.inwards(torch.cat([image, 2 * matte - 1], dim=1))
        features = features + self.blocks(features)
        features = F.leaky_relu(self.up(F.interpolate(features, scale_factor=2, mode="nearest")), _LEAK)
        detail: Tensor = self.out(features)
        return F.interpolate(image, scale_factor=2, mode="bicubic", align_corners=False).to(detail.dtype) + detail

    @torch.inference_mode()
    def enlarge(self, pixels: NDArray[np.float32], matte: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
        """pixels: float32 (h, w, 3) in [0, 255].  matte: float32 (h, w) in [0, 1].  scale: by which they are shown
        larger in the end.

        Returns them as they are or, where it is worth it, twice as large: float32 (2 h, 2 w, 3) in [0, 255].
        """
        if scale < WORTH:
            return pixels
        device = self.out.weight.device
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].to(device) / 127.5 - 1
        plane = torch.from_numpy(np.ascontiguousarray(matte))[None, None].to(device)
        large = self(image, plane).clamp(-1, 1)[0]
        return np.ascontiguousarray(((large + 1) * 127.5).permute(1, 2, 0).cpu().numpy())

    def write(self, path: Path) -> None:
        """One safetensors file in 8 bits, whole or not at all. Raises OutputError."""
        # In one value: several would be written in any order.
        facts = {_KIND: json.dumps(asdict(self.form))}
        write_atomically(path, save(packed(self.state_dict()), metadata=facts))


def load_upscaler(entry: AttachedFile, folder: Path, device: str = "cpu") -> Upscaler:
    """The upscaler of a translator's card. Raises WeightsError where the file is missing, damaged, or another one."""
    return read_upscaler(attached(entry, folder)).to(device)


def read_upscaler(path: Path) -> Upscaler:
    """What :meth:`Upscaler.write` wrote, in eval mode. Raises WeightsError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
            state = unpacked({name: file.get_tensor(name) for name in list(file.keys())})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"no upscaler in {str(path)!r}: {' '.join(str(error).split())}") from error
    try:
        form = UpscalerForm(**json.loads(facts[_KIND]))
        if not (1 <= form.width <= _WIDEST and 0 <= form.blocks <= _DEEPEST):
            raise ValueError(f"{form.width} channels and {form.blocks} blocks")
        upscaler = Upscaler(form)
        upscaler.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{str(path)!r} is not an upscaler's file (instapipe train-upscaler writes them): {reason}"
        ) from error
    return upscaler.eval().requires_grad_(False)
