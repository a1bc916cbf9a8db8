"""A network learns against discriminators that compare what it makes with real instances, cut out: what `train-coats`
and `train-upscaler` have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from instapipe.errors import DataError
from instapipe.networks.blocks import initialise
from instapipe.networks.projected import FrozenBackbone, ProjectedHeads
from instapipe.training import losses, resumable
from instapipe.training.adversary import HIDDEN, WIDTH
from instapipe.training.ema import average_of
from instapipe.training.precision import Choice, choose_precision
from instapipe.training.resumable import Network, Resumable
from instapipe.training.teaching import held_out

_CRITIC_RATE, _CRITIC_BETAS = 2e-4, (0.0, 0.99)
_BETAS, _AVERAGE = (0.5, 0.99), 0.995


class Settings(resumable.Settings, Protocol):
    """What is asked of a run: steps of `batch` made instances and as many real ones."""

    @property
    def batch(self) -> int:
        """Of each kind."""
        ...


class Contest(Resumable[Network]):
    """The state of a run: network, average of its weights, discriminators, optimisers, the step reached."""

    settings: Settings

    def __init__(
        self,
        network: Network,
        backbone: FrozenBackbone,
        settings: Settings,
        rng: torch.Generator,
        device: torch.device,
        shown: tuple[str, Sequence[str]],
        real: tuple[str, Sequence[str]],
        sets: int = 1,
    ) -> None:
        """network: is changed.  shown, real: what its windows are called, and the photo of each.  sets: of
        discriminators.

        A subclass has what :meth:`_trial` needs by then. Raises DataError where there is too little to learn from, or
        nothing to hold out.
        """
        self.settings, self.step = settings, 0
        self._backbone, self._device = backbone.to(device), device
        self._network = network.to(device).requires_grad_(True).train()
        self.average = average_of(self._network)
        with torch.no_grad():
            channels = [level.shape[1] for level in self._backbone(torch.zeros(1, 3, 128, 128, device=device))]
        self._critics = nn.ModuleList(
            ProjectedHeads(channels, rng, width=WIDTH, hidden=HIDDEN, mask_channel=True) for _ in range(sets)
        ).to(device)
        for critic in self._critics:
            initialise(cast(ProjectedHeads, critic).heads, rng)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.rate, betas=_BETAS)
        learning = [weight for weight in self._critics.parameters() if weight.requires_grad]
        self._critic_optimizer = torch.optim.Adam(learning, lr=_CRITIC_RATE, betas=_CRITIC_BETAS)
        # By their names: a photo that shows both classes is held out of both.
        out, apart = held_out(tuple(shown[1])), held_out(tuple(real[1]))
        self.learnt, self.real_learnt = np.flatnonzero(~out), np.flatnonzero(~apart)
        self.held_out, self.real_held_out = np.flatnonzero(out), np.flatnonzero(apart)
        for name, learnt, rest in (
            (shown[0], self.learnt, self.held_out), (real[0], self.real_learnt, self.real_held_out),
        ):  # fmt: skip
            if len(learnt) < settings.batch or len(rest) < 2:
                raise DataError(
                    f"{len(learnt)} windows of {name} can be learnt from, of which a step takes {settings.batch}; "
                    f"{len(rest)} are held out, 2 at least must be: more photos, or more --views"
                )
        self.precision: Choice = choose_precision("auto", self._trial, device)

    @abstractmethod
    def _trial(self, precision: str) -> None:
        """Part of a step without the discriminators, which keep vectors: a trial must leave no trace."""

    def _learn_from(self, parts: Mapping[str, Tensor]) -> None:
        """A step of the network, where it learns, down the sum of `parts`. Raises TrainingError."""
        self._descend(torch.stack(list(parts.values())).sum(), _AVERAGE)

    def _fooling(self, logits: list[Tensor]) -> Tensor:
        """What the network minimises, of what discriminators say of what it made, (B, 1, h, w) each."""
        return losses.hinge_generator(logits, _everyone(logits))

    def _teach_critics(self, real: Callable[[], list[Tensor]], made: Callable[[], list[Tensor]]) -> Tensor:
        """A step of the discriminators by what they say of real and of made instances; its loss."""
        self._critic_optimizer.zero_grad()
        theirs, ours = real(), made()
        judged = losses.hinge_real(theirs, _everyone(theirs)) + losses.hinge_fake(ours, _everyone(ours))
        judged.backward()  # type: ignore[no-untyped-call]
        self._critic_optimizer.step()
        return judged

    @property
    def _parts(self) -> dict[str, Any]:
        return {**super()._parts, "critics": self._critics, "critic_optimizer": self._critic_optimizer}


def _everyone(logits: list[Tensor]) -> Tensor:
    return logits[0].new_ones(len(logits[0]), dtype=torch.bool)
