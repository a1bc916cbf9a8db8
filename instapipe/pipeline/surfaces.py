"""Where a rollout happens: the photo at its own scale, or an image of the model's size.

Both run a step from their present state into a :class:`StepRecord`, and move on by applying a record. A record read
back from the cache is applied like one just made, so a resumed run cannot differ from a cold one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from instapipe.config import Placement
from instapipe.imaging.cutting import cut
from instapipe.imaging.seen import resized, seen
from instapipe.imaging.windows import Rectangle, hull, inside, views
from instapipe.pipeline.placing import Depth, Standing, feet_of, find_depth, find_place, masks_of, together
from instapipe.pipeline.records import ChosenTry, State, StepRecord
from instapipe.structures import BoolMask, Mask, Pixels
from instapipe.translation.again import StepFunction, Turn
from instapipe.translation.feet import on_all_feet, shade_of
from instapipe.translation.native import CUT_OFF, Blend, blend, cut_above, distance, nearer, without_slivers
from instapipe.translation.resampling import enlarged, shrink, shrink_mask

_FRONT = 1.1
"""An animal whose window is that much higher than wide was shown wider: it is seen from the front."""
_SOUND = 1.7
"""An outline with such a grade is good enough, nothing further is tried: of 249 with this grade and more, photos left
out, observers called 2 broken and 90 % sound; from 1.5 to 1.7, 4 of 125 and 77 % (docs/training-log.md)."""
_LEAST_LEFT = 0.25
"""A new animal of less than this share of the old one's area is taken only where every try is as small."""
_LOST = 1.0
"""With so many grades lost to others, covered by it or hiding it, an animal is tried looking the other way, too."""


Again = Callable[[Turn], Turn | None]
"""The next round trip after a turn; None where nothing comes back."""
Upscale = Callable[[State, State, float], tuple[State, State]]
"""What a generator painted, float32 (h, w, 3) in [0, 255], and its mattes, (n, h, w) in [0, 1], that are shown so many
times larger: both with more pixels, where that is worth it."""


@dataclass(frozen=True, slots=True)
class Tries:
    """An instance is translated in several ways, and what has the best grade stays.

    count: at most.  grade: of mattes, float32 (n, h, w) in [0, 1]: 0 broken to 2 sound.
    again: None where there is no way back.
    """

    count: int
    grade: Callable[[State], float]
    again: Again | None = None


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """What is made of an instance is taken after so many round trips, or after the last from which something came back:
    a generator that learnt from made instances makes better ones of them than of real ones."""

    count: int
    again: Again


