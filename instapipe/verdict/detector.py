"""The judge at work: what it sees in a photo, and what it takes a crop for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from instapipe.errors import WeightsError
from instapipe.structures import Instances, Mask, Photo, Pixels
from instapipe.verdict.card import CARD, DEFAULT, JudgeCard, find_judge
from instapipe.verdict.grouping import Group, group
from instapipe.verdict.network import COARSEST, MEAN, OFFSET_UNIT, STD, STRIDE, JudgeNetwork
from instapipe.verdict.samples import GREY

FINE = 2
"""Instances are grouped at 1/FINE of the network's input."""
CROP_SCALE = 1.2
"""Side of a crop / longer side of the animal's box."""
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What the judge sees in one photo.

    instances: one per detection, highest score first; no pixel belongs to two.  classes: float32 (N, classes), what
    each could be, background left out; the rest to 1 is "no animal".
    """

    instances: Instances
    classes: NDArray[np.float32]


class Judge:
    """An animal detector and crop classifier that had no part in making what it judges.

    name, classes: the card's.  A judge is a segmenter as well (:meth:`segment`).
    """

    def __init__(self, card: JudgeCard, network: JudgeNetwork, device: str = "cpu") -> None:
        self.card = card
        self.name = card.name
        self.classes = card.classes
        self.device = torch.device(device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last).eval()

    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes what the judge says."""
        return self.card.fingerprint()

    def segment(self, photo: Photo) -> Instances:
        """Every detection with a score of at least 0.05, whatever the card's threshold."""
        return self.detect(photo.pixels, threshold=0.05).instances

    @torch.inference_mode()
    def detect(self, pixels: Pixels, *, threshold: float | None = None) -> Detections:
        """The animals in uint8 RGB (H, W, 3) whose score reaches `threshold` (the card's where None).

        A detection's classes are the mean of what its pixels say and of what its crop says; its score is its likeliest
        class times how surely its pixels are an animal's.  Both are averaged over the photo and its mirror image.
        """
        least = self.card.threshold if threshold is None else threshold
        height, width = pixels.shape[:2]
        groups = self._groups(pixels)
        masks = [Mask.from_dense(_enlarge(found.mask, (height, width))) for found in groups]
        kept = [i for i, mask in enumerate(masks) if mask.area]
        if not kept:
            return Detections(Instances((height, width)), np.zeros((0, len(self.classes)), np.float32))
        crops = self.classify(pixels, [masks[i].box for i in kept])[:, 1:]
        classes = (np.stack([groups[i].classes for i in kept]) + crops) / 2
        scores = classes.max(axis=1) * np.array([groups[i].solidity for i in kept])
        order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] >= least]
        found = Instances(
            (height, width),
            tuple(masks[kept[i]] for i in order),
            tuple(self.classes[int(classes[i].argmax())] for i in order),
            tuple(float(scores[i]) for i in order),
        )
        return Detections(found, classes[order].astype(np.float32))

    @torch.inference_mode()
    def classify(self, pixels: Pixels, boxes: Sequence[Box]) -> NDArray[np.float32]:
        """float32 (N, 1 + classes): what the photo shows in each box, background first; rows sum to 1."""
        if not boxes:
            return np.zeros((0, 1 + len(self.classes)), np.float32)
        crops = self._tensor([square_crop(pixels, box, self.card.crop_side) for box in boxes])
        logits = (self.network.classify(crops) + self.network.classify(crops.flip(-1))) / 2
        return np.asarray(logits.softmax(dim=1).cpu().numpy(), dtype=np.float32)

    @torch.inference_mode()
    def embed(self, crops: Sequence[Pixels]) -> NDArray[np.float32]:
        """float32 (N, crop_width) features of square crops, uint8 (S, S, 3), resized to the card's `crop_side`."""
        side = self.card.crop_side
        sized = [np.asarray(cv2.resize(c, (side, side), interpolation=cv2.INTER_AREA), np.uint8) for c in crops]
        parts = [self.network.embed(self._tensor(sized[i : i + 32])).cpu().numpy() for i in range(0, len(sized), 32)]
        return np.concatenate(parts) if parts else np.zeros((0, self.card.crop_width), np.float32)

    def _groups(self, pixels: Pixels) -> list[Group]:
        sized, (height, width) = fit(pixels, self.card.side)
        image = self._tensor([sized])
        plain, mirrored = self.network(image), self.network(image.flip(-1))
        semantic = (plain.semantic.softmax(1) + mirrored.semantic.softmax(1).flip(-1)) / 2
        centre = (plain.centre.sigmoid() + mirrored.centre.sigmoid().flip(-1)) / 2
        sign = torch.tensor([1.0, -1.0], device=self.device).view(1, 2, 1, 1)
        offset = (plain.offset + mirrored.offset.flip(-1) * sign) / 2 * (OFFSET_UNIT / FINE)
        finer = [
            functional.interpolate(m, scale_factor=STRIDE / FINE, mode="bilinear", align_corners=False)[0].cpu().numpy()
            for m in (semantic, centre, offset)
        ]
        rows, columns = -(-height // FINE), -(-width // FINE)
        semantics, centres, offsets = (np.ascontiguousarray(m[:, :rows, :columns]) for m in finer)
        return group(semantics, centres[0], offsets)

    def _tensor(self, images: Sequence[Pixels]) -> Tensor:
        batch = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).float()
        return ((batch / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def fit(pixels: Pixels, side: int) -> tuple[Pixels, tuple[int, int]]:
    """The photo with its longer side at `side`, on grey up to multiples of COARSEST; and its (h, w) therein."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.empty((-(-h // COARSEST) * COARSEST, -(-w // COARSEST) * COARSEST, 3), np.uint8)
    canvas[:] = GREY
    canvas[:h, :w] = cv2.resize(pixels, (w, h), interpolation=method)
    return canvas, (h, w)


def square_crop(pixels: Pixels, box: Box, side: int, scale: float = CROP_SCALE) -> Pixels:
    """The square around `box`, `scale` times its longer side, at `side`; grey outside the photo."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box
    half = max(1.0, scale * max(x1 - x0, y1 - y0) / 2)
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = round(middle_x - half), round(middle_y - half)
    extent = max(2, round(2 * half))
    crop = np.empty((extent, extent, 3), np.uint8)
    crop[:] = GREY
    sx0, sy0, sx1, sy1 = max(0, left), max(0, top), min(width, left + extent), min(height, top + extent)
    if sx0 < sx1 and sy0 < sy1:
        crop[sy0 - top : sy1 - top, sx0 - left : sx1 - left] = pixels[sy0:sy1, sx0:sx1]
    method = cv2.INTER_AREA if extent > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (side, side), interpolation=method), dtype=np.uint8)


