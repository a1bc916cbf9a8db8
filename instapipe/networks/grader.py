"""A grader: what people who looked at translated animals would say of another one, by its outline alone.

Features that a frozen ImageNet network gives of the matte, white on black, and of its lower half, enlarged, averaged
over 4 x 4 cells a scale; how many legs are counted at heights between its feet and its belly; and one weight for each.
Whether legs run together, end in the air or are one too many is seen in the outline: it agrees with people better than
the same features of the painted animal do (docs/training-log.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
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
from instapipe.imaging.facing import faces_left
from instapipe.networks.backbone import Features, pretrained_features
from instapipe.networks.cards import attached
from instapipe.networks.eight_bits import packed, unpacked
from instapipe.networks.projected import FrozenBackbone

LEVELS = (2, 3)
"""At 1/8 and 1/16 of the side: coarser ones add nothing, and would make a file of 6 MB out of one of 0.7."""
CELLS = 4
"""Features of a scale are averaged over so many cells a side."""
GRADES = (0, 1, 2)
"""What people say: broken, doubtful, sound."""
_TRUNK = "trunk."
_RIM = 0.06
"""Share of the side that an outline leaves free all around."""
_LEGS, _BELOW = 0.5, 0.04
"""The lower part of an outline that is looked at more closely, and the share of the side that stays free below it."""
BANDS = ((0.02, 0.08), (0.08, 0.16), (0.16, 0.24), (0.24, 0.32))
"""Heights above the feet, shares of the animal's own, between which legs are counted, at :data:`_ROWS` of each."""
MOST_LEGS = 6
"""More are as bad."""
_ROWS = 6


@dataclass(frozen=True, slots=True)
class GraderForm:
    """What a file says of itself. side: of the square, in pixels, at which mattes are looked at.

    looks: how many pictures of each; see :func:`looks`.  counted: whether legs are counted as well; see :func:`legs`.
    outputs: how many graded ones it learnt from.
    agreement: Spearman's correlation with grades of photos that it did not learn from.
    """

    backbone: str = "tf_efficientnet_lite0"
    side: int = 128
    looks: int = 2
    counted: bool = True
    outputs: int = 0
    agreement: float = 0.0


