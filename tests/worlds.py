"""A small world: photos of white and brown blobs on grass, their masks, and tiny generators with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.config import CompositingConfig, GeneratorConfig, TranslatorCard

Blob = tuple[int, int, int, int]
"""Centre x, y and radii x, y."""

SHEEP: tuple[Blob, ...] = ((40, 40, 22, 16), (95, 60, 14, 18), (70, 85, 9, 6))
HORSE: Blob = (120, 20, 12, 9)
SIZE = (100, 140)


def ellipse(size: tuple[int, int], blob: Blob) -> NDArray[np.bool_]:
    """Bool (H, W)."""
    x, y, radius_x, radius_y = blob
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (x, y), (radius_x, radius_y), 0, 0, 360, 1, -1)
    return mask.astype(np.bool_)


def photo_pixels(
    sheep: tuple[Blob, ...] = SHEEP, horse: Blob | None = HORSE, size: tuple[int, int] = SIZE, seed: int = 0
) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB: sheep white, the horse brown, grass green and noisy."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 40, (*size, 3)).astype(np.uint8)
    pixels[:, :, 1] += 90
    for blob in sheep:
        pixels[ellipse(size, blob)] = (235, 235, 230)
    if horse is not None:
        pixels[ellipse(size, horse)] = (130, 70, 30)
    return pixels


def write_photo(path: Path, pixels: NDArray[np.uint8] | None = None) -> Path:
    """As PNG or whatever the ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(photo_pixels() if pixels is None else pixels, cv2.COLOR_RGB2BGR))
    return path


def write_masks(folder: Path, stem: str, blobs: tuple[Blob, ...] = SHEEP, size: tuple[int, int] = SIZE) -> Path:
    """One PNG a blob, `<stem>_<i>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, blob in enumerate(blobs):
        cv2.imwrite(str(folder / f"{stem}_{number}.png"), ellipse(size, blob).astype(np.uint8) * 255)
    return folder


def write_weights(
    folder: Path, mode: str = "matte", size: tuple[int, int] | None = (32, 32), seed: int = 0, per_step: int = 1
) -> Path:
    """A sheep2giraffe translator with random weights, of some thousand parameters."""
    import torch

    from instapipe.networks.generator import SetGenerator
    from instapipe.networks.weights import save_translator

    config = GeneratorConfig(form="resize", width=4, encoder_blocks=1, decoder_blocks=1)
    states = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for direction in ("source_to_target", "target_to_source"):
            states[direction] = SetGenerator(config).state_dict()
    card = TranslatorCard(
        name=folder.name,
        source="sheep",
        target="giraffe",
        generator=config,
        compositing=CompositingConfig(mode=mode),
        size=size,
        instances_per_step=per_step,
        directions={},
    )
    save_translator(folder, card, states)
    return folder


def copy_weights(weights: Path, folder: Path, **fields: Any) -> Path:
    """A copy of `weights` in `folder`, with these fields of its card changed."""
    shutil.copytree(weights, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **fields}))
    return folder
