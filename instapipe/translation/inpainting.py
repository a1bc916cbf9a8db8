"""The background behind an instance: what a photo shows once the old animal is gone."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from instapipe.structures import BoolMask, Pixels


def grow(mask: BoolMask, pixels: int) -> BoolMask:
    """`mask` dilated by a disc of that radius."""
    if pixels == 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(np.bool_)


def backgrounds(
    images: Tensor, masks: Tensor, valid: Tensor, *, dilate: int, radius: int, painted: Tensor | None = None
) -> Tensor:
    """Photos with what lies under the masks, grown by `dilate`, filled in from around it (Telea, 2004); no gradient.

    images: (B, 3, H, W) in [-1, 1].  masks: (B, N, H, W) in [-1, 1].  valid: bool (B, N).
    painted: bool (B, 1, H, W), what earlier steps made: it is no hole, and no hole is filled with it.
    Outside the holes the images come back bit by bit.
    """
    old = union(masks, valid)[:, 0].cpu().numpy()
    made = np.zeros_like(old) if painted is None else painted[:, 0].cpu().numpy()
    holes = [grow(o, dilate) & ~m for o, m in zip(old, made, strict=True)]
    pixels = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    array = pixels.permute(0, 2, 3, 1).cpu().numpy()
    filled = np.stack(
        [_filled(np.ascontiguousarray(p), h, m, radius) for p, h, m in zip(array, holes, made, strict=True)]
    )
    out = torch.from_numpy(filled).to(images.device).permute(0, 3, 1, 2).to(images.dtype) / 127.5 - 1
    return torch.where(torch.from_numpy(np.stack(holes)).to(images.device)[:, None], out, images.detach())


def union(masks: Tensor, valid: Tensor) -> Tensor:
    """Where any of the valid masks (B, N, H, W) in [-1, 1] is: bool (B, 1, H, W), without gradient."""
    return ((masks.detach() > 0) & valid[:, :, None, None]).any(dim=1, keepdim=True)


def _filled(pixels: Pixels, hole: BoolMask, unfit: BoolMask, radius: int) -> Pixels:
    """`pixels` with `hole` filled from outside `unfit`; from `unfit` too where it and the hole are all there is."""
    if not hole.any() or hole.all():
        return pixels
    unknown = hole | unfit
    if unknown.all():
        unknown = hole
    return np.asarray(cv2.inpaint(pixels, unknown.astype(np.uint8), radius, cv2.INPAINT_TELEA), dtype=np.uint8)