def outline(matte: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A matte, float32 (h, w) in [0, 1], as graders look at it: float32 (side, side) in [0, 1].

    The animal faces right and fills the square but for a rim, wherever in its window it stood and however large.
    """
    rows, columns = (np.flatnonzero((matte >= 0.5).any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        return np.zeros((side, side), np.float32)
    if faces_left(matte >= 0.5):
        matte, columns = matte[:, ::-1], matte.shape[1] - 1 - columns[::-1]
    scale = side * (1 - 2 * _RIM) / (max(np.ptp(rows), np.ptp(columns)) + 1)
    across, down = (side / 2 - scale * (found[0] + found[-1] + 1) / 2 for found in (columns, rows))
    # Centres of pixels lie at halves.
    place = np.array([[scale, 0, across + (scale - 1) / 2], [0, scale, down + (scale - 1) / 2]])
    shown = cv2.warpAffine(np.ascontiguousarray(matte), place, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(shown, dtype=np.float32)


def looks(plane: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """What is looked at of an :func:`outline`, float32 (side, side): it alone, or its legs in large as well.

    float32 (count, side, side), count 1 or 2.
    """
    rows = np.flatnonzero((plane >= 0.5).any(axis=1))
    if count == 1 or rows.size == 0:
        return np.repeat(plane[None], count, axis=0)
    side, bottom = plane.shape[0], float(rows[-1] + 1)
    high = _LEGS * (bottom - rows[0])
    columns = np.flatnonzero((plane[int(bottom - high) : rows[-1] + 1] >= 0.5).any(axis=0))
    scale = side * (1 - 2 * _BELOW) / max(high, float(np.ptp(columns) + 1))
    across = side / 2 - scale * (columns[0] + columns[-1] + 1) / 2
    place = np.array([[scale, 0, across], [0, scale, side * (1 - _BELOW) - scale * bottom]])
    lower = cv2.warpAffine(plane, place, (side, side), flags=cv2.INTER_LINEAR)
    return np.stack([plane, lower]).astype(np.float32, copy=False)


def legs(planes: Tensor) -> Tensor:
    """How many legs each outline has at several heights above its feet.

    planes: (B, side, side) in [0, 1], see :func:`outline`.
    float32 (B, BANDS x MOST_LEGS): of the rows that are looked at in each of :data:`BANDS` the shares in one piece,
    two, ... :data:`MOST_LEGS` or more; zeros where there is no animal.
    """
    inside = planes >= 0.5
    rows = inside.any(dim=2)
    top = rows.float().argmax(dim=1)
    bottom = planes.shape[1] - rows.flip(1).float().argmax(dim=1)  # just below the feet
    begins = inside & ~F.pad(inside, (1, 0))[:, :, :-1]
    pieces = begins.sum(dim=2).clamp(max=MOST_LEGS)
    shares = []
    for low, high in BANDS:
        heights = low + (high - low) * (torch.arange(_ROWS, device=planes.device) + 0.5) / _ROWS
        # The pixel's row that holds so high a point.
        chosen = (bottom[:, None] - heights * (bottom - top)[:, None]).long().clamp(0, planes.shape[1] - 1)
        counts = F.one_hot(pieces.gather(1, chosen), MOST_LEGS + 1)[:, :, 1:]
        shares.append(counts.float().mean(dim=1))
    return torch.cat(shares, dim=1)


class Outlines(nn.Module):
    """Outlines to features. No parameter learns."""

    def __init__(self, form: GraderForm, features: Features) -> None:
        """features: of :data:`LEVELS`, not trained."""
        super().__init__()
        # The stages behind the last level that is asked for; timm computes them all the same.
        blocks = cast(nn.Sequential, features.net.blocks)
        features.net.blocks = blocks[: LEVELS[-1] + 2]
        self.sizes = form.looks * [channels * CELLS**2 for channels in features.channels]
        if form.counted:
            self.sizes.append(len(BANDS) * MOST_LEGS)
        self.side, self.looks, self.counted = form.side, form.looks, form.counted
        self.trunk = FrozenBackbone(features, form.side)

    @classmethod
    def pretrained(cls, form: GraderForm) -> Outlines:
        """With the ImageNet weights, rounded as a file keeps them: what is learnt on top must fit them.

        Raises WeightsError where they are not installed.
        """
        outlines = cls(form, pretrained_features(form.backbone, LEVELS))
        outlines.trunk.load_state_dict(unpacked(packed(outlines.trunk.state_dict())))
        return outlines

    def forward(self, outlines: Tensor) -> Tensor:
        """(B, looks, side, side) in [0, 1], see :func:`looks` -> float32 (B, sum of `sizes`)."""
        scales = self.trunk((2 * outlines.flatten(0, 1)[:, None] - 1).expand(-1, 3, -1, -1))
        cells = [F.adaptive_avg_pool2d(scale.float(), CELLS).flatten(1) for scale in scales]
        seen = torch.cat(cells, dim=1).reshape(len(outlines), -1)
        return torch.cat([seen, legs(outlines[:, 0])], dim=1) if self.counted else seen


class Grader(nn.Module):
    """Outlines to grades; see :data:`GRADES`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, form: GraderForm, outlines: Outlines, weight: Tensor, bias: Tensor) -> None:
        """weight: float (d,), one for each feature of `outlines`.  bias: float ().

        Raises ValueError where they do not fit each other.
        """
        super().__init__()
        if weight.shape != (sum(outlines.sizes),) or bias.shape != ():
            raise ValueError(
                f"expected {sum(outlines.sizes)} weights and a bias, got {tuple(weight.shape)} and {tuple(bias.shape)}"
            )
        self.form = form
        self.outlines = outlines
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, outlines: Tensor) -> Tensor:
        """(B, looks, side, side) in [0, 1], see :func:`looks` -> (B,): 0 broken to 2 sound, and what lies beyond."""
        grades: Tensor = self.outlines(outlines) @ self.weight + self.bias
        return grades

    @torch.inference_mode()
    def grade(self, mattes: NDArray[np.float32]) -> float:
        """The grade of the worst of some mattes, float32 (n, h, w) in [0, 1]."""
        shown = np.stack([looks(outline(matte, self.form.side), self.form.looks) for matte in mattes])
        return float(self(torch.from_numpy(shown).to(self.weight.device)).min())

    def write(self, path: Path) -> None:
        """One safetensors file, the trunk in 8 bits, whole or not at all. Raises OutputError."""
        form = self.form
        facts = {
            "kind": "grader",
            "backbone": form.backbone,
            "side": str(form.side),
            "looks": str(form.looks),
            "counted": str(int(form.counted)),
            "outputs": str(form.outputs),
            "agreement": f"{form.agreement:.4f}",
        }
        tensors = {"weight": self.weight.detach().cpu().contiguous(), "bias": self.bias.detach().cpu()}
        tensors.update(packed({_TRUNK + name: value for name, value in self.outlines.trunk.state_dict().items()}))
        write_atomically(path, save(tensors, metadata=facts))


def load_grader(entry: AttachedFile, folder: Path, device: str = "cpu") -> Grader:
    """The grader of a translator's card. Raises WeightsError where the file is missing, damaged, or another one."""
    return read_grader(attached(entry, folder)).to(device)


def read_grader(path: Path) -> Grader:
    """What :meth:`Grader.write` wrote, in eval mode. Raises WeightsError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
            tensors = unpacked({name: file.get_tensor(name) for name in list(file.keys())})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"no grader in {str(path)!r}: {' '.join(str(error).split())}") from error
    try:
        form = GraderForm(
            facts["backbone"],
            int(facts["side"]),
            int(facts.get("looks", "1")),
            facts.get("counted") == "1",
            int(facts["outputs"]),
            float(facts["agreement"]),
        )
        outlines = Outlines(form, Features(form.backbone, LEVELS))
        trunk = {name.removeprefix(_TRUNK): value for name, value in tensors.items() if name.startswith(_TRUNK)}
        outlines.trunk.load_state_dict(trunk)
        return Grader(form, outlines, tensors["weight"], tensors["bias"]).eval().requires_grad_(False)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{str(path)!r} is not a grader's file (instapipe grade fit writes them): {reason}"
        ) from error