class Surface(Protocol):
    """The state of a rollout."""

    def run(self, window: Rectangle, masks: Sequence[Mask], step: StepFunction) -> StepRecord:
        """What a step makes of the present state; the state stays."""
        ...

    def apply(self, record: StepRecord) -> None:
        """Move on to the state after `record`."""
        ...

    def picture(self) -> Pixels:
        """The present state at the photo's size, uint8 (H, W, 3)."""
        ...

    def preview(self, side: int) -> Pixels:
        """The present state, uint8 (h, w, 3), as it is or with a longer side of `side`, whatever costs less."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """What a generator made of `window`, and the `place` where it belongs.

    raw, mattes: as of StepFunction.  mirrored: whether they are turned.
    lost: grades, for how it stands among the others.  flat: grades, for heads that the window cuts off.
    depth: where, before or behind the others.
    """

    window: Rectangle
    place: Rectangle
    raw: State
    mattes: State
    mirrored: bool
    lost: float
    flat: float = 0
    depth: Depth = "nearer"


class NativeSurface:
    """The photo itself, uint8: each step works on a window of it and is blended back at the photo's scale."""

    def __init__(
        self,
        photo: Pixels,
        model_size: tuple[int, int] | None,
        settings: Blend,
        animals: NDArray[np.bool_] | None = None,
        placement: Placement = "centre",
        tries: Tries | RoundTrips | None = None,
        upscale: Upscale | None = None,
    ) -> None:
        """`animals`: bool (H, W), all instances of the photo, so that none is copied into a hole.

        placement: as the windows were cut. On the `ground`, what has a matte is fitted into the photo.
        tries: of each instance; one without. On the `ground` alone.
        upscale: of what has a matte; without, it is interpolated.
        """
        self._pixels = photo.copy()
        self._model_size = model_size
        self._settings = settings
        self._animals = animals
        self._placement = placement
        self._tries, self._upscale = tries, upscale
        self._painted = np.zeros(photo.shape[:2], dtype=np.uint16)
        self._standing: list[Standing] = []

    def run(self, window: Rectangle, masks: Sequence[Mask], step: StepFunction) -> StepRecord:
        size = (self._pixels.shape[0], self._pixels.shape[1])
        made, chosen = self._best(window, masks, step)
        place, mattes = made.place, made.mattes
        x0, y0, x1, y1 = region = inside(reduce(hull, (window, made.window, place)), size)
        where = np.s_[y0:y1, x0:x1]
        old = together(masks, region)
        painted, front = self._painted[where], None
        if self._matte and made.depth != "before":
            front = painted > 0 if made.depth == "behind" else nearer(painted, old, feet_of(masks))
        raw = made.raw
        if self._upscale is not None and self._matte:
            scale = min((place[3] - place[1]) / raw.shape[0], (place[2] - place[0]) / raw.shape[1])
            raw, finer = self._upscale(raw, mattes, scale)
            mattes = np.stack([without_slivers(matte, old >= 0.5) for matte, old in zip(finer, mattes, strict=True)])
        local = (place[0] - x0, place[1] - y0, place[2] - x0, place[3] - y0)
        stands = self._matte and self._placement == "ground" and len(mattes) == 1
        blended, changed = blend(
            self._pixels[where],
            old,
            raw,
            mattes,
            self._settings,
            place=local,
            open_sides=(place[0] > 0, place[1] > 0, place[2] < size[1], place[3] < size[0]),
            painted=painted > 0,
            animals=None if self._animals is None else self._animals[where],
            in_front=front,
            fineness=mattes.shape[1] // made.mattes.shape[1],
            shade=shade_of(mattes[0], local, (y1 - y0, x1 - x0)) if stands else None,
        )
        hidden = None if front is None else Mask.from_crop(size, (x0, y0), front)
        there = Mask.from_crop(size, (x0, y0), changed)
        cx0, cy0, cx1, cy1 = there.box
        patch = np.ascontiguousarray(blended[cy0 - y0 : cy1 - y0, cx0 - x0 : cx1 - x0])
        return StepRecord(masks_of(mattes, len(masks), place, size, hidden), there, patch, chosen=chosen)

    def _best(self, window: Rectangle, masks: Sequence[Mask], step: StepFunction) -> tuple[_Made, ChosenTry | None]:
        """What the generator makes of the instances in `window`; of several tries what is sound and covers least."""
        # What is seen from the front looks to the side where there is room.
        turned = (False, True) if (window[3] - window[1]) > _FRONT * (window[2] - window[0]) else (False,)
        if not isinstance(self._tries, Tries):
            turn = self._turn(window, masks, step)
            if self._tries is not None:
                for _ in range(self._tries.count):
                    turn = self._tries.again(turn) or turn
            return self._made(window, masks, turn, turned), None
        best: tuple[float, _Made, int] | None = None
        tried = 0
        for made, trips in self._tried(window, masks, step, turned, self._tries):
            tried += 1
            # A speck has no legs that could be wrong: what became of the animal is not to be chosen for that.
            there = all(_area(matte, made.place) >= _LEAST_LEFT * sum(mask.area for mask in masks) / len(made.mattes)
                        for matte in made.mattes)  # fmt: skip
            worth = self._tries.grade(made.mattes) - made.lost - made.flat if there else -math.inf
            if best is None or worth > best[0]:
                best = worth, made, trips
            if worth >= _SOUND:
                break
        assert best is not None
        worth, made, trips = best
        grade = round(worth, 3) if math.isfinite(worth) else None
        return made, ChosenTry(grade, tried, made.window, trips, made.mirrored)

    def _tried(
        self, window: Rectangle, masks: Sequence[Mask], step: StepFunction, turned: tuple[bool, ...], tries: Tries
    ) -> Iterator[tuple[_Made, int]]:
        """View after view, and after each its round trips; with how many it took."""
        for view, trips in views(window, tries.count, tries.again is not None):
            turn: Turn | None = self._turn(view, masks, step)
            taken = 0
            while turn is not None:
                made = self._made(view, masks, turn, turned)
                yield made, taken
                if made.lost >= _LOST:
                    yield self._made(view, masks, turn, (not made.mirrored,)), taken
                turn = tries.again(turn) if taken < trips and tries.again is not None else None
                taken += 1

    def _turn(self, window: Rectangle, masks: Sequence[Mask], step: StepFunction) -> Turn:
        """What the generator makes of `window`."""
        model_size = self._model_size or (window[3] - window[1], window[2] - window[0])
        shown = np.stack([shrink_mask(mask.window(window), model_size) for mask in masks])
        return Turn.of(step, seen(self._pixels, masks, window, model_size).astype(np.float32), shown)

    def _made(self, window: Rectangle, masks: Sequence[Mask], turn: Turn, turned: tuple[bool, ...]) -> _Made:
        """What was made of `window` and its mattes, without slivers, where they belong."""
        raw, mattes, shown = turn.raw, turn.mattes, turn.masks
        if self._matte:
            olds = shown if len(mattes) == len(masks) else np.asarray(shown.any(axis=0, keepdims=True))
            mattes = np.stack([without_slivers(matte, old) for matte, old in zip(mattes, olds, strict=True)])
        if not self._matte or self._placement != "ground":
            return _Made(window, window, raw, mattes, False, 0)
        raw, mattes = on_all_feet(raw, mattes)
        found = find_place(window, masks, mattes, self._painted, self._animals, turned=turned)
        if found.mirrored:
            raw, mattes = np.ascontiguousarray(raw[:, ::-1]), np.ascontiguousarray(mattes[:, :, ::-1])
        depth, found = find_depth(found, masks, mattes, self._painted, self._standing)
        return _Made(window, found.place, raw, mattes, found.mirrored, found.lost, CUT_OFF * cut_above(mattes), depth)

    @property
    def _matte(self) -> bool:
        return self._settings.compositing.mode == "matte"

    def apply(self, record: StepRecord) -> None:
        x0, y0, x1, y1 = record.changed.box
        if record.patch is None:
            raise ValueError("expected a step of the photo's own scale")
        np.copyto(self._pixels[y0:y1, x0:x1], record.patch, where=record.changed.crop[:, :, None])
        for mask in record.masks:
            x0, y0, x1, y1 = mask.box
            self._painted[y0:y1, x0:x1][mask.crop] = min(y1, np.iinfo(np.uint16).max)
            self._standing = [one.behind(mask) for one in self._standing]
        self._standing += [Standing.of(mask) for mask in record.masks if mask.area]

    def picture(self) -> Pixels:
        return self._pixels

    def preview(self, side: int) -> Pixels:
        return self._pixels


