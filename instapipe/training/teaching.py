"""A generator learns to make at once what was the best of its own tries (:mod:`instapipe.training.lessons`).

Supervised, so without discriminators: outlines and features of outlines as they were chosen; colours where they were
chosen, looked at coarsely; and the textures' correlations instead of the textures (Gatys et al., "Image style transfer
using convolutional neural networks", CVPR 2016), for a mean of coats would be a blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instapipe.data.domains import derive
from instapipe.errors import DataError
from instapipe.networks.generator import SetGenerator
from instapipe.networks.grader import Grader
from instapipe.networks.projected import FrozenBackbone
from instapipe.training.ema import average_of
from instapipe.training.lessons import Lessons, worth_of
from instapipe.training.precision import Choice, choose_precision
from instapipe.training.resumable import Resumable
from instapipe.translation.native import without_slivers

LEVELS = (0, 1, 2, 3)
"""Of the frozen network, those at 1/2 to 1/16 of its input's side."""
_MATTE, _COLOUR, _BEHIND, _OUTLINE, _INSIDE, _STYLE = 4.0, 2.0, 2.0, 1.0, 0.5, 0.5
"""Weights of the losses; _BEHIND: of pixels outside the outline, which shall continue the coat. Nobody sees them there,
and left alone a generator with instance norms paints a glaring spot, into which another view's animal may reach."""
_REACH, _FAR = 15, 1e-2
"""How far a coat is continued by its nearest colours, pixels; where that is less than such a share, by its mean."""
_COARSE = 6
"""Colours are compared as means of so many pixels squared."""
_WARM = 30
_BETAS, _AVERAGE = (0.9, 0.99), 0.99
_PART, _MOST_HELD_OUT = 8, 96


@dataclass(frozen=True, slots=True)
class Teaching:
    """steps of `batch` lessons with a grade of `least` at least.  rate: at first, falling to 0."""

    steps: int = 1000
    batch: int = 8
    rate: float = 2e-4
    least: float = 1.5
    seed: int = 0


