"""Generated instances for the tests of masks: blobs, rings, parts, specks and masks that are empty, from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.structures import Instances, Mask


def blob(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A thresholded noise field: several parts, holes and specks, of any smoothness; now and then empty."""
    width = 2 * int(rng.integers(1, 8)) + 1
    field = cv2.GaussianBlur(rng.random(size), (width, width), 0)
    return np.asarray(field > np.quantile(field, rng.uniform(0.3, 1.0)))


def random_instances(seed: int, *, overlap: bool = True, labels: bool = True, scores: bool = True) -> Instances:
    """Up to six of them in a photo of at most 90 x 90; numbers have gaps."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
    n = int(rng.integers(0, 7))
    masks = [blob(rng, size) for _ in range(n)]
    if not overlap:
        taken = np.zeros(size, dtype=np.bool_)
        for i, mask in enumerate(masks):
            masks[i] = mask & ~taken
            taken |= mask
        masks = [mask for mask in masks if mask.any()]
        n = len(masks)
    names = ["sheep", "horse", "Kuh mit Ümlaut"]
    return Instances(
        size,
        tuple(Mask.from_dense(mask) for mask in masks),
        tuple(str(rng.choice(names)) if labels else "" for _ in range(n)),
        tuple(float(rng.uniform(0, 1)) if scores else 1.0 for _ in range(n)),
        tuple(sorted(int(number) for number in rng.choice(40, size=n, replace=False))),
    )


def write_all(folder: Path, files: Iterator[tuple[str, bytes]]) -> None:
    """What a writer yields, on disk."""
    for name, content in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def large_parts(mask: NDArray[np.bool_], least: int = 100) -> list[NDArray[np.bool_]]:
    """The 4-connected parts of at least `least` pixels."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return [parts == part for part in range(1, count) if np.count_nonzero(parts == part) >= least]
