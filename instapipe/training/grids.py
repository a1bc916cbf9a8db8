"""Sample grids: held-out photos, one row each, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from instapipe.config import CompositingConfig
from instapipe.data.samples import Batch
from instapipe.networks.generator import SetGenerator
from instapipe.structures import Pixels
from instapipe.translation.step import translate_in_turn, translate_step

COLUMNS = ("source", "masks", "composite", "returned masks", "raw output", "reconstruction")
_LABEL = 16
_COLOURS = np.array(
    [(230, 80, 60), (60, 140, 230), (70, 190, 90), (230, 190, 50), (160, 90, 210), (60, 200, 200)], np.float32
)


@torch.no_grad()
def grid(
    there: SetGenerator,
    back: SetGenerator,
    batch: Batch,
    compositing: CompositingConfig,
    *,
    per_step: int,
    at_once: int,
) -> Pixels:
    """The whole sequential translation of each sample, (rows of) the columns of :data:`COLUMNS`, uint8 RGB.

    at_once: how many samples go through the networks together.
    """
    rows = []
    for first in range(0, len(batch.image), at_once):
        part = batch.part(slice(first, first + at_once))
        rows += _rows(there, back, part, compositing, per_step)
    return np.concatenate([_header(batch.image.shape[3]), *rows])


def _rows(
    there: SetGenerator, back: SetGenerator, batch: Batch, compositing: CompositingConfig, per_step: int
) -> list[Pixels]:
    steps = list(translate_in_turn(there, batch.image, batch.masks, batch.valid, per_step, compositing))
    first, last = steps[0], steps[-1]
    first_back = translate_step(back, first.image, first.masks, batch.valid[:, :per_step], compositing)
    columns = [
        _pixels(batch.image),
        _colour(batch.masks, batch.valid),
        _pixels(last.image),
        _colour(torch.cat([step.masks for step in steps], dim=1), batch.valid),
        _pixels(last.raw),
        _pixels(first_back.image),
    ]
    return [np.concatenate(list(row), axis=1) for row in zip(*columns, strict=True)]


def _pixels(image: Tensor) -> Pixels:
    """(B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3)."""
    out = ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return out.permute(0, 2, 3, 1).cpu().numpy()


def _colour(masks: Tensor, valid: Tensor) -> Pixels:
    """Each mask in its own colour, softly, on black: uint8 (B, H, W, 3)."""
    mattes = ((masks.float() + 1) / 2 * valid[:, :, None, None]).clamp(0, 1).cpu().numpy()
    out = np.zeros((*mattes.shape[:1], *mattes.shape[2:], 3), np.float32)
    for n in range(mattes.shape[1]):
        share = mattes[:, n, :, :, None]
        out = out * (1 - share) + share * _COLOURS[n % len(_COLOURS)]
    return out.round().astype(np.uint8)


def _header(side: int) -> Pixels:
    strip = np.full((_LABEL, side * len(COLUMNS), 3), 255, np.uint8)
    for index, name in enumerate(COLUMNS):
        _write(strip, name, (index * side + 2, _LABEL - 5))
    return strip


def _write(strip: Pixels, text: str, place: Sequence[int]) -> None:
    cv2.putText(strip, text, (place[0], place[1]), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0), 1, cv2.LINE_AA)
