"""A segmenter for the small world of `worlds`: white is sheep, brown is horse. Found through an entry point.

`colour:fragile` is badly written: it dies on photos without sheep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instapipe.structures import Instances, Photo

CLASSES = ("sheep", "horse")
RUNS: list[str] = []
"""The photos that were really segmented, by digest."""


def describe(argument: str | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    return CLASSES, {"segmenter": "colour", "version": 1, "argument": argument}


def load(argument: str | None, *, device: str) -> ColourSegmenter:
    return ColourSegmenter(argument)


class ColourSegmenter:
    name = "colour"
    classes = CLASSES

    def __init__(self, argument: str | None) -> None:
        self._argument = argument

    def fingerprint(self) -> dict[str, Any]:
        return describe(self._argument)[1]

    def segment(self, photo: Photo) -> Instances:
        """Connected parts of one colour; the larger, the surer."""
        # Here: a run that finds everything in the cache asks for the fingerprint alone.
        import cv2
        import numpy as np

        from instapipe.structures import Instances, Mask

        RUNS.append(photo.digest)
        pixels = photo.pixels.astype(int)
        white = pixels.min(axis=2) > 180
        if self._argument == "fragile" and not white.any():
            raise RuntimeError("boom: no\nsheep")
        brown = (pixels[:, :, 0] > 100) & (pixels[:, :, 2] < 60) & (pixels[:, :, 1] < 85)
        found: list[tuple[float, str, Mask]] = []
        for label, where in (("sheep", white), ("horse", brown)):
            count, parts = cv2.connectedComponents(where.astype(np.uint8))
            for part in range(1, count):
                mask = Mask.from_dense(parts == part)
                if mask.area >= 20:
                    found.append((round(mask.area / (mask.area + 300), 3), label, mask))
        found.sort(key=lambda each: -each[0])
        return Instances(
            photo.size,
            tuple(mask for _, _, mask in found),
            tuple(label for _, label, _ in found),
            tuple(score for score, _, _ in found),
        )
