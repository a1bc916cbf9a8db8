"""A segmenter of a few layers that learns bars from photos and masks, and makes errors of its own.

For each pixel it says whether it shows a bar and where that bar's centre lies; pixels that point to one place are one
instance. So it merges bars that are close, misses some that others cover, and its outlines are rough. What another bar
covers is not in its masks, unlike in the masks it learns from.
"""

from __future__ import annotations

from collections.abc import Callable

import bar_world as world
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from bar_learning import LEARNT, instances, scene_seed
from numpy.typing import NDArray
from torch import nn

from instapipe.data.noise import MaskNoise
from instapipe.evaluation.mask_errors import mask_errors

STEPS, BATCH, WIDTH = 600, 16, 16
LEAST_VOTES = 4.0
LEAST_SIZE = min(world.WIDTHS) ** 2 * 3 // 2
"""Half of the smallest bar: what is smaller is refused, as the gate of `instapipe train` does by area."""
REACH = 4.0
"""Pixels from where it points to a centre that a pixel still belongs to."""


def cross_fitted(seed: int, steps: int = STEPS) -> tuple[Callable[..., world.Masks], Callable[..., world.Masks]]:
    """Two segmenters, of the even and of the odd photos of both domains of `bar_learning.domains(seed=seed)`."""
    return fit(seed, 0, steps), fit(seed, 1, steps)


def fit(seed: int, fold: int, steps: int = STEPS) -> Callable[[NDArray[np.uint8]], world.Masks]:
    """Learn from the photos whose number is `fold` modulo 2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2 * seed + fold)
        net = nn.Sequential(
            nn.Conv2d(3, WIDTH, 5, padding=2), nn.ReLU(),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1), nn.ReLU(),
            *(part for d in (1, 2, 4) for part in (nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, 1, d, d), nn.ReLU())),
            nn.Conv2d(2 * WIDTH, 12, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip
        examples = [_example(seed, side, n) for side in (0, 1) for n in range(fold, LEARNT, 2)]
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = 3e-3 * (1 - step / steps)
            chosen = torch.randint(len(examples), (BATCH,)).tolist()
            photo, shown, centre = (torch.stack([examples[i][part] for i in chosen]) for part in range(3))
            out = net(photo)
            loss = F.binary_cross_entropy_with_logits(out[:, :1], shown)
            loss = loss + 0.2 * (shown * (out[:, 1:] - centre).abs()).sum() / shown.sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return lambda photo: _segment(net, photo)


def _example(seed: int, side: int, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Photo (3, S, S), where bars are (1, S, S), and (2, S, S) the way to the centre of the one that is seen."""
    scene = world.scene(scene_seed(seed, side, number))
    lying = side == 0
    centre = np.zeros((2, world.SIDE, world.SIDE), np.float32)
    rows, columns = np.mgrid[: world.SIDE, : world.SIDE]
    for bar, mask in zip(scene.bars, scene.masks(lying), strict=True):
        centre[0][mask], centre[1][mask] = (bar.y - rows)[mask], (bar.x - columns)[mask]
    shown = scene.masks(lying).any(axis=0, keepdims=True).astype(np.float32)
    return _tensor(scene.photo(lying)), torch.from_numpy(shown), torch.from_numpy(centre)


def _segment(net: nn.Module, photo: NDArray[np.uint8]) -> world.Masks:
    with torch.no_grad():
        out = net(_tensor(photo)[None])[0].numpy()
    rows, columns = np.nonzero(out[0] > 0)
    points = np.stack([rows + out[1, rows, columns], columns + out[2, rows, columns]], axis=1)
    votes = np.zeros((world.SIDE, world.SIDE), np.float32)
    for y, x in np.rint(points).astype(int):
        if 0 <= y < world.SIDE and 0 <= x < world.SIDE:
            votes[y, x] += 1
    votes = cv2.GaussianBlur(votes, (5, 5), 1.0) * 6.28
    peaks: list[tuple[int, int]] = []
    while votes.max() > LEAST_VOTES and len(peaks) < 2 * world.MOST:
        y, x = (int(v) for v in np.unravel_index(int(votes.argmax()), votes.shape))
        peaks.append((y, x))
        cv2.circle(votes, (x, y), 3, 0, -1)
    masks = np.zeros((len(peaks), world.SIDE, world.SIDE), dtype=np.bool_)
    if peaks and len(points):
        away = np.linalg.norm(points[:, None] - np.array(peaks)[None], axis=2)
        nearest = away.argmin(axis=1)
        for index in range(len(peaks)):
            own = (nearest == index) & (away[:, index] <= REACH)
            masks[index, rows[own], columns[own]] = True
    return masks[masks.sum(axis=(1, 2)) >= LEAST_SIZE]


def _tensor(photo: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(photo.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1


def measured(segments: tuple[Callable[..., world.Masks], Callable[..., world.Masks]], seed: int) -> MaskNoise:
    """The errors of cross-fitted segmenters, as `instapipe data noise` measures them, on the photos to learn from."""
    pairs = []
    for side, lying in enumerate((True, False)):
        for number in range(LEARNT):
            scene = world.scene(scene_seed(seed, side, number))
            made = segments[1 - number % 2](scene.photo(lying))
            pairs.append((instances(scene.masks(lying)), instances(made)))
    return mask_errors(pairs, "bars")


def quality(segment: Callable[[NDArray[np.uint8]], world.Masks], scenes: list[world.Scene]) -> dict[str, float]:
    """iou: mean over lying bars of the best predicted mask's.  found: share with one of at least 0.5.  extra: predicted
    masks beyond the bars, a photo."""
    best, extra = [], []
    for scene in scenes:
        made = segment(scene.photo(True))
        best += [max((world.iou(mask, other) for other in made), default=0.0) for mask in scene.masks(True)]
        extra.append(len(made) - len(scene.bars))
    return {
        "iou": round(float(np.mean(best)), 4),
        "found": round(float(np.mean(np.array(best) >= 0.5)), 4),
        "extra": round(float(np.mean(extra)), 4),
    }
