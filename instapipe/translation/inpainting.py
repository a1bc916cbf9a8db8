"""The background behind an instance: what a photo shows once the old animal is gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from instapipe.imaging.telea import grow, smoothly_filled


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
    work = smoothly_filled, map(np.ascontiguousarray, array), holes, made, repeat(radius)
    threads = min(len(array), torch.get_num_threads())
    if threads > 1:  # OpenCV lets go of Python's lock
        with ThreadPoolExecutor(threads) as pool:
            filled = list(pool.map(*work))
    else:
        filled = list(map(*work))
    out = torch.from_numpy(np.stack(filled)).to(images.device).permute(0, 3, 1, 2).to(images.dtype) / 127.5 - 1
    return torch.where(torch.from_numpy(np.stack(holes)).to(images.device)[:, None], out, images.detach())


def union(masks: Tensor, valid: Tensor) -> Tensor:
    """Where any of the valid masks (B, N, H, W) in [-1, 1] is: bool (B, 1, H, W), without gradient."""
    return ((masks.detach() > 0) & valid[:, :, None, None]).any(dim=1, keepdim=True)
