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

    def exchange(self, image: Tensor, masks: Tensor, valid: Tensor, active: Tensor, rng: torch.Generator) -> Fake:
        """Store the batch's fakes, sample by sample, and give back as many, each one new or from the past.

        image (B, 3, H, W), masks (B, N, H, W), valid (B, N); active bool (B,): the others, which were not translated
        now, are neither stored nor replaced. Given back with N' >= N masks, padded: a fake of a later sequential step
        shows more of them.
        """
        if self.size == 0:
            return image, masks, valid
        out: list[Fake] = []
        for *sample, takes_part in zip(image, masks, valid, active.tolist(), strict=True):
            # Copies: a view would keep the whole batch.
            fresh: Fake = (sample[0].clone(), sample[1].clone(), sample[2].clone())
            if not takes_part:
                out.append(fresh)
            elif len(self.kept) < self.size:
                self.kept.append(fresh)
                out.append(fresh)
            elif float(torch.rand((), generator=rng)) < 0.5:
                place = int(torch.randint(self.size, (), generator=rng))
                out.append(self.kept[place])
                self.kept[place] = fresh
            else:
                out.append(fresh)
        return _stack(out)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors only; counts: how many masks each fake has, padding of its own included."""
        if not self.kept:
            return {}
        image, masks, valid = _stack(self.kept)
        counts = torch.tensor([len(fake[2]) for fake in self.kept])
        return {"image": image, "masks": masks, "valid": valid, "counts": counts}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Restore, on `device`."""
        self.kept = []
        if state:
            # Checkpoints of before had fakes of one count only.
            counts = state["counts"].tolist() if "counts" in state else [state["valid"].shape[1]] * len(state["valid"])
            stored = [state[name].to(device) for name in ("image", "masks", "valid")]
            parts = zip(*stored, counts, strict=True)
            self.kept = [(image, masks[:count], valid[:count]) for image, masks, valid, count in parts]


def _stack(fakes: list[Fake]) -> Fake:
    """As one batch, padded to the largest number of masks."""
    most = max(len(valid) for _, _, valid in fakes)
    masks = [torch.cat([m, m.new_full((most - len(m), *m.shape[1:]), -1.0)]) for _, m, _ in fakes]
    valid = [torch.cat([v, v.new_zeros(most - len(v))]) for _, _, v in fakes]
    return torch.stack([image for image, _, _ in fakes]), torch.stack(masks), torch.stack(valid)
