"""The sequential translation of one photo, each step from the cache or computed and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from instapipe import imaging
from instapipe.pipeline.formats import masks_bytes, read_masks
from instapipe.pipeline.plan import Layout, Step
from instapipe.pipeline.store import Store
from instapipe.pipeline.surfaces import ModelSurface, NativeSurface, StepFunction, StepRecord, Surface
from instapipe.structures import Instances, Mask, Photo, Pixels, Translation
from instapipe.translation.native import Blend


class Stopped(Exception):
    """A run was told to stop between two steps."""


@dataclass(slots=True)
class Rollout:
    """A translation, how it came about, and a small picture of the photo and of each step."""

    translation: Translation
    hits: list[bool] = field(default_factory=list)
    frames: list[Pixels] = field(default_factory=list)
    regions: list[tuple[int, int, int, int]] = field(default_factory=list)


def surface_for(photo: Photo, layout: Layout, blend: Blend) -> Surface:
    """Where the rollout of `photo` happens."""
    if layout.in_floats and layout.model_size is not None:
        return ModelSurface(photo.pixels, layout.frame, layout.model_size, blend)
    return NativeSurface(photo.pixels, layout.model_size, blend)


def roll_out(
    photo: Photo,
    pick: Callable[[Sequence[int]], Instances],
    steps: Sequence[Step],
    layout: Layout,
    blend: Blend,
    target: str,
    store: Store,
    step_function: StepFunction,
    stopped: Callable[[], bool] = lambda: False,
) -> Rollout:
    """Translate by `steps`; `pick` gives the instances of these numbers.

    One step's masks and buffers are alive at a time, so that memory does not grow with the number of instances.
    Raises Stopped between two steps once `stopped` says so: what was computed stays in the cache.
    """
    surface = surface_for(photo, layout, blend)
    changed = np.zeros(photo.size, dtype=np.bool_)
    side = imaging.frame_side(len(steps) + 1)
    before = [outline for step in steps for outline in imaging.outlines(pick(step.numbers), side)]
    rollout = Rollout(Translation(photo.pixels, Instances(photo.size), (), Mask.from_dense(changed)))
    rollout.frames.append(imaging.thumbnail(photo.pixels, before, "photo", side))
    after: list[imaging.Outline] = []
    packed: list[bytes] = []
    for step in steps:
        if stopped():
            raise Stopped
        entry = store.get("translate", step.inputs)
        rollout.hits.append(entry is not None)
        if entry is not None:
            record = StepRecord.read(entry.files)
        else:
            record = surface.run(step.window, pick(step.numbers).masks, step_function)
            store.put("translate", step.inputs, record.files())
        surface.apply(record)
        x0, y0, x1, y1 = record.changed.box
        changed[y0:y1, x0:x1] |= record.changed.crop
        rollout.regions.append(record.changed.box)
        new = _translated(pick(step.numbers), record.masks, target)
        packed.append(masks_bytes(photo.size, record.masks))
        after += imaging.outlines(new, side)
        # Named by number, as files and overlays name them.
        caption = f"step {len(rollout.hits)}: {', '.join(str(number) for number in step.numbers)}"
        rollout.frames.append(imaging.thumbnail(surface.picture(), after, caption, side))
    chosen = pick([number for step in steps for number in step.numbers])
    translated = _translated(chosen, [mask for data in packed for mask in read_masks(data)], target)
    rollout.translation = Translation(surface.picture(), translated, tuple(rollout.regions), Mask.from_dense(changed))
    return rollout


def _translated(chosen: Instances, masks: Sequence[Mask], target: str) -> Instances:
    """The masks that the `chosen` became, with their numbers and scores."""
    return Instances(chosen.size, tuple(masks), (target,) * len(chosen), chosen.scores, chosen.numbers)
