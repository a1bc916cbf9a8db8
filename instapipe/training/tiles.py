"""Pictures of what a run makes of some of its windows, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instapipe.config import CompositingConfig
from instapipe.networks.generator import SetGenerator, soften
from instapipe.structures import Pixels
from instapipe.training.pairs import Batch, Windows, translated

_ACROSS, _SIDE, _SHOWN = 8, 192, 24


def spread(numbers: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Some of `numbers`, from the first to the last."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return np.asarray(numbers[places])


@torch.inference_mode()
def translations(
    network: SetGenerator,
    windows: Windows,
    numbers: NDArray[np.intp],
    compositing: CompositingConfig,
    device: torch.device,
) -> Pixels:
    """What `network` makes of some of the windows with these `numbers`: uint8 (H, W, 3)."""
    images = []
    for number in spread(numbers, _SHOWN):
        batch = Batch.of(windows, [number], device)
        raw, matte = translated(network, batch)
        soft = soften(matte, compositing.soften)
        images.append((soft * raw + (1 - soft) * batch.behind)[0])
    return tiled(images)


def tiled(images: Sequence[Tensor], across: int = _ACROSS, side: int = _SIDE) -> Pixels:
    """So many in a row, (3, S, S) each in [-1, 1], shown with `side`: uint8 (H, W, 3)."""
    tiles = [_tile(image, side) for image in images]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % across)
    return np.vstack([np.hstack(tiles[k : k + across]) for k in range(0, len(tiles), across)])


def _tile(image: Tensor, side: int) -> Pixels:
    pixels = np.rint((image.permute(1, 2, 0).cpu().numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return cast(Pixels, cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC))
