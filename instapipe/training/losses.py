"""The losses, pure functions named as in the paper (PAPER.md, Losses). Weights are applied once, in the step.

Every loss is a mean over each sample first, then over the batch, in which a sample that takes no part (`active` False)
counts as zero: a batch of n gives the mean of what its n samples give alone.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def batch_mean(per_sample: Tensor, active: Tensor) -> Tensor:
    """(B,), active bool (B,) -> scalar."""
    return (per_sample * active).sum() / active.numel()


def least_squares(scores: Tensor, target: float, active: Tensor) -> Tensor:
    """LSGAN: mean squared distance of the patch scores (B, 1, h, w) from `target` (1: real, 0: translated)."""
    return batch_mean((scores.float() - target).square().flatten(1).mean(dim=1), active)


def hinge_real(logits: list[Tensor], active: Tensor) -> Tensor:
    """Hinge loss of a discriminator on real samples, summed over the scales."""
    return _over_scales([F.relu(1 - scale.float()) for scale in logits], active)


def hinge_fake(logits: list[Tensor], active: Tensor) -> Tensor:
    """Hinge loss of a discriminator on translated samples."""
    return _over_scales([F.relu(1 + scale.float()) for scale in logits], active)


def hinge_generator(logits: list[Tensor], active: Tensor) -> Tensor:
    """What the generator minimises against hinge discriminators."""
    return _over_scales([-scale.float() for scale in logits], active)


def _over_scales(values: list[Tensor], active: Tensor) -> Tensor:
    first, *others = [batch_mean(v.flatten(1).mean(dim=1), active) for v in values]
    return sum(others, start=first)


def cycle_consistency(
    image: Tensor,
    masks: Tensor,
    returned_image: Tensor,
    returned_masks: Tensor,
    active: Tensor,
    mask_weight: float = 1.0,
) -> Tensor:
    """L1 between a sample and its way there and back: a mean over all 3 + N channels, padding included.

    `mask_weight` scales the masks' share (1 in the paper). The identity loss is the same function.
    """
    return batch_mean(cycle_errors(image, masks, returned_image, returned_masks, mask_weight), active)


def cycle_errors(
    image: Tensor, masks: Tensor, returned_image: Tensor, returned_masks: Tensor, mask_weight: float
) -> Tensor:
    """The same for each sample, (B,)."""
    channels = image.shape[1] + masks.shape[1]
    image_error = (returned_image - image).abs().float().mean(dim=(2, 3)).sum(dim=1)
    mask_error = (returned_masks - masks).abs().float().mean(dim=(2, 3)).sum(dim=1)
    return (image_error + mask_weight * mask_error) / channels


def context_weight(masks: Tensor, translated: Tensor) -> Tensor:
    """1 where a pixel is background before and after: 1 - clamp(sum of all masks in [0, 1], 0, 1); (B, 1, H, W)."""
    both = (masks + 1).sum(dim=1, keepdim=True) / 2 + (translated + 1).sum(dim=1, keepdim=True) / 2
    return 1 - both.clamp(0, 1)


def context_preserving(image: Tensor, translated: Tensor, weight: Tensor, active: Tensor) -> Tensor:
    """mean(w * |x - y'|) over all pixels and channels, not divided by sum(w)."""
    return batch_mean((weight * (image - translated).abs()).float().mean(dim=(1, 2, 3)), active)
