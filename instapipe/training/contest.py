"""A network learns against discriminators that compare what it makes with real instances, cut out: what `train-coats`
and `train-upscaler` have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instapipe.errors import DataError
from instapipe.networks.blocks import initialise
from instapipe.networks.projected import FrozenBackbone, ProjectedHeads
from instapipe.training.adversary import HIDDEN, WIDTH
from instapipe.training.ema import average_of
from instapipe.training.precision import Choice, choose_precision
from instapipe.training.resumable import Network, Resumable, Settings
from instapipe.training.teaching import held_out

_CRITIC_RATE, _CRITIC_BETAS = 2e-4, (0.0, 0.99)
_BETAS, _AVERAGE = (0.5, 0.99), 0.995


class Contest(Resumable[Network]):
    """The state of a run: network, average of its weights, discriminators, optimisers, the step reached."""

    def __init__(
        self,
        network: Network,
        backbone: FrozenBackbone,
        settings: Settings,
        rng: torch.Generator,
        device: torch.device,
    ) -> None:
        """network: is changed. A subclass has what :meth:`_trial` needs by then."""
        self.settings, self.step = settings, 0
        self._backbone, self._device = backbone.to(device), device
        self._network = network.to(device).requires_grad_(True).train()
        self.average = average_of(self._network)
        with torch.no_grad():
            channels = [level.shape[1] for level in self._backbone(torch.zeros(1, 3, 128, 128, device=device))]
        self._critic = ProjectedHeads(channels, rng, width=WIDTH, hidden=HIDDEN, mask_channel=True).to(device)
        initialise(self._critic.heads, rng)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.rate, betas=_BETAS)
        learning = [weight for weight in self._critic.parameters() if weight.requires_grad]
        self._critic_optimizer = torch.optim.Adam(learning, lr=_CRITIC_RATE, betas=_CRITIC_BETAS)
        self.precision: Choice = choose_precision("auto", self._trial, device)

    @abstractmethod
    def _trial(self, precision: str) -> None:
        """Part of a step without the discriminators, which keep vectors: a trial must leave no trace."""

    def _learn_from(self, parts: Mapping[str, Tensor]) -> None:
        """A step of the network, where it learns, down the sum of `parts`. Raises TrainingError."""
        self._descend(torch.stack(list(parts.values())).sum(), _AVERAGE)

    def _teach_critic(self, mistaken: Callable[[], Tensor]) -> Tensor:
        """A step of the discriminators down how far they are mistaken; that."""
        self._critic_optimizer.zero_grad()
        loss = mistaken()
        loss.backward()  # type: ignore[no-untyped-call]
        self._critic_optimizer.step()
        return loss

    @property
    def _parts(self) -> dict[str, Any]:
        return {**super()._parts, "critic": self._critic, "critic_optimizer": self._critic_optimizer}


def divided(name: str, photos: Sequence[str], batch: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The numbers of windows of `photos` that are learnt from, `batch` a step, and of those that are held out.

    By the photo's name: one that shows both classes is held out of both. Raises DataError where there is too little to
    learn from, or nothing to hold out.
    """
    out = held_out(tuple(photos))
    learnt, rest = np.flatnonzero(~out), np.flatnonzero(out)
    if len(learnt) < batch or len(rest) < 2:
        raise DataError(
            f"{len(learnt)} windows of {name} can be learnt from, of which a step takes {batch}; "
            f"{len(rest)} are held out, 2 at least must be: more photos, or more --views"
        )
    return learnt, rest
