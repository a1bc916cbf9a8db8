"""Learning in the world of bars: a setting that learns it in a CPU minute, scores, and baselines that must fail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bar_world as world
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from instapipe.config import build, put
from instapipe.data.domains import Domain, derive
from instapipe.data.noise import MaskNoise
from instapipe.data.samples import Sample
from instapipe.imaging.shown import shown_masks
from instapipe.networks.generator import SetGenerator
from instapipe.structures import Instances, Mask
from instapipe.training import loop
from instapipe.training.config import TrainConfig
from instapipe.training.run import shown_generator, start
from instapipe.translation.inpainting import union
from instapipe.translation.step import instance_steps, translate_step
from instapipe.verdict.matching import pair

SETTINGS = """
steps: 96
batch_size: 4
data: {mode: photo, size: 32, load_size: 32, max_instances: 5, instances_per_step: 2, order: largest}
generator: {form: resize, width: 8, encoder_blocks: 1, decoder_blocks: 1}
compositing: {mode: matte, soften: 1, dilate: 1, inpaint_radius: 3}
discriminator_width: 16
losses: {adversarial: 1, cycle: 10, identity: 0, context: 2, detach_context: true}
pool_size: 0
augment: true
recomposite_reals: 0.5
learning_rate: 0.001
betas_discriminator: [0.0, 0.99]
ema: 0.99
precision: float32
held_out: 2
sample_every: 100000
save_every: 100000
"""
LEARNT, UNSEEN = 200, 48
FOUND = 0.3
"""A re-segmented bar is of an instance from this IoU on, as the verdict has it."""

Masks = NDArray[np.bool_]
Segment = Any
"""From uint8 (S, S, 3) to the masks that a segmenter finds, bool (N, S, S)."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over the instances of unseen photos.

    masks: IoU of each returned mask with the right answer.  pixels: IoU of the right answer with its bar as it is
    re-segmented from the picture, one to one; 0 where there is none.  kept: share that has one at all.  miscounted:
    re-segmented standing bars too many or too few, a photo.  background: L1 in [0, 1] outside the old bars and
    the right answers.
    """

    masks: float
    pixels: float
    kept: float
    miscounted: float
    background: float

    def learnt(self) -> bool:
        """What the long form asks for."""
        return self.masks >= 0.7 and self.pixels >= 0.7 and self.kept >= 0.95 and self.background <= 0.02


def settings(**changes: object) -> TrainConfig:
    """SETTINGS with changes by dotted name (`data__order` for `data.order`)."""
    content: dict[str, Any] = yaml.safe_load(SETTINGS)
    for name, value in changes.items():
        put(content, name.replace("__", "."), value)
    return build(TrainConfig, content, "bars")


def domains(
    config: TrainConfig, seed: int, segments: tuple[Segment, Segment] | None = None, noise: MaskNoise | None = None
) -> tuple[Domain, Domain]:
    """Photos of lying and, other ones, of standing bars.

    segments: two segmenters; each photo's masks are made by the one that did not learn from it. None: masks as painted.
    noise: errors for the masks that generators are given, on top.
    """
    made = []
    for side, lying in enumerate((True, False)):
        samples = []
        for number in range(LEARNT):
            scene = world.scene(scene_seed(seed, side, number))
            photo = scene.photo(lying)
            masks = scene.masks(lying) if segments is None else segments[1 - number % 2](photo)
            if len(masks):
                samples.append(Sample(photo, masks, f"{side}-{number}"))
        made.append(
            Domain(("lying", "standing")[side], config.data, tuple(samples), tuple(samples[:2]), {}, noise=noise)
        )
    return made[0], made[1]


def scene_seed(seed: int, side: int, number: int) -> int:
    """No scene is shown twice: side 2 is for what nobody has seen."""
    return (seed * 3 + side) * 100_000 + number


def unseen(seed: int) -> list[world.Scene]:
    """Scenes to be scored on."""
    return [world.scene(scene_seed(seed, 2, number)) for number in range(UNSEEN)]


def learn(config: TrainConfig, sides: tuple[Domain, Domain], folder: Path) -> SetGenerator:
    """Train as `instapipe train` does; the generator from lying to standing."""
    run = start(config, *sides, folder)
    for _ in loop.train(run):
        pass
    return shown_generator(run, "source_to_target")


def translated(
    generator: SetGenerator, config: TrainConfig, scenes: list[world.Scene], segment: Segment | None = None
) -> list[tuple[NDArray[np.uint8], Masks]]:
    """Of each scene with its bars lying: the picture after all steps, and per bar the returned mask (empty where no
    mask was found that is its)."""
    out = []
    data = config.data
    for number, scene in enumerate(scenes):
        photo, right = scene.photo(True), scene.masks(True)
        masks = right if segment is None else segment(photo)
        if not len(masks):
            out.append((photo, np.zeros_like(right)))
            continue
        order = np.argsort([-int(mask.sum()) for mask in masks], kind="stable")
        if data.order == "smallest":
            order = order[::-1]
        elif data.order == "random":
            order = np.random.default_rng(derive(config.seed, "order", number)).permutation(len(masks))
        shown = masks[order]
        image = torch.from_numpy(photo.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        given = shown_masks(shown, data.masks)
        returned: list[Masks] = []
        painted = torch.zeros(1, 1, world.SIDE, world.SIDE, dtype=torch.bool)
        for chosen in instance_steps(len(given), data.instances_per_step):
            part = torch.from_numpy(given[chosen.start : chosen.stop]).float()[None] * 2 - 1
            valid = torch.ones(part.shape[:2]).bool()
            with torch.no_grad():
                step = translate_step(generator, image, part, valid, config.compositing, painted)
            image, painted = step.image, painted | union(step.masks, valid)
            returned += [mask.numpy() > 0 for mask in step.masks[0]]
        if data.masks == "union":
            returned *= len(shown)
        elif data.masks == "none":
            returned = list(shown)
        pixels = ((image[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        out.append((pixels, _by_bar(right, shown, returned)))
    return out


def _by_bar(right: Masks, shown: Masks, returned: list[Masks]) -> Masks:
    """The returned mask of each bar, by which shown mask is the bar's."""
    empty = np.zeros_like(right[0])
    matches = pair(instances(right), instances(shown))
    return np.stack([empty if match is None else returned[match] for match in matches])