class ModelSurface:
    """The whole photo at the model's size, in floats, as in the paper; back at the photo's size only at the end."""

    def __init__(self, photo: Pixels, frame: Rectangle, model_size: tuple[int, int], settings: Blend) -> None:
        """`frame`: from the photo's top left corner, the photo or a little more, mirrored at its border."""
        self._photo = photo
        self._frame = frame
        self._settings = settings
        self._state = shrink(cut(photo, frame), model_size)
        self._touched: BoolMask | None = None
        self._small: Pixels | None = None
        scale = max(1.0, frame[3] / model_size[0], frame[2] / model_size[1])
        self._seam = settings.seam * scale

    def run(self, window: Rectangle, masks: Sequence[Mask], step: StepFunction) -> StepRecord:
        size = (self._photo.shape[0], self._photo.shape[1])
        model_size = (self._state.shape[0], self._state.shape[1])
        raw, mattes = step(self._state, np.stack([shrink_mask(mask.window(window), model_size) for mask in masks]))
        new = masks_of(mattes, len(masks), window, size)
        where = np.ones(size, dtype=np.bool_)
        if self._settings.background == "exact":
            touched = np.zeros(size, dtype=np.bool_)
            for mask in (*masks, *new):
                touched |= mask.dense()
            where = distance(touched) <= self._seam
        return StepRecord(new, Mask.from_dense(where), None, raw)

    def apply(self, record: StepRecord) -> None:
        if record.state is None:
            raise ValueError("expected a step of the model's size")
        self._state = record.state
        if self._touched is None:
            self._touched = np.zeros(self._photo.shape[:2], dtype=np.bool_)
        x0, y0, x1, y1 = record.changed.box
        self._touched[y0:y1, x0:x1] |= record.changed.crop

    def picture(self) -> Pixels:
        if self._touched is None:
            return self._photo
        return self._composed(self._photo, self._touched, (self._frame[3], self._frame[2]), self._seam)

    def preview(self, side: int) -> Pixels:
        factor = side / max(self._photo.shape[:2])
        if self._touched is None or factor >= 1:
            return self.picture()
        height, width = (max(1, round(length * factor)) for length in self._photo.shape[:2])
        if self._small is None or self._small.shape[:2] != (height, width):
            self._small = resized(self._photo, (height, width))
        touched = shrink_mask(self._touched, (height, width))
        frame = (max(height, round(self._frame[3] * factor)), max(width, round(self._frame[2] * factor)))
        return self._composed(self._small, touched, frame, self._seam * factor)

    def _composed(self, photo: Pixels, touched: BoolMask, frame: tuple[int, int], seam: float) -> Pixels:
        """The state over `photo` (H, W, 3), all at one scale.

        touched: bool (H, W), the old and new masks.  frame: (H, W) of what the state shows.  seam: in pixels.
        """
        height, width = photo.shape[:2]
        out = photo.copy()
        exact = self._settings.background == "exact"
        # Rising from the border of the region to 1 at the depth of the seam, where old and new masks begin.
        weight = np.clip(distance(~touched) / (seam + 1), 0, 1) if exact else np.float32(1)
        for channel in range(3):
            plane = enlarged(np.ascontiguousarray(self._state[:, :, channel]), frame, smooth=True)[:height, :width]
            mixed = weight * plane + (1 - weight) * out[:, :, channel]
            out[:, :, channel] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return out


def _area(matte: State, place: Rectangle) -> float:
    """Pixels of the photo that a matte covers, put into `place`."""
    return float((matte >= 0.5).mean() * (place[2] - place[0]) * (place[3] - place[1]))
