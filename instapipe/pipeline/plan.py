"""Which steps a translation takes, where each of them looks, and by which key its result is kept. No pixels needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

from instapipe.config import Placement
from instapipe.imaging.windows import MOST_TRIES, VIEWS, Framing, Rectangle, hull, multiple_of_4, views, whole_window
from instapipe.pipeline.keys import DECODE_VERSION, TRANSLATE_VERSION
from instapipe.pipeline.resolve import Weights
from instapipe.pipeline.settings import TranslateSettings


class Stopped(Exception):
    """A run was told to stop between two steps."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a photo of one size is worked on.

    mode: as resolved.  model_size: (H, W) of what the generator sees; None: each window's own.
    frame: the rectangle of whole mode.  in_floats: the rollout happens at the model's size, in floats (the paper's
    whole image, whole compositing); else it happens on the photo.  placement: of windows.
    tries: translations of each instance, at most.  round_trips: whether some of them are such.
    taken_after: so many round trips, where there is one try.  upscaled: whether what is enlarged gets detail.
    """

    mode: Literal["whole", "instance"]
    model_size: tuple[int, int] | None
    frame: Rectangle
    in_floats: bool
    placement: Placement = "centre"
    tries: int = 1
    round_trips: bool = False
    taken_after: int = 0
    upscaled: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the numbers of its instances, its window, and what its key is made of."""

    numbers: tuple[int, ...]
    window: Rectangle
    inputs: Mapping[str, Any]


def lay_out(size: tuple[int, int], weights: Weights, settings: TranslateSettings) -> Layout:
    """The layout for a photo of `size` (H, W)."""
    asked = settings.size or weights.card.size_of(weights.direction)
    model_size = None if asked is None else multiple_of_4(asked)
    mode = settings.region
    if mode == "auto":
        larger = model_size is not None and (size[0] > model_size[0] or size[1] > model_size[1])
        mode = "instance" if larger else "whole"
    if mode == "instance":
        tries = len(VIEWS) if weights.back is None else MOST_TRIES
        tries = min(settings.tries or tries, tries)
        if model_size is None or weights.grader is None:
            tries = 1
        trips = tries > 1 and weights.back is not None
        # Whoever asks for one try wants it soon.
        after = weights.taken_after if model_size is not None and settings.tries is None else 0
        detail = settings.upscale and weights.upscaler is not None and model_size is not None
        placement = weights.card.placement
        return Layout("instance", model_size, whole_window(size), False, placement, tries, trips, after, detail)
    frame = whole_window(size)
    if model_size is None:
        model_size = multiple_of_4(size)
        frame = whole_window(model_size)
    return Layout("whole", model_size, frame, weights.card.compositing.mode == "whole")


def plan_steps(
    chosen: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    photo: str,
    layout: Layout,
    weights: Weights,
    engine: Mapping[str, str],
    settings: TranslateSettings,
) -> list[Step]:
    """The steps for the `chosen` instances (records of formats.instance_records), in their order; `photo`: its digest.

    found: the records of all instances of the photo, chosen or not: what a hole is not filled with.
    All instances have their turn: the last step may have fewer.
    """
    per_step = settings.instances_per_step or weights.card.instances_per_step
    if weights.card.masks != "instances":
        per_step = max(1, len(chosen))  # such weights translate a photo at once
    region: dict[str, Any] = {
        "mode": layout.mode,
        "model_size": None if layout.model_size is None else list(layout.model_size),
        "background": settings.background,
        # A natural background has no seam of declared width: its setting must not reach the key.
        "seam": settings.seam if settings.background == "exact" else None,
    }
    if layout.tries > 1 and weights.grader is not None:
        region["tries"] = {
            "views": [list(view) for view in VIEWS],
            "count": layout.tries,
            "grader": weights.grader.sha256,
            "back": weights.back_sha256,
        }
    if layout.taken_after:
        region["round_trips"] = {"count": layout.taken_after, "back": weights.back_sha256}
    if layout.upscaled and weights.upscaler is not None:
        region["upscaler"] = weights.upscaler.sha256
    steps: list[Step] = []
    windows: list[Rectangle] = []
    masks: list[list[str]] = []
    for first in range(0, len(chosen), per_step):
        group = chosen[first : first + per_step]
        windows.append(_window([tuple(record["box"]) for record in group], layout, weights))
        masks.append([record["digest"] for record in group])
        inputs = {
            "version": TRANSLATE_VERSION,
            "decode": DECODE_VERSION,
            "weights": weights.fingerprint(),
            "engine": dict(engine),
            "region": region,
            "photo": photo,
            "windows": [list(window) for window in windows],
            "masks": [list(digests) for digests in masks],
            "around": [] if layout.in_floats else _around(found, [_reached(window, layout) for window in windows]),
        }
        steps.append(Step(tuple(record["number"] for record in group), windows[-1], inputs))
    return steps


def _reached(window: Rectangle, layout: Layout) -> Rectangle:
    """Where a step may look and paint: on the ground, as wide as its animal may become, moved sideways included."""
    if layout.placement == "centre":
        return window
    x0, y0, x1, y1 = reduce(hull, (view for view, _ in views(window, layout.tries, layout.round_trips)))
    side = max(x1 - x0, y1 - y0)
    return (x0 + x1) // 2 - side, y0, (x0 + x1) // 2 + side, y1


def _around(found: Sequence[Mapping[str, Any]], windows: Sequence[Rectangle]) -> list[str]:
    """The digests of what reaches into one of the rectangles `windows`, sorted."""
    digests = set()
    for record in found:
        x0, y0, x1, y1 = record["box"]
        if any(x0 < right and left < x1 and y0 < bottom and top < y1 for left, top, right, bottom in windows):
            digests.add(record["digest"])
    return sorted(digests)


def _window(boxes: Sequence[Rectangle], layout: Layout, weights: Weights) -> Rectangle:
    if layout.mode == "whole":
        return layout.frame
    framing = Framing.of(weights.card, weights.direction)
    if layout.model_size is not None:
        return framing.window(boxes)
    # The generator sees the window as it is: nothing is widened, and its sides must be multiples of 4.
    x0, y0, x1, _ = replace(framing, least_aspect=0).window(boxes)
    side = math.ceil((x1 - x0) / 4) * 4
    return x0, y0, x0 + side, y0 + side