def _enlarge(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    out = cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(out > 0.5, dtype=np.bool_)


def load_judge(name: str = DEFAULT, *, device: str = "cpu") -> Judge:
    """A bundled judge by name, or one from a folder; raises WeightsError where its file is not what its card says."""
    card, folder = find_judge(name)
    path = folder / card.file
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != card.sha256:
            raise WeightsError(f"{str(path)!r} is not what its card says: the digest differs; fetch it again")
    except OSError as error:
        raise WeightsError(f"cannot read the judge's weights {str(path)!r}: {error.strerror}") from error
    network = _build(card)
    state = {key: value.float() for key, value in load_file(path).items()}
    missing, unknown = network.load_state_dict(state, strict=False)
    if unknown or [key for key in missing if not key.endswith("num_batches_tracked")]:
        raise WeightsError(f"{str(path)!r} does not hold the network that its card describes")
    return Judge(card, network, device)


def save_judge(network: JudgeNetwork, card: JudgeCard, folder: Path) -> JudgeCard:
    """Write `network` in half precision with its card, digest filled in; returns that card."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / card.file
    # Steps of batch norm count batches; half precision cannot hold them and nobody reads them.
    state = {k: v.half().contiguous() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, path)
    card = card.model_copy(update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "dtype": "float16"})
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


def _build(card: JudgeCard) -> JudgeNetwork:
    return JudgeNetwork(len(card.classes), width=card.width, head_width=card.head_width, crop_width=card.crop_width)
