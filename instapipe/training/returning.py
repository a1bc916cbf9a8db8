"""The way back learns from what the way there makes (:mod:`instapipe.training.pairs`).

Many a sheep becomes the same giraffe, so what is learnt from pairs alone is the mean of many sheep, a blur. Beside the
losses of the pairs there are discriminators that tell real instances from made ones, as in Isola et al.,
"Image-to-image translation with conditional adversarial networks" (CVPR 2017). Real windows of the other class are
judged by the discriminators alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instapipe.config import CompositingConfig
from instapipe.data.domains import derive
from instapipe.errors import DataError
from instapipe.networks.blocks import frozen
from instapipe.networks.generator import SetGenerator, soften
from instapipe.networks.projected import FrozenBackbone
from instapipe.structures import Pixels
from instapipe.training import losses
from instapipe.training.adversary import Adversary
from instapipe.training.augment import Augmentation
from instapipe.training.ema import average_of
from instapipe.training.pairs import Batch, Pairs, Windows, legs_of, translated
from instapipe.training.precision import Choice, choose_precision
from instapipe.training.resumable import Resumable
from instapipe.training.teaching import continued, held_out, looked_at, teaching_losses
from instapipe.training.tiles import spread, tiled

LEVELS = (0, 1, 2, 3)
"""Of the frozen network, those at 1/2 to 1/16 of its input's side."""
_COLOUR = 0.25
"""Of the pairs' loss of colours: nobody can tell from a giraffe whether the sheep was white."""
_ADVERSARIAL, _RAMP = 0.3, 100
"""Weight of the discriminators, and the steps until it is reached: at first they know nothing."""
_RECOMPOSED = 0.5
"""Share of the real instances that are taken out of their photo and put back as made ones are."""
_CRITIC_RATE, _CRITIC_BETAS = 2e-4, (0.0, 0.99)
_WARM, _FALLS = 50, 0.4
"""The rate is reached after so many steps, and falls from this share of the run on."""
_BETAS, _AVERAGE = (0.5, 0.99), 0.995
_MOST_HELD_OUT, _SHOWN = 32, (12, 4)


@dataclass(frozen=True, slots=True)
class Returning:
    """steps of `batch` pairs, and `others` real windows of the other class beside them.

    least: the grade that a pair's giraffe must have.  legs: how many must be seen of what is wanted, 0 where it has
    none.  rate: of the generator.
    """

    steps: int = 800
    batch: int = 6
    others: int = 2
    rate: float = 2e-4
    least: float = 0.6
    legs: int = 0
    seed: int = 0


