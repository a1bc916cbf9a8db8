"""Segmenting one photo of a megapixel: the bundled compact Mask R-CNN against torchvision's with a ResNet-50, side by
side. Torchvision's has random weights, so that it need not be downloaded: fewer objects pass its scores, so it is, if
anything, faster than with trained ones.
"""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import torch
from photos import SHEEP

from instapipe.imaging import read_photo
from instapipe.networks.cards import bundled
from instapipe.segmentation import load_segmenter
from instapipe.structures import Photo

SIZE = (864, 1152)
"""(H, W): a megapixel."""


def measure(rounds: int) -> dict[str, Any] | None:
    """Seconds of both, by round and clock; None where no segmenter is bundled."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    names = [card.name for card, _ in bundled() if card.kind == "segmenter"]
    if not names:
        return None
    torch.manual_seed(0)
    pixels = cv2.resize(read_photo(SHEEP).pixels, (SIZE[1], SIZE[0]), interpolation=cv2.INTER_AREA)
    photo = Photo(np.ascontiguousarray(pixels), SHEEP.name, "")
    compact = load_segmenter(names[-1])
    other = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    tensor = torch.from_numpy(photo.pixels).permute(2, 0, 1).float() / 255

    def run_other() -> None:
        with torch.inference_mode():
            other([tensor])

    calls = {names[-1]: lambda: compact.segment(photo), "torchvision maskrcnn_resnet50_fpn": run_other}
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if number:  # the first warms up
                seconds[name]["wall"].append(time.perf_counter() - wall)
                seconds[name]["cpu"].append(time.process_time() - cpu)
    return {"found": len(compact.segment(photo)), "threads": torch.get_num_threads(), "seconds": seconds}
