"""Coats of real animals, as the correlations of their features, for a generator to learn.

Only a lesson's outline and its coarse colours need to come from what was made. Where the weights that made it work at
fewer pixels than are to be learnt, its coat is a blur, and real ones say what one looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from instapipe.config import TranslatorCard
from instapipe.data.domains import Cutting, cut_samples
from instapipe.data.photos import AnnotatedPhoto
from instapipe.data.samples import Sample
from instapipe.errors import DataError
from instapipe.networks.projected import FrozenBackbone

_INSIDE = 0.95
"""A place counts whose cell is inside the outline to this share: elsewhere features see what lies around."""


@dataclass(frozen=True, slots=True, eq=False)
class Coats:
    """images: (N, 3, S, S) in [-1, 1], 0 outside the animals.  mattes: (N, 1, S, S) in [0, 1]."""

    images: Tensor
    mattes: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, photos: Sequence[AnnotatedPhoto], card: TranslatorCard, size: int) -> Coats:
        """Of windows as the weights of `card` learnt them, animals that have so many pixels at least.

        Raises DataError where there is none.
        """
        cutting = Cutting(
            mode="window", size=size, load_size=size, window_scale=card.target_window_scale or card.window_scale,
            placement=card.placement, max_instances=1, max_cut=0.15, facing=card.facing,
        )  # fmt: skip
        # Enlarged, an animal's coat is a blur, too.
        least = round(size / cutting.window_scale)
        cutting = cutting.model_copy(update={"min_side": least})
        dropped: dict[str, int] = {}
        samples: list[Sample] = [each for photo in photos for each in cut_samples(photo, cutting, dropped)]
        if not samples:
            raise DataError(f"no coat: of {len(photos)} photos none shows an animal of {least} pixels")
        images = np.stack([sample.image for sample in samples]).astype(np.float32) / np.float32(127.5) - 1
        mattes = torch.from_numpy(np.stack([sample.masks[0] for sample in samples]).astype(np.float32))[:, None]
        return cls(torch.from_numpy(images).permute(0, 3, 1, 2) * mattes, mattes)

    @torch.no_grad()
    def correlations(self, backbone: FrozenBackbone, device: torch.device, batch: int = 8) -> list[Tensor]:
        """The mean of their correlations at each level of `backbone`: (1, C, C) each."""
        sums: list[Tensor] = []
        for start in range(0, len(self), batch):
            part = slice(start, start + batch)
            mattes = self.mattes[part].to(device)
            levels = backbone(self.images[part].to(device))
            found = [correlations(level.float(), mattes).sum(dim=0, keepdim=True) for level in levels]
            sums = [one + two for one, two in zip(sums, found, strict=True)] if sums else found
        return [each / len(self) for each in sums]


def correlations(features: Tensor, mattes: Tensor) -> Tensor:
    """Covariances of channels, (B, C, h, w) -> (B, C, C), of places inside `mattes`, (B, 1, H, W) in [0, 1].

    Inside is what is half opaque or more; zero where no place is. Without the means: how light or dark a coat is stays
    what it was.
    """
    side = (features.shape[-2], features.shape[-1])
    weights = (F.adaptive_avg_pool2d((mattes >= 0.5).float(), side) >= _INSIDE).float()
    weights = (weights / weights.sum(dim=(2, 3), keepdim=True).clamp_min(1)).flatten(2)
    flat = features.flatten(2)
    centred = flat - (flat * weights).sum(dim=2, keepdim=True)
    return (centred * weights) @ centred.transpose(1, 2)