class Teacher(Resumable[SetGenerator]):
    """The state of a run: generator, average, optimiser, the step reached. Raises DataError."""

    settings: Teaching

    def __init__(
        self,
        generator: SetGenerator,
        lessons: Lessons,
        grader: Grader,
        backbone: FrozenBackbone,
        settings: Teaching,
        device: torch.device,
    ) -> None:
        """generator: is changed.  backbone: of :data:`LEVELS`."""
        self.settings, self.step = settings, 0
        self._lessons, self._grader, self._backbone = lessons, grader, backbone.to(device)
        self._device = device
        self._network = generator.to(device).requires_grad_(True).train()
        self.average = average_of(self._network)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.rate, betas=_BETAS)
        out = held_out(lessons.photos)
        self.learnt = np.flatnonzero(~out & (lessons.grades >= settings.least))
        order = np.random.default_rng(derive(settings.seed, "held out")).permutation(np.flatnonzero(out))
        self.held_out = np.sort(order[:_MOST_HELD_OUT])
        if len(self.learnt) < settings.batch or not len(self.held_out):
            raise DataError(
                f"{len(self.learnt)} of {len(lessons)} lessons have a grade of {settings.least:g}, a step takes "
                f"{settings.batch}: more photos, more views, or a lower --least"
            )
        self.precision: Choice = choose_precision("auto", self._trial, device)

    def _trial(self, precision: str) -> None:
        self._losses(self.learnt[:2], precision)["all"].backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()

    def _advance(self) -> dict[str, float]:
        settings = self.settings
        rng = np.random.default_rng(derive(settings.seed, "teach", self.step))
        chosen = rng.choice(self.learnt, settings.batch, replace=False)
        self._learn_at(settings.rate * min(1.0, (self.step + 1) / _WARM) * (1 - self.step / settings.steps))
        losses = self._losses(chosen)
        self._descend(losses["all"], _AVERAGE)
        return {name: value.item() for name, value in losses.items()}

    @torch.inference_mode()
    def measure(self) -> float:
        """The mean grade of the first try, by the average, on photos that nothing is learnt from."""
        grades = []
        for start in range(0, len(self.held_out), self.settings.batch):
            chosen = self.held_out[start : start + self.settings.batch]
            image, masks, *_ = self._batch(chosen)
            _, made = self.average(image, masks, masks.new_ones(len(chosen), 1, dtype=torch.bool))
            for matte, number in zip(((made[:, 0] + 1) / 2).cpu().numpy(), chosen, strict=True):
                grades.append(worth_of(self._grader, without_slivers(matte, self._lessons.masks[number])))
        return float(np.mean(grades))

    def _batch(self, chosen: NDArray[np.intp]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image and mask that are shown, (B, 3, S, S) and (B, 1, S, S) in [-1, 1]; image in [-1, 1] and matte in
        [0, 1] that are asked for."""
        lessons = self._lessons
        shown, raw = (
            torch.from_numpy(pixels[chosen].astype(np.float32) / np.float32(127.5) - 1).permute(0, 3, 1, 2)
            for pixels in (lessons.pixels, lessons.raws)
        )
        masks = torch.from_numpy(lessons.masks[chosen].astype(np.float32) * 2 - 1)[:, None]
        matte = torch.from_numpy(lessons.mattes[chosen].astype(np.float32) / 255)[:, None]
        image, mask, wanted, outline = (each.to(self._device) for each in (shown, masks, raw, matte))
        return image, mask, wanted, outline

    def _losses(self, chosen: NDArray[np.intp], precision: str | None = None) -> dict[str, Tensor]:
        image, masks, wanted, outline = self._batch(chosen)
        with self._autocast(precision):
            raw, made = self._network(image, masks, masks.new_ones(len(chosen), 1, dtype=torch.bool))
            raw, matte = raw.float(), (made.float() + 1) / 2
            ours = [level.float() for level in self._backbone(looked_at(raw, matte))]
            with torch.no_grad():
                theirs = [level.float() for level in self._backbone(looked_at(wanted, outline))]
        losses = teaching_losses(raw, matte, wanted, outline, ours, theirs)
        losses["all"] = torch.stack(list(losses.values())).sum()
        return losses


def teaching_losses(
    raw: Tensor, matte: Tensor, wanted: Tensor, outline: Tensor, ours: list[Tensor], theirs: list[Tensor]
) -> dict[str, Tensor]:
    """By name, weighted.

    raw, wanted: (B, 3, S, S) in [-1, 1].  matte, outline: (B, 1, S, S) in [0, 1].
    ours, theirs: features of (2 B) pictures at four levels, finest first: outlines, then the instances on grey.
    """
    count = len(raw)
    outlines = [(relative(one[:count], two[:count])) for one, two in zip(ours[1:], theirs[1:], strict=True)]
    styles = [relative(gram(one[count:]), gram(two[count:])) for one, two in zip(ours[:-1], theirs[:-1], strict=True)]
    return {
        "matte": _MATTE * (matte - outline).abs().mean(),
        "colour": _COLOUR * (_coarse(raw * matte) - _coarse(wanted * outline)).abs().mean(),
        "behind": _BEHIND * ((1 - outline) * (raw - continued(wanted, outline)).abs()).mean(),
        "outline": _OUTLINE * torch.stack(outlines).mean(),
        "inside": _INSIDE * relative(ours[-1][count:], theirs[-1][count:]),
        "style": _STYLE * torch.stack(styles).sum(),
    }


def divided(name: str, photos: Sequence[str], batch: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The numbers of windows of `photos` that are learnt from, `batch` a step, and of those that are held out.

    By the photo's name: one that shows both classes is held out of both. Raises DataError where there is too little to
    learn from, or nothing to hold out.
    """
    out = held_out(tuple(photos))
    learnt, rest = np.flatnonzero(~out), np.flatnonzero(out)
    if len(learnt) < batch or len(rest) < 2:
        raise DataError(
            f"{len(learnt)} windows of {name} can be learnt from, of which a step takes {batch}; "
            f"{len(rest)} are held out, 2 at least must be: more photos, or more --views"
        )
    return learnt, rest


def held_out(photos: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which lessons are of photos that are not learnt from: bool (N,); an eighth of the photos, one at least.

    By their names alone: a second run, from what a first one made, holds out the same.
    """
    order = {name: derive(0, "held out", name) for name in set(photos)}
    apart = {name for name, value in order.items() if value % _PART == 0} or {min(order, key=lambda name: order[name])}
    return np.array([photo in apart for photo in photos], dtype=np.bool_)


def looked_at(raw: Tensor, matte: Tensor) -> Tensor:
    """Outlines, white on black, then the instances on grey: (2 B, 3, S, S) in [-1, 1]."""
    return torch.cat([(2 * matte - 1).expand(-1, 3, -1, -1), raw * matte])


def relative(one: Tensor, two: Tensor) -> Tensor:
    """The mean difference, as a share of the second's mean size."""
    return (one - two).abs().mean() / (two.abs().mean() + 1e-6)


def gram(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, C), mean products of channels."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def continued(image: Tensor, outline: Tensor) -> Tensor:
    """The colours inside an outline, (B, 3, S, S) and (B, 1, S, S) in [0, 1], smoothly continued beyond it."""

    def near(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * _REACH + 1, stride=1, padding=_REACH, count_include_pad=False)

    inside = image * outline
    mean = inside.sum(dim=(2, 3), keepdim=True) / (outline.sum(dim=(2, 3), keepdim=True) + 1e-6)
    return (near(inside) + _FAR * mean) / (near(outline) + _FAR)


def _coarse(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, _COARSE)