class Returner(Resumable[SetGenerator]):
    """The state of a run: generator, average, discriminators, optimisers, the step reached."""

    settings: Returning

    def __init__(
        self,
        generator: SetGenerator,
        pairs: Pairs,
        others: Windows,
        backbone: FrozenBackbone,
        compositing: CompositingConfig,
        settings: Returning,
        device: torch.device,
    ) -> None:
        """generator: of the way back; is changed.  others: of the class that is shown.  backbone: of :data:`LEVELS`.

        Raises DataError where there is too little to learn from, or nothing to hold out.
        """
        self.settings, self.step = settings, 0
        self._pairs, self._others, self._compositing = pairs, others, compositing
        self._backbone, self._device = backbone.to(device), device
        self._network = generator.to(device).requires_grad_(True).train()
        self.average = average_of(self._network)
        with torch.no_grad():
            channels = [level.shape[1] for level in self._backbone(torch.zeros(1, 3, 128, 128, device=device))]
        rng = torch.Generator().manual_seed(derive(settings.seed, "adversary"))
        self._adversary = Adversary(channels, rng).to(device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.rate, betas=_BETAS)
        learning = [weight for weight in self._adversary.parameters() if weight.requires_grad]
        self._critics = torch.optim.Adam(learning, lr=_CRITIC_RATE, betas=_CRITIC_BETAS)
        # Of both together: a photo that shows both classes is held out of both.
        out, apart = np.split(held_out((*pairs.photos, *others.photos)), [len(pairs)])
        good = pairs.grades >= settings.least
        if settings.legs:
            good &= legs_of(pairs.outlines) >= settings.legs
        self.learnt, self.others_learnt = np.flatnonzero(~out & good), np.flatnonzero(~apart)
        self.held_out, self._others_held_out = np.flatnonzero(out & good), np.flatnonzero(apart)
        lower = "more photos, more views, or a lower --least or --legs"
        if len(self.learnt) < settings.batch:
            raise DataError(
                f"{len(self.learnt)} of {len(pairs)} pairs are good enough to learn from, a step takes "
                f"{settings.batch}: {lower}, or a smaller --batch"
            )
        if not len(self.held_out):
            raise DataError(f"no pair of the photos that are held out (an eighth) is good enough: {lower}")
        if len(self.others_learnt) < settings.others:
            raise DataError(
                f"{len(self.others_learnt)} windows of the target can be learnt from, a step takes {settings.others}: "
                "more photos in --target-data, or fewer --others"
            )
        self.precision: Choice = choose_precision("auto", self._trial, device)

    def _trial(self, precision: str) -> None:
        # Without the discriminators: a trial must leave no trace, and they keep vectors.
        batch = self._draw(0)
        with self._autocast(precision):
            raw, matte = translated(self._network, batch)
            features = self._features(raw, matte, batch)
        parts = self._pair_losses(raw, matte, batch, *features)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()

    def _advance(self) -> dict[str, float]:
        settings, done = self.settings, self.step / self.settings.steps
        self._learn_at(settings.rate * min(1.0, (self.step + 1) / _WARM) * min(1.0, (1 - done) / (1 - _FALLS)))
        batch = self._draw(self.step)
        with frozen(self._adversary):
            made = self._made(batch)
            self._descend(made.loss, _AVERAGE)
        self._critics.zero_grad()
        judged = self._judged(batch, made)
        judged.backward()  # type: ignore[no-untyped-call]
        self._critics.step()
        return {**{name: value.item() for name, value in made.losses.items()}, "critics": judged.item()}

    @torch.inference_mode()
    def measure(self) -> float:
        """The pairs' loss, by the average, on photos that nothing is learnt from: how far what comes back is from them.

        In colours, coats and poses it can never be 0: nobody knows of which sheep a giraffe was made."""
        found = []
        for number in spread(self.held_out, _MOST_HELD_OUT):
            pair = self._pairs_of([number])
            raw, matte = translated(self.average, pair)
            parts = self._pair_losses(raw, matte, pair, *self._features(raw, matte, pair))
            found.append(sum(value.item() for value in parts.values()))
        return float(np.mean(found))

    @torch.inference_mode()
    def picture(self) -> Pixels:
        """What becomes, by the average, of windows of photos that nothing is learnt from, each beside what is shown:
        real ones of the other class, then some of the pairs. uint8 (H, W, 3)."""
        others, pairs = spread(self._others_held_out, _SHOWN[0]), spread(self.held_out, _SHOWN[1])
        batches = [self._others_of([number]) for number in others] + [self._pairs_of([number]) for number in pairs]
        images: list[Tensor] = []
        for batch in batches:
            made = self._composite(*translated(self.average, batch), batch.behind)
            images += [batch.image[0], made[0]]
        return tiled(images)

    @property
    def _parts(self) -> dict[str, Any]:
        return {**super()._parts, "adversary": self._adversary, "critics": self._critics}

    def _draw(self, step: int) -> Batch:
        """Pairs, then windows of the other class, of a step."""
        rng = np.random.default_rng(derive(self.settings.seed, "return", step))
        pairs = self._pairs_of(rng.choice(self.learnt, self.settings.batch, replace=False))
        others = self._others_of(rng.choice(self.others_learnt, self.settings.others, replace=False))
        return pairs.followed_by(others, rng)

    def _pairs_of(self, chosen: Sequence[int] | NDArray[np.intp]) -> Batch:
        pairs = self._pairs
        return Batch.of(pairs.shown, chosen, self._device).answered(pairs.wanted[chosen], pairs.outlines[chosen])

    def _others_of(self, chosen: Sequence[int] | NDArray[np.intp]) -> Batch:
        return Batch.of(self._others, chosen, self._device)

    def _composite(self, image: Tensor, matte: Tensor, behind: Tensor) -> Tensor:
        soft = soften(matte, self._compositing.soften)
        return soft * image + (1 - soft) * behind

    def _features(self, raw: Tensor, matte: Tensor, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """What the frozen network sees in the pairs of a batch as they are made, and in what is wanted."""
        ours = self._backbone(looked_at(raw[: batch.pairs], matte[: batch.pairs]))
        with torch.no_grad():
            theirs = self._backbone(looked_at(batch.wanted, batch.outline))
        return [level.float() for level in ours], [level.float() for level in theirs]

    def _pair_losses(
        self, raw: Tensor, matte: Tensor, batch: Batch, ours: list[Tensor], theirs: list[Tensor]
    ) -> dict[str, Tensor]:
        """Of the pairs in a batch; in float32, so outside of any autocast."""
        count = batch.pairs
        parts = teaching_losses(raw[:count], matte[:count], batch.wanted, batch.outline, ours, theirs)
        return {**parts, "colour": _COLOUR * parts["colour"]}

    def _made(self, batch: Batch) -> _Made:
        """What the generator makes of a batch, and its losses."""
        with self._autocast():
            raw, matte = translated(self._network, batch)
            features = self._features(raw, matte, batch)
            image, soft = self._composite(raw, matte, batch.behind), soften(matte, self._compositing.soften)
            draw = self._augmentation("made", len(image))
            window, alone = self._adversary(self._backbone, draw.image(image), draw.masks(soft))
        parts = self._pair_losses(raw, matte, batch, *features)
        paired, everyone = batch.active
        fooled = losses.hinge_generator(window, paired) + losses.hinge_generator(alone, everyone)
        weight = _ADVERSARIAL * min(1.0, (self.step + 1) / _RAMP)
        parts["adversarial"] = weight * fooled / (len(window) + len(alone))
        # As for the pairs: outside the outline, where nobody sees it, the coat goes on.
        beyond, outline = raw[batch.pairs :], matte[batch.pairs :]
        parts["beyond"] = ((1 - outline) * (beyond - continued(beyond.detach(), outline.detach())).abs()).mean()
        return _Made(image.detach(), soft.detach(), parts, torch.stack(list(parts.values())).sum())

    def _judged(self, batch: Batch, made: _Made) -> Tensor:
        """What the discriminators minimise."""
        rng = np.random.default_rng(derive(self.settings.seed, "recomposed", self.step))
        again = torch.from_numpy(rng.random(batch.pairs) < _RECOMPOSED).to(self._device)[:, None, None, None]
        paired, everyone = batch.active
        with self._autocast():
            soft = soften(batch.outline, self._compositing.soften)
            recomposed = self._composite(batch.wanted, batch.outline, batch.behind[: batch.pairs])
            real = torch.where(again, recomposed, batch.wanted)
            one, two = self._augmentation("real", batch.pairs), self._augmentation("judged", len(made.image))
            real_window, real_alone = self._adversary(self._backbone, one.image(real), one.masks(soft))
            made_window, made_alone = self._adversary(self._backbone, two.image(made.image), two.masks(made.matte))
        loss = losses.hinge_real(real_window, paired[: batch.pairs]) + losses.hinge_fake(made_window, paired)
        loss = loss + losses.hinge_real(real_alone, everyone[: batch.pairs]) + losses.hinge_fake(made_alone, everyone)
        return loss / 3

    def _augmentation(self, purpose: str, size: int) -> Augmentation:
        seed = derive(self.settings.seed, purpose, self.step)
        return Augmentation.sample(size, torch.Generator().manual_seed(seed))


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """image (B, 3, S, S), matte (B, 1, S, S): what the discriminators are shown.  losses: by name.  loss: their sum."""

    image: Tensor
    matte: Tensor
    losses: dict[str, Tensor]
    loss: Tensor