def instances(masks: Masks) -> Instances:
    """Masks bool (N, S, S), as the pipeline's."""
    made = tuple(Mask.from_dense(mask) for mask in masks)
    return Instances((world.SIDE, world.SIDE), made, ("bar",) * len(made), (1.0,) * len(made))


def copied(scenes: list[world.Scene]) -> list[tuple[NDArray[np.uint8], Masks]]:
    """The baseline that does nothing: the photo and its masks."""
    return [(scene.photo(True), scene.masks(True)) for scene in scenes]


def recoloured(scenes: list[world.Scene]) -> list[tuple[NDArray[np.uint8], Masks]]:
    """The baseline that changes the texture only, and that perfectly: blue bars that lie."""
    return [(scene.photo(True, world.BLUE), scene.masks(True)) for scene in scenes]


def score(scenes: list[world.Scene], made: list[tuple[NDArray[np.uint8], Masks]]) -> Scores:
    """See :class:`Scores`."""
    masks, pixels, wrong, background = [], [], [], []
    for scene, (picture, returned) in zip(scenes, made, strict=True):
        right = scene.masks(False)
        masks += [world.iou(one, two) for one, two in zip(returned, right, strict=True)]
        # Bars of any direction explain the pixels; only those that stand can be answers.
        found = world.segment(world.colour_of(picture, blue=True))
        standing = [bar.mask(False) for lying, bar in found if not lying]
        table = np.array([[world.iou(answer, bar) for bar in standing] for answer in right]).reshape(len(right), -1)
        pixels += _one_to_one(table)
        wrong.append(abs(len(standing) - len(right)))
        outside = ~(right.any(axis=0) | scene.masks(True).any(axis=0))
        background.append(np.abs(picture.astype(float) - scene.photo(True))[outside].mean() / 255)
    kept = np.mean(np.array(pixels) >= FOUND)
    return Scores(*(float(np.mean(each)) for each in (masks, pixels, kept, wrong, background)))


def _one_to_one(table: NDArray[np.float64]) -> list[float]:
    """The IoU of each row with its own column, best pairs first; 0 for rows left over."""
    out = [0.0] * len(table)
    left = table.copy()
    while left.size and left.max() > 0:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        out[int(row)] = float(left[row, column])
        left[row, :], left[:, column] = 0, 0
    return out
