"""Discriminators that look at a made instance in three ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instapipe.networks.blocks import initialise
from instapipe.networks.projected import FrozenBackbone, ProjectedHeads

WIDTH, HIDDEN = 64, 128
"""Channels that each scale of the features is mixed into, and those of the heads."""


class Adversary(nn.Module):
    """Discriminators of the window with its matte, of the instance on grey, and of its outline, white on black."""

    def __init__(self, channels: list[int], rng: torch.Generator) -> None:
        super().__init__()
        self.window, self.instance, self.outline = (
            ProjectedHeads(channels, rng, width=WIDTH, hidden=HIDDEN, mask_channel=masked)
            for masked in (True, False, False)
        )
        for heads in (self.window, self.instance, self.outline):
            initialise(heads.heads, rng)

    def forward(self, backbone: FrozenBackbone, image: Tensor, matte: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits, (B, 1, h, w) each: of the window, and of the instance and its outline.

        image: (B, 3, H, W) in [-1, 1].  matte: (B, 1, H, W) in [0, 1].
        """
        looks = torch.cat([image, image * matte, (2 * matte - 1).expand(-1, 3, -1, -1)])
        parts = [level.chunk(3) for level in backbone(looks)]
        window, instance, outline = (
            heads([part[number] for part in parts], matte)
            for number, heads in enumerate((self.window, self.instance, self.outline))
        )
        return window, instance + outline
