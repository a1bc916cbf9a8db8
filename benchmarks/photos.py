"""Photos to measure on: variations of the demo's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from instapipe.imaging import read_photo

DEMO = Path(__file__).resolve().parents[1] / "tests" / "data" / "demo"
SHEEP = DEMO / "sheep.jpg"
SIZE = (768, 1024)


def write_variations(folder: Path, count: int) -> None:
    """`count` JPEGs of 1024x768: crops of the sheep photo, mirrored, lighter and darker; always the same bytes."""
    pixels = read_photo(SHEEP).pixels
    rng = np.random.default_rng(0)
    for number in range(count):
        share = rng.uniform(0.7, 1.0)
        height, width = round(pixels.shape[0] * share), round(pixels.shape[1] * share)
        y, x = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(pixels.shape, (height, width)))  # noqa: B905
        crop = cv2.resize(pixels[y : y + height, x : x + width], (SIZE[1], SIZE[0]), interpolation=cv2.INTER_AREA)
        crop = crop[:, ::-1] if number % 2 else crop
        light = np.clip(crop * rng.uniform(0.85, 1.15), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:03}.jpg"), light[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
