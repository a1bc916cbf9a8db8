"""Real samples taken apart and put back together the way fakes are made.

With matte compositing a fake always stands on an inpainted hole with a softened edge, and a real sample never does. A
discriminator would learn the hole instead of the animal. So some of the real samples get one too: a hole of the shape
of some instance of the *other* domain behind the real instance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instapipe.config import CompositingConfig
from instapipe.data.samples import Batch
from instapipe.translation.inpainting import backgrounds
from instapipe.translation.step import union_matte


def recomposite(real: Batch, other: Batch, config: CompositingConfig, chosen: Tensor) -> Tensor:
    """The real images (B, 3, H, W), the chosen ones (bool (B,)) recomposited over a hole of `other`'s shape."""
    chosen = chosen.to(real.image.device)
    if not bool(chosen.any()):
        return real.image
    masks = torch.cat([real.masks, other.masks], dim=1)
    valid = torch.cat([real.valid, other.valid], dim=1) & chosen[:, None]
    behind = backgrounds(real.image, masks, valid, dilate=config.dilate, radius=config.inpaint_radius)
    matte = union_matte(real.masks, real.valid, config.soften)
    out = matte * real.image + (1 - matte) * behind
    return torch.where(chosen[:, None, None, None], out, real.image)
