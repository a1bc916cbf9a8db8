"""How near to the true pixels a filled hole comes: `python benchmarks/filling.py --data animals/ [--sheet FILE]`.

Photos of `instances_train.json` (nothing in filling is learnt) with room beside their animals; a hole is the outline of
an animal of another photo, its feet as low as the photo's own animal's. Side by side: as it is; the search started from
a smooth filling (OpenCV's Telea), not from what lies left and right of the hole; and each pixel copied from where its
patch fits best, wherever its neighbours are from. Printed, for what is under the holes: the mean absolute difference
from the photo, of 255, as it is and blurred (sigma 6 pixels: whether sky is where sky was); how far its texture is from
the photo's (means and deviations of a frozen network's features, in deviations among the photos); and paired
differences from what is, with their standard errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instapipe.data.coco import read_class
from instapipe.imaging import filling
from instapipe.networks.backbone import pretrained_features
from instapipe.networks.projected import FrozenBackbone
from instapipe.structures import BoolMask, Pixels

CLASSES = ("horse", "sheep", "cow")
HEIGHTS = (0.3, 0.6)
"""Of a hole, as a share of the photo's height."""
REACH = 1.8
"""Side of the square that is looked at, over the longer side of the hole."""
SIDE = 256
"""What the network looks at, pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A window of a photo, where the hole is, and where animals are (no background to fill with)."""

    pixels: Pixels
    hole: BoolMask
    animals: BoolMask


def places(data: Path, every: int, rng: np.random.Generator) -> Iterator[Place]:
    """A hole in each photo where one fits."""
    photos = [photo.read() for label in CLASSES for photo in read_class(data / "instances_train.json", label)[::every]]
    photos = [(pixels, instances) for pixels, instances in photos if max(pixels.shape[:2]) >= 400]
    outlines = []
    for _, instances in photos:
        if instances[0].cut_off < 0.05:
            x0, y0, x1, y1 = instances[0].mask.box
            outlines.append(instances[0].mask.dense()[y0:y1, x0:x1])
    for pixels, instances in photos:
        animals = np.any([instance.mask.dense() for instance in instances], axis=0)
        animals = _grown(animals, 9)
        hole = _fitting(animals, instances[0].mask.box[3], outlines, rng)
        if hole is not None:
            window = _window(hole)
            yield Place(*(np.ascontiguousarray(each[window]) for each in (pixels, _grown(hole, 5), animals)))


def _fitting(animals: BoolMask, feet: int, outlines: list[BoolMask], rng: np.random.Generator) -> BoolMask | None:
    height, width = animals.shape
    for _ in range(60):
        outline = outlines[rng.integers(len(outlines))]
        tall = int(rng.uniform(*HEIGHTS) * height)
        wide = max(8, round(outline.shape[1] * tall / outline.shape[0]))
        if wide > width - 20 or tall > feet - 4 or feet > height - 4:
            continue
        x = int(rng.integers(6, width - wide - 6))
        hole = np.zeros_like(animals)
        hole[feet - tall : feet, x : x + wide] = cv2.resize(outline.astype(np.uint8), (wide, tall)) > 0
        if not (hole & animals).any():
            return hole
    return None


def _window(hole: BoolMask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    half = int(REACH * max(np.ptp(rows), np.ptp(columns))) // 2
    y, x = (rows[0] + rows[-1]) // 2, (columns[0] + columns[-1]) // 2
    return slice(max(0, y - half), y + half), slice(max(0, x - half), x + half)


def _grown(mask: BoolMask, side: int) -> BoolMask:
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def filled(place: Place) -> Pixels:
    """The place without what stands in the hole."""
    unfit = place.hole | place.animals
    blank = np.where(place.hole[:, :, None], np.uint8(0), place.pixels)
    return filling.fill(blank, unfit if unfit.mean() < 0.7 else place.hole)


class Textures:
    """Means and deviations of features under the holes of `places`."""

    def __init__(self, places: list[Place]) -> None:
        self._backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", (0, 1, 2)), 128)
        self._true = torch.stack([self._of(place.pixels, place.hole) for place in places])
        self._spread = self._true.std(dim=0).clamp(min=1e-6)

    def distance(self, number: int, pixels: Pixels, hole: BoolMask) -> float:
        """Of the filled place with this number from the photo."""
        return float(((self._of(pixels, hole) - self._true[number]) / self._spread).abs().mean())

    @torch.inference_mode()
    def _of(self, pixels: Pixels, hole: BoolMask) -> Tensor:
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        small = F.interpolate(image, size=(SIDE, SIDE), mode="area")
        found = []
        for level in self._backbone(small):
            inside = F.interpolate(torch.from_numpy(hole)[None, None].float(), size=level.shape[-2:], mode="area")
            inside = inside / inside.sum()
            mean = (level * inside).sum(dim=(2, 3), keepdim=True)
            found += [mean, ((level - mean).square() * inside).sum(dim=(2, 3), keepdim=True).sqrt()]
        return torch.cat(found, dim=1).flatten()


def distances(place: Place, pixels: Pixels) -> tuple[float, float]:
    """From the photo, under the hole: as it is, and blurred."""
    found = []
    for width in (0, 6):
        one, other = (
            cv2.GaussianBlur(each.astype(np.float32), (0, 0), width) if width else each.astype(np.float32)
            for each in (pixels, place.pixels)
        )
        found.append(float(np.abs(one - other)[place.hole].mean()))
    return found[0], found[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=3, help="use every n-th photo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, default=None, help="the photo and each way: a picture to look at")
    asked = parser.parse_args()
    found = list(places(asked.data, asked.every, np.random.default_rng(asked.seed)))
    textures = Textures(found)
    ways: dict[str, dict[str, Any]] = {
        "as it is": {"_APART": filling._APART},
        "smooth start": {"_across": lambda pixels, hole: filling.smooth(pixels, hole).astype(np.float32)},
        "each for itself": {"_APART": 0.0},
    }
    pictures: dict[str, list[Pixels]] = {}
    scores: dict[str, NDArray[np.float64]] = {}
    for name, changed in ways.items():
        with mock.patch.multiple(filling, **changed):
            pictures[name] = [filled(place) for place in found]
        scores[name] = np.array(
            [
                (*distances(place, pixels), textures.distance(number, pixels, place.hole))
                for number, (place, pixels) in enumerate(zip(found, pictures[name], strict=True))
            ]
        )
    print(f"{len(found)} holes, seed {asked.seed}: difference, blurred, texture")
    for name, values in scores.items():
        paired = values - scores["as it is"]
        error = paired.std(axis=0) / np.sqrt(len(paired))
        print(
            f"{name:15} "
            + ", ".join(f"{v:6.2f}" for v in values.mean(axis=0))
            + "; "
            + ", ".join(f"{m:+.2f} +- {e:.2f}" for m, e in zip(paired.mean(axis=0), error, strict=True))
        )
    if asked.sheet is not None:
        most = np.argsort(-scores["as it is"][:, 1])[:12]
        rows = [
            np.hstack([cv2.resize(each, (240, 240)) for each in (found[k].pixels, *(p[k] for p in pictures.values()))])
            for k in most
        ]
        cv2.imwrite(str(asked.sheet), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
