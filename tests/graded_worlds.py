"""Graded outputs of a small world: animals on four legs, and others of which the legs are one block."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.training.grading import Graded, Outputs


def animal(rng: np.random.Generator, sound: bool) -> NDArray[np.uint8]:
    """The matte of a body with a neck on four legs, or with what should be legs in one block; uint8 (96, 96)."""
    matte = np.zeros((96, 96), np.uint8)
    x, y, height = int(rng.integers(24, 34)), int(rng.integers(44, 54)), int(rng.integers(24, 32))
    cv2.rectangle(matte, (x, y), (x + 34, y + 16), 255, -1)
    cv2.line(matte, (x + 30, y), (x + 40, y - 34), 255, 7)
    for leg in (0, 9, 22, 30):
        cv2.rectangle(matte, (x + leg, y + 10), (x + leg + 3, y + 10 + height), 255, -1)
    if not sound:
        cv2.rectangle(matte, (x, y + 10), (x + 33, y + 10 + height), 255, -1)
    return cv2.GaussianBlur(matte, (3, 3), 0)


def graded(count: int = 80, seed: int = 0) -> Graded:
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 2, count) * 2
    mattes = np.stack([animal(rng, bool(grade)) for grade in grades])
    photos = tuple(f"photo{n // 4}.jpg" for n in range(count))
    return Graded(Outputs(mattes, photos), grades.astype(np.float32))
