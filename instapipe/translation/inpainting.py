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


def remove(pixels: Pixels, mask: BoolMask, *, dilate: int, radius: int) -> Pixels:
    """`pixels` (H, W, 3) with what lies under `mask`, grown by `dilate`, filled in from around it (Telea, 2004).

    Where the mask covers everything there is nothing to fill in from: the pixels come back as they are.
    """
    hole = grow(mask, dilate)
    if not hole.any() or hole.all():
        return pixels
    return np.asarray(cv2.inpaint(pixels, hole.astype(np.uint8), radius, cv2.INPAINT_TELEA), dtype=np.uint8)


def backgrounds(images: Tensor, masks: Tensor, valid: Tensor, *, dilate: int, radius: int) -> Tensor:
    """The same for a batch inside the network's world, without gradient.

    images: (B, 3, H, W) in [-1, 1].  masks: (B, N, H, W) in [-1, 1].  valid: bool (B, N).
    Outside the grown masks the images come back bit by bit.
    """
    holes = ((masks > 0) & valid[:, :, None, None]).any(dim=1).cpu().numpy()
    pixels = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    array = pixels.permute(0, 2, 3, 1).cpu().numpy()
    filled = np.stack(
        [remove(np.ascontiguousarray(p), h, dilate=dilate, radius=radius) for p, h in zip(array, holes, strict=True)]
    )
    out = torch.from_numpy(filled).to(images.device).permute(0, 3, 1, 2).to(images.dtype) / 127.5 - 1
    inside = torch.from_numpy(np.stack([grow(h, dilate) for h in holes])).to(images.device)[:, None]
    return torch.where(inside, out, images.detach())
