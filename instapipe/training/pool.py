"""The pool of past fakes (Shrivastava et al., 2017): image, masks and validity are kept together."""

from __future__ import annotations

import torch
from torch import Tensor

Fake = tuple[Tensor, Tensor, Tensor]


class FakePool:
    """Half of the fakes that discriminators see come from the past."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[Fake] = []

    def exchange(self, image: Tensor, masks: Tensor, valid: Tensor, rng: torch.Generator) -> Fake:
        """Store the batch's fakes, sample by sample, and give back as many, each one new or from the past.

        image (B, 3, H, W), masks (B, N, H, W), valid (B, N): a pool holds samples of one shape.
        """
        if self.size == 0:
            return image, masks, valid
        out: list[Fake] = []
        for sample in zip(image, masks, valid, strict=True):
            fresh: Fake = (sample[0], sample[1], sample[2])
            if len(self.kept) < self.size:
                self.kept.append(fresh)
                out.append(fresh)
            elif float(torch.rand((), generator=rng)) < 0.5:
                place = int(torch.randint(self.size, (), generator=rng))
                out.append(self.kept[place])
                self.kept[place] = fresh
            else:
                out.append(fresh)
        return (torch.stack([f[0] for f in out]), torch.stack([f[1] for f in out]), torch.stack([f[2] for f in out]))

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors only."""
        if not self.kept:
            return {}
        image, masks, valid = (torch.stack(list(part)) for part in zip(*self.kept, strict=True))
        return {"image": image, "masks": masks, "valid": valid}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore."""
        self.kept = list(zip(state["image"], state["masks"], state["valid"], strict=True)) if state else []
