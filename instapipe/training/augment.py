"""Differentiable augmentation of all that a discriminator sees (Zhao et al., NeurIPS 2020): colour and translation.

One draw for image and masks alike; real and translated samples are augmented by the same law, so that little data does
not teach the discriminator its photos by heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Augmentation:
    """One draw a sample. brightness, saturation, contrast: (B,).  shift: (B, 2), (y, x) as a share of the side."""

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift: Tensor

    @classmethod
    def sample(cls, batch: int, rng: torch.Generator, *, shift: float = 0.125) -> Augmentation:
        """Draw on the CPU, so that a GPU run and a CPU run see the same."""
        draw = torch.rand(batch, 5, generator=rng)
        return cls(
            draw[:, 0] * 0.6 - 0.3, draw[:, 1] * 1.2 + 0.4, draw[:, 2] * 0.6 + 0.7, (draw[:, 3:] * 2 - 1) * shift
        )

    def part(self, where: slice) -> Augmentation:
        """The draws of some of the samples."""
        return Augmentation(self.brightness[where], self.saturation[where], self.contrast[where], self.shift[where])

    def image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the same shape; may leave the range, as is usual."""
        brightness, saturation, contrast = (
            v.to(image.device)[:, None, None, None] for v in (self.brightness, self.saturation, self.contrast)
        )
        out = image + brightness
        grey = out.mean(dim=1, keepdim=True)
        out = (out - grey) * saturation + grey
        mean = out.mean(dim=(1, 2, 3), keepdim=True)
        return self.masks((out - mean) * contrast + mean, padding="reflection")

    def masks(self, masks: Tensor, padding: str = "border") -> Tensor:
        """Shift (B, N, H, W) by whole pixels."""
        if not masks.shape[1]:
            return masks  # padding refuses what has no channels
        h, w = masks.shape[-2:]
        margin_y, margin_x = int(h * 0.125) + 1, int(w * 0.125) + 1
        mode = "reflect" if padding == "reflection" else "replicate"
        padded = F.pad(masks, (margin_x, margin_x, margin_y, margin_y), mode=mode)
        # Two gathers for the whole batch: one sample after the other would be thousands of small kernels on a GPU.
        corners = [(margin_y + round(dy * h), margin_x + round(dx * w)) for dy, dx in self.shift.tolist()]
        top, left = torch.tensor(corners, device=masks.device).unbind(dim=1)
        y, x = (at[:, None] + torch.arange(side, device=masks.device) for at, side in ((top, h), (left, w)))
        rows = padded.gather(2, y[:, None, :, None].expand(-1, masks.shape[1], -1, padded.shape[3]))
        return rows.gather(3, x[:, None, None, :].expand(-1, masks.shape[1], h, -1))
