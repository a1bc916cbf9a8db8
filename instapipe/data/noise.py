"""Masks made worse for training, the way that a segmenter was measured to be wrong (`instapipe data noise`).

What a generator is given is noisy; what should come back, and what is shown to the discriminators as real, is not: they
learn to mend. No torch in the shapes; the batch is one of tensors.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from pydantic import Field, ValidationError

from instapipe.config import Strict, explain
from instapipe.data.samples import Batch
from instapipe.errors import ConfigError
from instapipe.resources import configs_root
from instapipe.structures import BoolMask

NONE = "none"
HOLE = 0.12
"""Radius of one hole, as a share of the square root of the mask's area."""


class MaskNoise(Strict):
    """The errors of a segmenter, measured.

    instances: how many the rates come from.  drop: share of them that were not found.  merge: share that were found in
    one mask with another.  offset: quantiles at equal steps, least to most, of how far the outline lies outside the
    right one (negative: inside), over the square root of the right area.  holes: the same of the share of the right
    area that is missing in one piece.
    """

    format: Literal[1] = 1
    segmenter: str
    labels: tuple[str, ...]
    instances: int = Field(ge=1)
    drop: float = Field(ge=0, le=1)
    merge: float = Field(ge=0, le=1)
    offset: tuple[float, ...] = Field(min_length=2)
    holes: tuple[float, ...] = Field(min_length=2)

    def worsen(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """`batch` with, as `noisy`, what generators are given of it: see :class:`Batch`. The order stays."""
        given, wanted = -torch.ones_like(batch.masks), -torch.ones_like(batch.masks)
        valid = torch.zeros_like(batch.valid)
        for index in range(len(batch.masks)):
            clean = [mask.numpy() > 0 for mask in batch.masks[index][batch.valid[index]]]
            pairs = self._pairs(clean, rng)
            for place, (made, right) in enumerate(pairs):
                given[index, place] = torch.from_numpy(made).to(given.dtype) * 2 - 1
                wanted[index, place] = torch.from_numpy(right).to(wanted.dtype) * 2 - 1
            valid[index, : len(pairs)] = True
        return replace(batch, noisy=Batch(batch.image, given, valid, wanted=wanted))

    def _pairs(self, clean: list[BoolMask], rng: np.random.Generator) -> list[tuple[BoolMask, BoolMask]]:
        """(noisy, right) of what is left of the instances; two that are merged are one in both."""
        masks = {i: mask for i, mask in enumerate(clean) if rng.random() >= self.drop}
        for i in list(masks):
            others = [k for k in masks if k != i]
            if others and rng.random() < self.merge:
                into = min(others, key=lambda k: math.dist(_middle(masks[k]), _middle(masks[i])))
                masks[into] = masks[into] | masks.pop(i)
        return [(self._reshaped(mask, rng), mask) for mask in masks.values()]

    def _reshaped(self, mask: BoolMask, rng: np.random.Generator) -> BoolMask:
        extent = math.sqrt(mask.sum())
        # The radius is rounded up or down at random: small masks have errors of less than a pixel on average.
        offset = math.floor(_draw(self.offset, rng) * extent + rng.random())
        share = _draw(self.holes, rng)
        out = moved_outline(mask, offset)
        if share > math.pi * HOLE**2 / 2:  # less than half a disc is nearer to none
            out = holed(out, share, rng)
        return out if out.any() else mask  # the rate of what is not found at all is `drop`


def read_noise(name: str) -> MaskNoise:
    """A JSON file, or a bundled one by its name (`configs/noise/`). Raises ConfigError, which lists those."""
    folder = configs_root() / "noise"
    path = Path(name) if Path(name).is_file() else folder / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.json"))) or "none"
        raise ConfigError(f"no mask noise {name!r}: neither a file of `instapipe data noise` nor one of: {known}")
    try:
        return MaskNoise.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ConfigError(explain(error, f"mask noise {str(path)!r}")) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read mask noise {str(path)!r}: {error}") from error


def moved_outline(mask: BoolMask, offset: int) -> BoolMask:
    """`mask` grown by `offset` pixels, or eroded where it is negative; what lies outside the picture is not mask."""
    if offset == 0:
        return mask
    side = 2 * abs(offset) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if offset > 0 else cv2.erode
    dense = np.ascontiguousarray(mask).astype(np.uint8)
    return np.asarray(change(dense, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0, dtype=np.bool_)


def holed(mask: BoolMask, share: float, rng: np.random.Generator) -> BoolMask:
    """`mask` with discs cut out until `share` of it is gone, or a little more."""
    dense = mask.astype(np.uint8)
    area = int(dense.sum())
    radius = max(1, round(HOLE * math.sqrt(area)))
    wanted = max(1.0, area * (1 - share))
    rows, columns = np.nonzero(dense)
    while rows.size and int(dense.sum()) > wanted:
        at = int(rng.integers(rows.size))
        cv2.circle(dense, (int(columns[at]), int(rows[at])), radius, 0, -1)
    return np.asarray(dense > 0, dtype=np.bool_)


def _draw(quantiles: tuple[float, ...], rng: np.random.Generator) -> float:
    return float(np.interp(rng.random(), np.linspace(0, 1, len(quantiles)), quantiles))


def _middle(mask: BoolMask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())
