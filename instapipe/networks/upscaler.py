"""Twice as many pixels along a side, or four times: what a generator painted gets detail and a finer outline.

A generator works on windows of a hundred pixels or so, photos show animals of a thousand. What it made is made soft
first, the instance and its matte alike, until it looks as a real instance made soft would; from there a network leads
back to what real instances look like (:mod:`instapipe.training.upscaling`): faces, hooves, an outline with ears. The
form is a small U-Net (Ronneberger et al., MICCAI 2015) of residual blocks without norms (Lim et al., "Enhanced deep
residual networks for single image super-resolution", CVPR workshops 2017).
"""

from __future__ import annotations

import json
import math
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
from instapipe.structures import BoolMask

_KIND = "upscaler"
_WIDEST, _DEEPEST, _SOFTEST, _FARTHEST = 256, 64, 8.0, 32
"""What a file may ask for before its weights are looked at."""
_LEAK = 0.2
_RESIDUE, _DETAIL = 0.3, 0.2
"""Of each block, and of what is added in the end: a deep network without norms learns from the first step on, and does
not throw everything about in it."""
_NOTHING = 0.02
"""So little of an instance in a place has no colour of its own."""
_MARGIN = 8
"""Pixels about an instance that are looked at as well."""
SPARE, MOST = 1.6, 2
"""What is shown is made of so many pixels for one along a side at least, for what becomes of soft pictures is still a
little soft; doubled so often at most, for of still larger instances there were too few to learn from."""


@dataclass(frozen=True, slots=True)
class UpscalerForm:
    """What a file says of itself.

    width: channels.  blocks: residual ones, of two convolutions each, on each of three ways.  soft: how much what it is
    shown is made soft, the deviation of a Gaussian in pixels.  reach: how far outlines may move, in pixels of what
    comes out.
    """

    width: int = 48
    blocks: int = 3
    soft: float = 1.4
    reach: int = 4


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + _RESIDUE * self.second(F.leaky_relu(self.first(x), _LEAK))
        return out


