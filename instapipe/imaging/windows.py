"""Windows of a photo: where a step looks, and where what it made belongs.

Geometry alone: a run that finds everything in the cache needs it, and no numpy.

A window is a rectangle (x0, y0, x1, y1) of photo pixels, exclusive at the end, and may reach over the photo's border,
where it shows the photo mirrored (:mod:`instapipe.imaging.seen`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from instapipe.config import Direction, Placement, TranslatorCard

Rectangle = tuple[int, int, int, int]
SMALLEST_SIDE = 8
"""Of a window, in photo pixels."""
BELOW = 0.1
"""Share of a window's height below the feet, with the placement `ground`: what 1.25 x the height leaves around it."""
ABOVE = 0.02
"""Share of the photo above the feet that stays free above an animal which was made smaller to fit."""
MOST_WIDENED = 1.7
"""More would make a wall of an animal that looks at the camera."""
VIEWS = (
    (1.0, 1.0, 0), (1.11, 1.0, 2), (1.0, 0.85, 2), (1.05, 1.0, 2),
    (0.92, 1.0, 1), (1.2, 1.0, 2), (1.08, 1.17, 1), (0.96, 1.12, 1),
)  # fmt: skip
"""What is tried, one after the other, where there are several tries: how many times larger a window is than the one
that was asked for, how many times wider it shows its animal, and how many round trips follow, each a try of its own:
what was made there, back and there again (:mod:`instapipe.translation.again`). Greedily, by what each adds for what it
takes (docs/training-log.md)."""
MOST_TRIES = sum(1 + trips for _, _, trips in VIEWS)
LEAST_FITTED = 0.5
"""Smaller than that, an animal would no longer stand for the one that it was made from."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How a window is put around instances; by default just around them.

    scale: of the longer side of their box; height_scale: of its height; the window is as high as the larger of both.
    least_aspect: the box's width / height as the model sees it, at least: a narrower one is shown wider, as if from the
    side, up to :data:`MOST_WIDENED` times. The window is that much narrower than it is high.
    placement: `centre`, around the centre of the box; `ground`, the box stands in the middle, a tenth of the height
    above the window's lower edge: whatever its kind, an animal's feet are in the same place.
    """

    scale: float
    height_scale: float = 0
    least_aspect: float = 0
    placement: Placement = "centre"

    @classmethod
    def of(cls, card: TranslatorCard, direction: Direction) -> Framing:
        """Around what a direction of the weights starts from: as in training."""
        if direction == "target_to_source" and card.target_window_scale is not None:
            return cls(card.target_window_scale, placement=card.placement)
        return cls(card.window_scale, card.window_height_scale, card.least_aspect, card.placement)

    @property
    def reach(self) -> float:
        """How many times the longer side of a box a square around its centre must show, to hold the window."""
        # Over feet that stand low, the window of a flat box goes up by all but what is below them.
        scale = max(self.scale * max(1.0, min(self.least_aspect, MOST_WIDENED)), self.height_scale)
        return scale if self.placement == "centre" else 2 * (1 - BELOW) * scale

    def window(self, boxes: Sequence[Rectangle]) -> Rectangle:
        """The window around the union of `boxes`."""
        if not boxes:
            raise ValueError("a window needs at least one box")
        x0, y0, x1, y1 = reduce(hull, boxes)
        wider = min(MOST_WIDENED, max(1.0, self.least_aspect * (y1 - y0) / max(1, x1 - x0)))
        asked = max(self.scale * max(wider * (x1 - x0), y1 - y0), self.height_scale * (y1 - y0))
        height = max(SMALLEST_SIDE, math.ceil(asked))
        width = max(SMALLEST_SIDE, round(height / wider))
        left, top = (x0 + x1 - width) // 2, (y0 + y1 - height) // 2
        if self.placement == "ground":
            top = y1 + round(height * BELOW) - height
        return left, top, left + width, top + height


def views(window: Rectangle, tries: int, round_trips: bool = False) -> list[tuple[Rectangle, int]]:
    """`window`, of the placement `ground`, and others about the same feet (see :data:`VIEWS`), each with the number of
    round trips that follow: `tries` in all, or all there are."""
    x0, y0, x1, y1 = window
    height, feet = y1 - y0, y1 - BELOW * (y1 - y0)
    shown = height / (x1 - x0)
    out: dict[Rectangle, int] = {}
    for scale, wider, trips in VIEWS:
        if tries <= 0:
            break
        high = max(SMALLEST_SIDE, round(scale * height))
        wide = max(SMALLEST_SIDE, round(high / (min(max(MOST_WIDENED, shown), shown * wider))))
        left, top = (x0 + x1 - wide) // 2, round(feet + BELOW * high) - high
        view = (left, top, left + wide, top + high) if out else window
        if view not in out:  # small windows may be alike
            out[view] = min(trips, tries - 1) if round_trips else 0
            tries -= 1 + out[view]
    return list(out.items())


def placed(
    window: Rectangle, size: tuple[int, int], content: tuple[float, float, float, float], freedom: float = 1
) -> Rectangle:
    """Where in a photo of `size` (H, W) what was made of `window` belongs, with its feet where the old ones were.

    One that is taller than the photo above its feet is made smaller, down to :data:`LEAST_FITTED`, until its head is in
    the photo, and one that would leave the photo sideways moves in.

    window: with the placement `ground`.  content: (left, top, right, bottom) of what is to be seen, as shares of it.
    freedom: 1: in its own proportions, so that what was shown wider than it is gives a wider animal; 0: as narrow again
    as it was; or between.
    """
    x0, y0, x1, y1 = window
    height = float(y1 - y0)
    feet, middle = y1 - BELOW * height, (x0 + x1) / 2
    # What has no legs is not lowered until its belly lies on the ground.
    stand = max(1 - 2 * BELOW, content[3])
    tall = (stand - content[1]) * height
    fitted = min(1.0, max(LEAST_FITTED, feet * (1 - ABOVE) / tall)) if tall > 0 else 1.0
    height *= fitted
    narrow = min(1.0, (x1 - x0) / (y1 - y0))
    width = height * (narrow + freedom * (1 - narrow))
    left, right = middle + (content[0] - 0.5) * width, middle + (content[2] - 0.5) * width
    if right - left <= size[1]:
        middle += max(0.0, -left) - max(0.0, right - size[1])
    top = feet - stand * height
    return round(middle - width / 2), round(top), round(middle + width / 2), round(top + height)


def hull(one: Rectangle, two: Rectangle) -> Rectangle:
    """The least rectangle that holds both."""
    return min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3])


def whole_window(size: tuple[int, int]) -> Rectangle:
    """The photo of `size` (H, W) itself."""
    return 0, 0, size[1], size[0]


def multiple_of_4(size: tuple[int, int]) -> tuple[int, int]:
    """The least (H, W), multiples of 4 and at least 8, that hold `size`."""
    height, width = size
    return max(8, -(-height // 4) * 4), max(8, -(-width // 4) * 4)


def inside(window: Rectangle, size: tuple[int, int]) -> Rectangle:
    """The part of `window` on a photo of `size` (H, W); empty where they do not meet."""
    x0, y0 = min(max(window[0], 0), size[1]), min(max(window[1], 0), size[0])
    return x0, y0, max(x0, min(window[2], size[1])), max(y0, min(window[3], size[0]))
