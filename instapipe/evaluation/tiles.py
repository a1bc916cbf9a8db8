"""Pictures for the report: each instance before and after, side by side."""

from __future__ import annotations

import cv2
import numpy as np

from instapipe.evaluation.cases import Case
from instapipe.structures import Instances, Mask, Pixels
from instapipe.verdict.matching import Verdict

SIDE = 168
"""Of each of a tile's two pictures."""
OLD, NEW, SEEN = (255, 255, 255), (255, 196, 0), (0, 214, 255)
"""Outlines: the source mask, the returned mask, what the judge sees."""


def tile(case: Case, verdict: Verdict, detections: Instances) -> Pixels:
    """uint8 (SIDE, 2 SIDE, 3): before with the source's outline; after with the returned mask's and the judge's."""
    old = case.listed.masks[verdict.source] if verdict.source is not None else None
    new = case.returned[verdict.source] if verdict.source is not None else None
    seen = detections.masks[verdict.detection] if verdict.detection is not None else None
    shown = [mask for mask in (old, new, seen) if mask is not None and mask.area]
    x0, y0 = (min(mask.box[k] for mask in shown) for k in (0, 1))
    x1, y1 = (max(mask.box[k] for mask in shown) for k in (2, 3))
    half = max(8, round(0.6 * max(x1 - x0, y1 - y0)))
    left, top = (x0 + x1) // 2 - half, (y0 + y1) // 2 - half
    window = (left, top, left + 2 * half, top + 2 * half)
    before = _view(case.before, window)
    after = _view(case.after, window)
    _outline(before, old, window, OLD)
    _outline(after, new, window, NEW)
    _outline(after, seen, window, SEEN)
    return np.hstack([before, after])


def _view(pixels: Pixels, window: tuple[int, int, int, int]) -> Pixels:
    x0, y0, x1, y1 = window
    height, width = pixels.shape[:2]
    view = np.full((y1 - y0, x1 - x0, 3), 40, np.uint8)
    sx0, sy0, sx1, sy1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    if sx0 < sx1 and sy0 < sy1:
        view[sy0 - y0 : sy1 - y0, sx0 - x0 : sx1 - x0] = pixels[sy0:sy1, sx0:sx1]
    method = cv2.INTER_AREA if view.shape[0] > SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(view, (SIDE, SIDE), interpolation=method), dtype=np.uint8)


def _outline(view: Pixels, mask: Mask | None, window: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
    if mask is None or not mask.area:
        return
    small = cv2.resize(mask.window(window).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(view, contours, -1, colour, 1, cv2.LINE_AA)
