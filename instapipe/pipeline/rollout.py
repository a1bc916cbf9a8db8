"""The sequential translation of one photo, each step from the cache or computed and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from instapipe import imaging
from instapipe.pipeline.formats import masks_bytes, read_masks
from instapipe.pipeline.plan import Layout, Step, Stopped
from instapipe.pipeline.records import ChosenTry, StepRecord
from instapipe.pipeline.store import Store
from instapipe.pipeline.surfaces import ModelSurface, NativeSurface, RoundTrips, Surface, Tries, Upscale
from instapipe.structures import Instances, Mask, Photo, Pixels
from instapipe.translation.again import StepFunction
from instapipe.translation.native import Blend


@dataclass(slots=True)
class Rollout:
    """A translation and how it came about.

    pixels: uint8 (H, W, 3), the photo after the last step.  regions: per step the rectangle (x0, y0, x1, y1) outside
    which nothing changed.  chosen_tries: per step, None where there was one.  hits: per step, whether it came from
    the cache.  frames: small pictures of the photo and of each step.
    """

    pixels: Pixels
    target: str
    regions: list[tuple[int, int, int, int]] = field(default_factory=list)
    chosen_tries: list[ChosenTry | None] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)
    frames: list[Pixels] = field(default_factory=list)
    _packed: list[tuple[tuple[int, ...], tuple[float, ...], bytes]] = field(default_factory=list)

    def add(self, record: StepRecord, chosen: Instances, hit: bool) -> Instances:
        """Take a step in; returns its translated instances: the target's label, the numbers of their sources."""
        self._packed.append((chosen.numbers, chosen.scores, masks_bytes(chosen.size, record.masks)))
        self.regions.append(record.changed.box)
        self.chosen_tries.append(record.chosen)
        self.hits.append(hit)
        return self._instances(record.masks, chosen.scores, chosen.numbers)

    def translated(self) -> Iterator[Instances]:
        """The translated instances, a step at a time: together, 64 of them would be as large as the photo."""
        for numbers, scores, masks in self._packed:
            yield self._instances(read_masks(masks), scores, numbers)

    def uncover(self) -> None:
        """Of each translated instance what later steps did not paint over is left: what can be seen."""
        size = (self.pixels.shape[0], self.pixels.shape[1])
        later = np.zeros(size, dtype=np.bool_)
        for place, (numbers, scores, packed) in reversed(list(enumerate(self._packed))):
            masks = read_masks(packed)
            covers = [later[mask.box[1] : mask.box[3], mask.box[0] : mask.box[2]] for mask in masks]
            if any((mask.crop & cover).any() for mask, cover in zip(masks, covers, strict=True)):
                seen = [
                    Mask.from_crop(size, mask.box[:2], mask.crop & ~cover)
                    for mask, cover in zip(masks, covers, strict=True)
                ]
                self._packed[place] = (numbers, scores, masks_bytes(size, seen))
            for mask, cover in zip(masks, covers, strict=True):
                cover |= mask.crop

    def _instances(self, masks: tuple[Mask, ...], scores: tuple[float, ...], numbers: tuple[int, ...]) -> Instances:
        size = (self.pixels.shape[0], self.pixels.shape[1])
        return Instances(size, masks, (self.target,) * len(masks), scores, numbers)


def surface_for(
    photo: Photo,
    layout: Layout,
    blend: Blend,
    found: Sequence[int],
    pick: Callable[[Sequence[int]], Instances],
    tries: Tries | RoundTrips | None = None,
    upscale: Upscale | None = None,
) -> Surface:
    """Where the rollout of `photo` happens; `found`: the numbers of all its instances, chosen or not."""
    if layout.in_floats and layout.model_size is not None:
        return ModelSurface(photo.pixels, layout.frame, layout.model_size, blend)
    animals = np.zeros(photo.size, dtype=np.bool_)
    for number in found:
        (mask,) = pick([number]).masks
        x0, y0, x1, y1 = mask.box
        animals[y0:y1, x0:x1] |= mask.crop
    return NativeSurface(photo.pixels, layout.model_size, blend, animals, layout.placement, tries, upscale)


def roll_out(
    photo: Photo,
    pick: Callable[[Sequence[int]], Instances],
    steps: Sequence[Step],
    found: Sequence[int],
    layout: Layout,
    blend: Blend,
    target: str,
    store: Store,
    step_function: StepFunction,
    stopped: Callable[[], bool] = lambda: False,
    tries: Tries | RoundTrips | None = None,
    upscale: Upscale | None = None,
) -> Rollout:
    """Translate by `steps`; `pick` gives the instances of these numbers, of which the photo has those of `found`.

    One step's masks and buffers are alive at a time, so that memory does not grow with the number of instances.
    Raises Stopped between two steps once `stopped` says so: what was computed stays in the cache.
    """
    surface = surface_for(photo, layout, blend, found, pick, tries, upscale)
    side = imaging.frame_side(len(steps) + 1)
    before = [outline for step in steps for outline in imaging.outlines(pick(step.numbers), side)]
    rollout = Rollout(photo.pixels, target)
    rollout.frames.append(imaging.thumbnail(photo.pixels, before, "photo", side))
    after: list[imaging.Outline] = []
    for step in steps:
        if stopped():
            raise Stopped
        chosen = pick(step.numbers)
        entry = store.get("translate", step.inputs)
        if entry is not None:
            record = StepRecord.read(entry.files)
        else:
            record = surface.run(step.window, chosen.masks, step_function)
            store.put("translate", step.inputs, record.files())
        surface.apply(record)
        after += imaging.outlines(rollout.add(record, chosen, entry is not None), side)
        # Named by number, as files and overlays name them.
        caption = f"step {len(rollout.hits)}: {', '.join(str(number) for number in step.numbers)}"
        rollout.frames.append(imaging.thumbnail(surface.preview(side), after, caption, side))
        del record, chosen  # else their masks, of the photo's size, were there while the next step runs
    rollout.pixels = surface.picture()
    if blend.compositing.mode == "matte":
        rollout.uncover()
    return rollout
