"""Pictures for people: numbered overlays and filmstrips."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.structures import Instances, Pixels

# Colours that stay apart for most eyes (Okabe and Ito, 2008), RGB.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_CAPTION = 24
_COLUMNS = 6

Outline = tuple[int, list[NDArray[np.int32]]]
"""An instance's number and its closed lines, int32 (n, 1, 2), x and y in pixels of a thumbnail."""


def overlay(pixels: Pixels, instances: Instances) -> Pixels:
    """`pixels`, uint8 (H, W, 3), with each instance tinted, outlined and marked by its number and label."""
    out = pixels.copy()
    height, width = pixels.shape[:2]
    thickness = max(1, round(max(height, width) / 600))
    scale = max(0.35, max(height, width) / 1600)
    for mask, number in zip(instances.masks, instances.numbers, strict=True):
        x0, y0, x1, y1 = mask.box
        if x0 == x1:
            continue
        colour = COLOURS[number % len(COLOURS)]
        region = out[y0:y1, x0:x1]
        tinted = (region * 0.6 + np.asarray(colour) * 0.4).astype(np.uint8)
        region[mask.crop] = tinted[mask.crop]
        shape = mask.crop.astype(np.uint8)
        contours, _ = cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
        cv2.drawContours(out, contours, -1, colour, thickness)
    for mask, label, number in zip(instances.masks, instances.labels, instances.numbers, strict=True):
        if mask.box[0] == mask.box[2]:
            continue
        rows, columns = np.nonzero(mask.crop)
        middle = int(np.argsort(rows, kind="stable")[len(rows) // 2])
        _text(out, f"{number} {label}", (mask.box[0] + int(columns[middle]), mask.box[1] + int(rows[middle])), scale)
    return out


def outlines(instances: Instances, side: int) -> list[Outline]:
    """The outlines of `instances` at the scale of a :func:`thumbnail` of `side`: small, whatever the photo's size."""
    factor = _factor(instances.size, side)
    found: list[Outline] = []
    for mask, number in zip(instances.masks, instances.numbers, strict=True):
        shape = mask.crop.astype(np.uint8)
        contours, _ = cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=mask.box[:2])
        # A noisy mask has thousands of contours; those of less than a pixel would not be seen.
        scaled = [np.round(contour * factor).astype(np.int32) for contour in contours]
        found.append((number, [line for line in scaled if np.ptp(line[:, 0, :], axis=0).max() > 0]))
    return found


def thumbnail(pixels: Pixels, drawn: Sequence[Outline], caption: str, side: int) -> Pixels:
    """One frame of a filmstrip, uint8 (side + a line, side, 3): `pixels` made small, outlines, a caption below."""
    height, width = pixels.shape[:2]
    factor = _factor((height, width), side)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.ascontiguousarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    for number, lines in drawn:
        cv2.polylines(small, lines, True, COLOURS[number % len(COLOURS)], 1, cv2.LINE_AA)
    frame = np.full((side + _CAPTION, side, 3), 24, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    frame[top : top + size[1], left : left + size[0]] = small
    cv2.putText(frame, _ascii(caption), (6, side + 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
    return frame


def frame_side(frames: int) -> int:
    """How large the frames of a filmstrip of so many are: a long one must not grow without bound."""
    return 320 if frames <= 12 else 160


def _factor(size: tuple[int, int], side: int) -> float:
    return min(1.0, side / max(size))


def filmstrip(frames: Sequence[Pixels]) -> Pixels:
    """Frames from :func:`thumbnail`, left to right, in rows of six."""
    if not frames:
        raise ValueError("a filmstrip needs at least one frame")
    columns = min(_COLUMNS, len(frames))
    blank = np.full_like(frames[0], 24)
    padded = [*frames, *[blank] * (-len(frames) % columns)]
    return np.vstack([np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)])


def _text(image: Pixels, text: str, centre: tuple[int, int], scale: float) -> None:
    """White on black, centred, kept inside the image."""
    text = _ascii(text)
    thickness = max(1, round(scale * 2))
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x = min(max(centre[0] - width // 2, 0), max(image.shape[1] - width, 0))
    y = min(max(centre[1] + height // 2, height), max(image.shape[0] - base, height))
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thickness * 3, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thickness, cv2.LINE_AA)


def _ascii(text: str) -> str:
    """OpenCV's fonts know ASCII alone."""
    return text.encode("ascii", "replace").decode()
