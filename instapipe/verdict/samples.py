"""Training samples of the judge: windows of labelled photos and crops of single animals, augmented.

The judge will look at composites, so it is made indifferent to the traces of compositing: animals of other photos are
pasted in (their class stays what it was) and animals are removed by inpainting (what is left is background). So that a
coat alone does not please it, crops in which one animal's outline is filled with another's coat count as background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.structures import BoolMask, Pixels
from instapipe.verdict.dataset import LabelledPhoto
from instapipe.verdict.network import OFFSET_UNIT, STRIDE

GREY = (128, 128, 128)
"""What lies around a photo, here and when judging."""
Rng = np.random.Generator


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A square window with dense targets at 1/STRIDE.

    pixels: uint8 (S, S, 3).  semantic: int64 (s, s), 0 background, 1 + class.  centre: float32 (s, s), Gaussians, 1 at
    centres.  offset: float32 (2, s, s), (y, x) to the centre in OFFSET_UNIT; valid where `semantic` is not 0.
    """

    pixels: Pixels
    semantic: NDArray[np.int64]
    centre: NDArray[np.float32]
    offset: NDArray[np.float32]


class Sampler:
    """Draws samples from photos that are kept decoded in memory.

    weights: class name -> how often it is the class that a sample is centred on.
    """

    def __init__(self, photos: Sequence[LabelledPhoto], classes: Sequence[str], weights: Mapping[str, float]) -> None:
        self.classes = tuple(classes)
        self.pixels = [photo.pixels() for photo in photos]
        self.photos = list(photos)
        self.members: dict[str, list[tuple[int, int]]] = {name: [] for name in classes}
        for number, photo in enumerate(photos):
            for index, label in enumerate(photo.instances.labels):
                if label in self.members and photo.instances.masks[index].area >= 200:
                    self.members[label].append((number, index))
        self.names = [name for name in classes if self.members[name]]
        chances = np.array([weights.get(name, 1.0) for name in self.names])
        self.chances = chances / chances.sum()

    def window(self, rng: Rng, side: int) -> Window:
        """A window of `side` around an instance, with pasted and removed animals."""
        number, index = self.pick(rng)
        instances = self.photos[number].instances
        least = 0.65 * side / max(instances.size)
        warp = window_warp(instances.masks[index].box, rng, side, least=least)
        pixels = warp_pixels(self.pixels[number], warp, side)
        labels = [self.classes.index(label) for label in instances.labels]
        masks = [warp_mask(mask.dense(), warp, side) for mask in instances.masks]
        if len(masks) == 1 and rng.random() < 0.06:
            pixels, masks, labels = remove(pixels, masks[0]), [], []
        if rng.random() < 0.4:
            for _ in range(int(rng.integers(1, 4))):
                pixels, masks, labels = self.paste(pixels, masks, labels, rng)
        return Window(distort(pixels, rng), *dense_targets(masks, labels, side))

    def paste(
        self, pixels: Pixels, masks: list[BoolMask], labels: list[int], rng: Rng
    ) -> tuple[Pixels, list[BoolMask], list[int]]:
        """Another photo's animal on top; what it covers is no longer visible."""
        side = pixels.shape[0]
        number, index = self.pick(rng)
        warp = window_warp(self.photos[number].instances.masks[index].box, rng, side, longest=0.6)
        warp[:, 2] += rng.uniform(-0.35, 0.35, 2) * side
        mask = warp_mask(self.photos[number].instances.masks[index].dense(), warp, side)
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), float(rng.uniform(0.5, 1.5)))[..., None]
        other = warp_pixels(self.pixels[number], warp, side)
        mixed = (soft * other + (1 - soft) * pixels).astype(np.uint8)
        label = self.classes.index(self.photos[number].instances.labels[index])
        return mixed, [below & ~mask for below in masks] + [mask], [*labels, label]

    def crop(self, rng: Rng, side: int) -> tuple[Pixels, int]:
        """A crop of `side` and its class: 0 background, 1 + class."""
        number, index = self.pick(rng)
        instances, pixels = self.photos[number].instances, self.pixels[number]
        mask = instances.masks[index]
        if rng.random() < 0.2:
            return self.background(number, index, rng, side), 0
        warp = crop_warp(mask.box, rng, side)
        crop = warp_pixels(pixels, warp, side)
        if rng.random() < 0.35:
            crop = self.replace_background(crop, warp_mask(mask.dense(), warp, side), rng)
        return distort(crop, rng), 1 + self.classes.index(instances.labels[index])

    def background(self, number: int, index: int, rng: Rng, side: int) -> Pixels:
        """A crop without an animal: a removed one, a counterfeit, or a place beside all of them."""
        instances, pixels = self.photos[number].instances, self.pixels[number]
        mask = instances.masks[index]
        kind = rng.random()
        if kind < 0.6 and len(instances) == 1:
            warp = crop_warp(mask.box, rng, side)
            crop, outline = warp_pixels(pixels, warp, side), warp_mask(mask.dense(), warp, side)
            if kind < 0.3:
                return distort(remove(crop, outline), rng)
            coat = self.coat(rng, side)
            return distort(counterfeit(crop, outline, coat), rng)
        taken = np.asarray(instances.dense().any(axis=0), dtype=np.bool_)
        height, width = taken.shape
        for _ in range(10):
            extent = int(rng.uniform(0.2, 0.6) * min(height, width))
            y, x = int(rng.integers(0, height - extent + 1)), int(rng.integers(0, width - extent + 1))
            if taken[y : y + extent, x : x + extent].mean() < 0.04:
                return distort(warp_pixels(pixels, crop_warp((x, y, x + extent, y + extent), rng, side), side), rng)
        warp = crop_warp(mask.box, rng, side)
        return distort(remove(warp_pixels(pixels, warp, side), warp_mask(taken, warp, side)), rng)

    def replace_background(self, crop: Pixels, mask: BoolMask, rng: Rng) -> Pixels:
        """The animal on grey, on a colour, or on a piece of another photo, so that its surroundings say nothing."""
        if rng.random() < 0.5:
            other: Pixels = np.full_like(crop, 0) + rng.integers(0, 256, 3, dtype=np.uint8)
        else:
            pixels = self.pixels[int(rng.integers(len(self.pixels)))]
            other = np.asarray(cv2.resize(pixels[: pixels.shape[0] // 3], crop.shape[1::-1]), dtype=np.uint8)
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)[..., None]
        return (soft * crop + (1 - soft) * other).astype(np.uint8)

    def coat(self, rng: Rng, side: int) -> Pixels:
        """The largest square inside some animal's outline, resized to `side`: its coat, without its form."""
        number, index = self.pick(rng)
        mask = self.photos[number].instances.masks[index]
        depth = cv2.distanceTransform(np.pad(mask.crop, 1).astype(np.uint8), cv2.DIST_C, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        half = max(4, int(depth.max()) - 1)
        top, left = mask.box[1] + int(y), mask.box[0] + int(x)
        patch = self.pixels[number][max(0, top - half) : top + half, max(0, left - half) : left + half]
        return np.asarray(cv2.resize(patch, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    def pick(self, rng: Rng) -> tuple[int, int]:
        """(photo, instance) of a class drawn by the weights."""
        members = self.members[self.names[int(rng.choice(len(self.names), p=self.chances))]]
        return members[int(rng.integers(len(members)))]


def window_warp(
    box: tuple[int, int, int, int], rng: Rng, side: int, longest: float = 1.05, least: float = 0.25
) -> NDArray[np.float64]:
    """2x3 map from photo to window: the box's longer side becomes 1/7 to `longest` of it, where the scale of at
    least `least` (so that the photo, not the grey around it, fills the window) allows that."""
    extent = max(box[2] - box[0], box[3] - box[1])
    scale = float(np.exp(rng.uniform(np.log(side / 7), np.log(side * longest)))) / extent
    scale = float(np.clip(scale, least, 2.5))
    room = max(0.0, (side - extent * scale) / 2)
    shift = rng.uniform(-1, 1, 2) * (room + 0.1 * side) * rng.uniform(0, 1)
    return similarity(box, scale, shift, rng, side, angle=6.0, stretch=0.12)


def crop_warp(box: tuple[int, int, int, int], rng: Rng, side: int) -> NDArray[np.float64]:
    """2x3 map from photo to crop: the box's longer side becomes 0.6 to 1 of it (0.83 when judging)."""
    extent = max(box[2] - box[0], box[3] - box[1], 1)
    scale = side * float(rng.uniform(0.6, 1.0)) / extent
    return similarity(box, scale, rng.uniform(-0.08, 0.08, 2) * side, rng, side, angle=8.0, stretch=0.15)


def similarity(
    box: tuple[int, int, int, int],
    scale: float,
    shift: NDArray[np.float64],
    rng: Rng,
    side: int,
    angle: float,
    stretch: float,
) -> NDArray[np.float64]:
    """The box's middle to the window's middle plus `shift`; turned, stretched and flipped at random."""
    turn = np.deg2rad(rng.uniform(-angle, angle))
    wider = float(np.exp(rng.uniform(-stretch, stretch)))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * scale
    linear = linear @ np.diag([flip * wider, 1 / wider])
    middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    return np.column_stack([linear, side / 2 + shift - linear @ middle])


def warp_pixels(pixels: Pixels, warp: NDArray[np.float64], side: int) -> Pixels:
    """uint8 (side, side, 3); shrunk by averaging first, so that small animals keep their texture."""
    scale = float(np.sqrt(abs(np.linalg.det(warp[:, :2]))))
    if scale < 0.6:
        pixels = np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        warp = np.column_stack([warp[:, :2] / scale, warp[:, 2]])
    out = cv2.warpAffine(pixels, warp, (side, side), flags=cv2.INTER_LINEAR, borderValue=GREY)
    return np.asarray(out, dtype=np.uint8)


def warp_mask(mask: BoolMask, warp: NDArray[np.float64], side: int) -> BoolMask:
    """bool (side, side)."""
    out = cv2.warpAffine(mask.astype(np.float32), warp, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(out > 0.5, dtype=np.bool_)


def remove(pixels: Pixels, mask: BoolMask) -> Pixels:
    """The photo with what the mask covers inpainted."""
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8))
    return np.asarray(cv2.inpaint(pixels, grown, 3, cv2.INPAINT_TELEA), dtype=np.uint8)


def counterfeit(pixels: Pixels, outline: BoolMask, coat: Pixels) -> Pixels:
    """The outline filled with a coat, under the light of the animal that was there."""
    light = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 3)
    inside = light[outline].mean() if outline.any() else 128.0
    shaded = np.clip(coat * (light / max(1.0, float(inside)))[..., None], 0, 255)
    soft = cv2.GaussianBlur(outline.astype(np.float32), (0, 0), 1.0)[..., None]
    return np.asarray(soft * shaded + (1 - soft) * pixels, dtype=np.uint8)


def distort(pixels: Pixels, rng: Rng) -> Pixels:
    """Colour, contrast, blur, noise and compression, as photos and generators differ in them."""
    out: NDArray[Any] = pixels.astype(np.float32)
    if rng.random() < 0.8:
        out = (out - 128) * float(rng.uniform(0.7, 1.35)) + 128 + rng.uniform(-25, 25) + rng.uniform(-10, 10, 3)
        grey = out.mean(axis=2, keepdims=True)
        out = grey + (out - grey) * float(rng.uniform(0.3, 1.5))
    elif rng.random() < 0.4:
        out = np.repeat(out.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.2:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.5, 1.8)))
    if rng.random() < 0.2:
        out = out + rng.normal(0, rng.uniform(2, 12), out.shape)
    done = np.clip(out, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        encoded = cv2.imencode(".jpg", done, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])[1]
        done = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return np.asarray(done, dtype=np.uint8)


def dense_targets(
    masks: Sequence[BoolMask], labels: Sequence[int], side: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """(semantic, centre, offset) of :class:`Window`; later masks lie on top."""
    small = side // STRIDE
    semantic = np.zeros((small, small), np.int64)
    centre = np.zeros((small, small), np.float32)
    offset = np.zeros((2, small, small), np.float32)
    rows, columns = np.mgrid[:small, :small].astype(np.float32)
    for mask, label in zip(masks, labels, strict=True):
        shrunk = cv2.resize(mask.astype(np.float32), (small, small), interpolation=cv2.INTER_AREA) > 0.5
        count = int(shrunk.sum())
        semantic[shrunk] = 1 + label
        if count < 4:
            continue
        y, x = float(rows[shrunk].mean()), float(columns[shrunk].mean())
        offset[0][shrunk] = (y - rows[shrunk]) * STRIDE / OFFSET_UNIT
        offset[1][shrunk] = (x - columns[shrunk]) * STRIDE / OFFSET_UNIT
        spread = float(np.clip(0.08 * np.sqrt(count), 0.8, 3.0))
        squared = (rows - round(y)) ** 2 + (columns - round(x)) ** 2
        centre = np.maximum(centre, np.exp(-squared / (2 * spread**2)).astype(np.float32))
    return semantic, centre, offset
