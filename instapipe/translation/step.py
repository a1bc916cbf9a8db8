"""One step of the sequential translation: the same code in training and in translation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from instapipe.config import CompositingConfig
from instapipe.networks.generator import SetGenerator, soften
from instapipe.translation.inpainting import backgrounds, union


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """What one step made of a batch.

    image: (B, 3, H, W) in [-1, 1], what the next step starts from.  masks: (B, N, H, W) in [-1, 1].
    raw: the generator's own image.  matte: (B, 1, H, W) in [0, 1], how much of `raw` there is in `image`.
    background: (B, 3, H, W), what lies behind the matte (the input image where the mode is `whole`).
    """

    image: Tensor
    masks: Tensor
    raw: Tensor
    matte: Tensor
    background: Tensor


def translate_step(
    generator: SetGenerator,
    image: Tensor,
    masks: Tensor,
    valid: Tensor,
    compositing: CompositingConfig,
    painted: Tensor | None = None,
) -> StepResult:
    """Translate the valid instances of each sample together.

    image: (B, 3, H, W) in [-1, 1].  masks: (B, N, H, W) in [-1, 1].  valid: bool (B, N).
    painted: bool (B, 1, H, W), what earlier steps made; with `matte`, no hole is filled over it.
    A sample without a valid instance comes back as it was.
    """
    raw, new_masks = generator(image, masks, valid)
    if compositing.mode == "whole":
        changed = valid.any(dim=1)[:, None, None, None]
        return StepResult(raw, new_masks, raw, changed.to(raw.dtype).expand(-1, 1, *raw.shape[-2:]), image)
    behind = {"dilate": compositing.dilate, "radius": compositing.inpaint_radius}
    background = backgrounds(image, masks, valid, painted=painted, **behind)
    matte = union_matte(new_masks, valid, compositing.soften)
    composite = matte * raw + (1 - matte) * background
    composite = torch.where(valid.any(dim=1)[:, None, None, None], composite, image)
    return StepResult(composite, new_masks, raw, matte, background)


def translate_in_turn(
    generator: SetGenerator, image: Tensor, masks: Tensor, valid: Tensor, per_step: int, compositing: CompositingConfig
) -> Iterator[StepResult]:
    """Translate the instances of each sample one step after the other, `per_step` at a time.

    Arguments as of :func:`translate_step`. What a step made is never a hole of a later one.
    """
    painted = union(masks[:, :0], valid[:, :0])
    for chosen in instance_steps(masks.shape[1], per_step):
        now = slice(chosen.start, chosen.stop)
        step = translate_step(generator, image, masks[:, now], valid[:, now], compositing, painted)
        yield step
        image, painted = step.image, painted | union(step.masks, valid[:, now])


def union_matte(masks: Tensor, valid: Tensor, width: int) -> Tensor:
    """The soft union of the valid masks (B, N, H, W) in [-1, 1]: (B, 1, H, W) in [0, 1], softened over `width` px."""
    mattes = soften((masks + 1) / 2 * valid[:, :, None, None], width)
    return 1 - (1 - mattes).prod(dim=1, keepdim=True)


def instance_steps(count: int, per_step: int) -> list[range]:
    """Which instances each step takes: all of them, the last step maybe with fewer (the original lost those)."""
    return [range(first, min(first + per_step, count)) for first in range(0, count, per_step)]