class Upscaler(nn.Module):
    """A soft window and its matte to a window of twice the side. Untrained, it interpolates."""

    def __init__(self, form: UpscalerForm) -> None:
        super().__init__()
        self.form = form
        width = form.width
        self.inwards = nn.Conv2d(4, width, 3, padding=1)
        self.before = _blocks(width, form.blocks)
        self.down = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.coarse = _blocks(2 * width, form.blocks)
        self.back = nn.Conv2d(2 * width, width, 3, padding=1)
        self.after = _blocks(width, form.blocks)
        self.up = nn.Conv2d(width, width, 3, padding=1)
        self.fine = _Block(width)
        self.out = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, image: Tensor, matte: Tensor) -> tuple[Tensor, Tensor]:
        """image: (B, 3, H, W) in [-1, 1], matte: (B, 1, H, W) in [0, 1], both soft (:func:`softly`), H and W even.

        Returns (B, 3, 2 H, 2 W), about [-1, 1], and the matte that is wanted, (B, 1, 2 H, 2 W), of any size:
        :meth:`within` bounds it.
        """
        features = self.before(self.inwards(torch.cat([image, 2 * matte - 1], dim=1)))
        coarse = self.coarse(F.leaky_relu(self.down(features), _LEAK))
        features = self.after(features + self.back(F.interpolate(coarse, scale_factor=2, mode="nearest")))
        features = self.fine(F.leaky_relu(self.up(F.interpolate(features, scale_factor=2, mode="nearest")), _LEAK))
        detail = _DETAIL * self.out(features).float()
        return _enlarged(image) + detail[:, :3], _enlarged(matte) + detail[:, 3:]

    def within(self, wanted: Tensor, matte: Tensor) -> Tensor:
        """`wanted`, bounded: where the soft `matte` (B, 1, H, W) may be, its outline moved by the reach at most."""
        there, reach = _enlarged(matte).clamp(0, 1), self.form.reach
        most, least = _largest(there, reach), -_largest(-there, reach)
        return torch.minimum(torch.maximum(wanted, least), most)

    def anew(self, image: Tensor, matte: Tensor) -> tuple[Tensor, Tensor]:
        """An instance, (B, 3, H, W) in [-1, 1], and its matte, (B, 1, H, W) in [0, 1], as they are: both at twice the
        side, the outline within bounds."""
        soft, thin = softly(image, matte, self.form.soft)
        made, wanted = self(soft, thin)
        return made, self.within(wanted, thin)

    def enlarge(
        self, pixels: NDArray[np.float32], mattes: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """pixels: float32 (h, w, 3) in [0, 255].  mattes: float32 (n, h, w) in [0, 1].  scale: by which they are shown
        larger in the end.

        Returns them f times as large, f 1, 2 or 4 (:func:`doublings`): float32 (f h, f w, 3) and (n, f h, f w).
        """
        if (mattes >= _NOTHING).any():
            for _ in range(doublings(scale)):
                pixels, mattes = self._doubled(pixels, mattes)
        return pixels, mattes

    @torch.inference_mode()
    def _doubled(
        self, pixels: NDArray[np.float32], mattes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        device = self.out.weight.device
        there: BoolMask = np.asarray((mattes >= _NOTHING).any(axis=0))
        rows, columns = _span(np.asarray(there.any(axis=1))), _span(np.asarray(there.any(axis=0)))
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].to(device) / 127.5 - 1
        planes = torch.from_numpy(np.ascontiguousarray(mattes))[:, None].to(device)
        large, fine = _enlarged(image), torch.zeros_like(_enlarged(planes))
        part, shown = image[:, :, rows, columns].expand(len(planes), -1, -1, -1), planes[:, :, rows, columns]
        made, outlines = self.anew(part, shown)
        # Outside an instance nobody has looked at what is painted there, and its soft border shows some of it.
        around, near = softly(made, (outlines >= 0.5).float(), 1.0)
        made = torch.where(outlines >= 0.5, made, torch.where(near > _NOTHING, around, _enlarged(part)))
        weights = outlines + 1e-3
        inner = tuple(slice(2 * each.start, 2 * each.stop) for each in (rows, columns))
        large[:, :, inner[0], inner[1]] = (weights * made).sum(dim=0, keepdim=True) / weights.sum(dim=0, keepdim=True)
        fine[:, :, inner[0], inner[1]] = outlines
        painted = ((large[0].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0)
        return np.ascontiguousarray(painted.cpu().numpy()), np.ascontiguousarray(fine[:, 0].cpu().numpy())

    def write(self, path: Path) -> None:
        """One safetensors file in 8 bits, whole or not at all. Raises OutputError."""
        # In one value: several would be written in any order.
        facts = {_KIND: json.dumps(asdict(self.form))}
        write_atomically(path, save(packed(self.state_dict()), metadata=facts))


def doublings(scale: float) -> int:
    """How often what is shown so many times larger than it was made is doubled."""
    return min(MOST, max(0, math.ceil(math.log2(SPARE * scale))))


def softly(image: Tensor, matte: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """An instance, (B, 3, H, W) in [-1, 1], and its matte, (B, 1, H, W) in [0, 1], as soft as a Gaussian makes them.

    Its colours do not mix with what is around it: they go on outside, where there is some of it near.
    """
    thin = _blurred(matte, deviation)
    return _blurred(image * matte, deviation) / thin.clamp(min=_NOTHING), thin


def _blurred(image: Tensor, deviation: float) -> Tensor:
    reach = max(1, round(3 * deviation))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / deviation) ** 2)
    line = (line / line.sum()).to(image.dtype).expand(image.shape[1], 1, -1)
    padded = F.pad(image, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, line[..., None], groups=image.shape[1]), line[:, :, None], groups=image.shape[1])


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(count)))


def _enlarged(plane: Tensor) -> Tensor:
    return F.interpolate(plane.float(), scale_factor=2, mode="bicubic", align_corners=False)


def _largest(plane: Tensor, reach: int) -> Tensor:
    return F.max_pool2d(plane, 2 * reach + 1, stride=1, padding=reach)


def _span(there: NDArray[np.bool_]) -> slice:
    """From the first to the last in a line, with a margin; from an even place to an even one, or the end."""
    places = np.flatnonzero(there)
    first, last = max(0, int(places[0]) - _MARGIN), int(places[-1]) + 1 + _MARGIN
    return slice(first - first % 2, min(len(there), last + last % 2))


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
        if not (
            1 <= form.width <= _WIDEST and 0 <= form.blocks <= _DEEPEST
            and 0 < form.soft <= _SOFTEST and 0 <= form.reach <= _FARTHEST
        ):  # fmt: skip
            raise ValueError(f"{form}")
        upscaler = Upscaler(form)
        upscaler.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{str(path)!r} is not an upscaler's file (instapipe train-upscaler writes them): {reason}"
        ) from error
    return upscaler.eval().requires_grad_(False)
