"""Coats are learnt from real instances; outlines stay as they are.

Outlines are good or bad as a whole, and tries, graders and lessons (:mod:`instapipe.training.teaching`) have made them
what they are; coats have only been compared with the generator's own since. Here the generator keeps its mattes, and
discriminators compare what it makes, cut out, with real instances. Half of them are cut out by what the
outlines of both have in common: by the silhouette alone they could be told apart, and nobody would look at the coat.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instapipe.config import CompositingConfig
from instapipe.data.domains import derive
from instapipe.networks.blocks import frozen, initialise
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone, ProjectedHeads
from instapipe.structures import Pixels
from instapipe.training import losses
from instapipe.training.adversary import HIDDEN, WIDTH
from instapipe.training.augment import Augmentation
from instapipe.training.ema import average_of
from instapipe.training.pairs import Batch, Windows, translated
from instapipe.training.precision import Choice, choose_precision
from instapipe.training.resumable import Resumable
from instapipe.training.teaching import continued, divided
from instapipe.training.tiles import spread, translations

LEVELS = (0, 1, 2, 3)
"""Of the frozen network, those at 1/2 to 1/16 of its input's side."""
_MATTE, _BEYOND, _LEGS_STAY = 8.0, 2.0, 4.0
"""Weights of the mattes' distance from what they were, of what lies outside of them, and of the legs' distance from
what they were, for they are not judged."""
STOUT, _LEGS = 5, 0.38
"""What is thinner than so many pixels, and what is in such a share of the height above the feet, is not judged. Of legs
masks of real instances show as much grass as leg: a generator learnt bands of black and yellow, or green, from them."""
_COMMON, _SHARE = 0.5, 0.35
"""So many instances are cut out by the outline that they share with a real one, if it is such a part of theirs."""
_FLAT = 0.08
"""How much the colours of what is shown vary, in [-1, 1]: the coat shall not hang on the wool's."""
_MOST_HELD_OUT = 64
_CRITIC_RATE, _CRITIC_BETAS = 2e-4, (0.0, 0.99)
_BETAS, _AVERAGE = (0.5, 0.99), 0.995


@dataclass(frozen=True, slots=True)
class Grooming:
    """steps of `batch` instances and as many real ones.

    rate: of the generator.  alone: steps at first, half of all at most, in which the discriminators alone learn: as
    long as they know nothing they can only do harm.  keep: share of the weights that the run starts from in what comes
    out: between the two ends lie coats without the excesses of the new ones.
    """

    steps: int = 800
    batch: int = 6
    rate: float = 2e-4
    alone: int = 40
    keep: float = 0.5
    seed: int = 0


class Groomer(Resumable[SetGenerator]):
    """A generator against discriminators of coats."""

    settings: Grooming

    def __init__(
        self,
        generator: SetGenerator,
        shown: Windows,
        real: Windows,
        backbone: FrozenBackbone,
        compositing: CompositingConfig,
        settings: Grooming,
        device: torch.device,
    ) -> None:
        """generator: is changed.  shown: what is translated.  real: instances of the target.  backbone: of
        :data:`LEVELS`.

        Raises DataError where there is too little to learn from, or nothing to hold out.
        """
        self._shown, self._real, self._compositing = shown, real, compositing
        self._before = copy.deepcopy(generator).to(device).requires_grad_(False).eval()
        rng = torch.Generator().manual_seed(derive(settings.seed, "coats"))
        self.learnt, self.held_out = divided("the source", shown.photos, settings.batch)
        self.real_learnt, self.real_held_out = divided("the target", real.photos, settings.batch)
        self.settings, self.step = settings, 0
        self._backbone, self._device = backbone.to(device), device
        self._network = generator.to(device).requires_grad_(True).train()
        self.average = average_of(self._network)
        with torch.no_grad():
            channels = [level.shape[1] for level in self._backbone(torch.zeros(1, 3, 128, 128, device=device))]
        self._critic = ProjectedHeads(channels, rng, width=WIDTH, hidden=HIDDEN, mask_channel=True).to(device)
        initialise(self._critic.heads, rng)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.rate, betas=_BETAS)
        learning = [weight for weight in self._critic.parameters() if weight.requires_grad]
        self._critic_optimizer = torch.optim.Adam(learning, lr=_CRITIC_RATE, betas=_CRITIC_BETAS)
        self.precision: Choice = choose_precision("auto", self._trial, device)

    def _trial(self, precision: str) -> None:
        batch = self._draw(0)
        with self._autocast(precision):
            raw, matte = translated(self._network, batch)
            features = self._backbone(raw * matte)
        (raw.sum() + torch.stack([level.float().sum() for level in features]).sum()).backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()

    def _advance(self) -> dict[str, float]:
        rate = self._rate(min(self.settings.alone, self.settings.steps // 2))
        self._learn_at(rate)
        rng = np.random.default_rng(derive(self.settings.seed, "outlines", self.step))
        batch, real = self._draw(self.step), self._real_of(self._chosen_real())
        parts: dict[str, Tensor] = {}
        with frozen(self._critic), torch.set_grad_enabled(rate > 0):  # else the discriminators learn alone
            with self._autocast():
                raw, matte = translated(self._network, batch)
            with self._autocast(), torch.no_grad():
                painted, before = translated(self._before, batch)
            inner = thinned(matte.detach())
            body = body_of(inner)
            mine, theirs = common(body, body_of(thinned(real.masks)), rng)
            fooled = losses.hinge_generator(*_each(self._judge(raw, mine, "made")))
            parts["matte"] = _MATTE * (matte - before).abs().mean()
            # At the rim, which is not judged, and outside, where another view's animal may reach, the coat goes on.
            parts["beyond"] = _BEYOND * ((1 - inner) * (raw - continued(raw.detach(), inner)).abs()).mean()
            parts["legs"] = _LEGS_STAY * ((inner - body) * (raw - painted)).abs().mean()
            parts["adversarial"] = fooled / len(LEVELS)
        self._descend(torch.stack(list(parts.values())).sum(), _AVERAGE)
        self._critic_optimizer.zero_grad()
        judged = losses.hinge_real(*_each(self._judge(real.image, theirs, "real")))
        judged = judged + losses.hinge_fake(*_each(self._judge(raw.detach(), mine, "judged")))
        judged.backward()  # type: ignore[no-untyped-call]
        self._critic_optimizer.step()
        return {**{name: value.item() for name, value in parts.items()}, "critics": judged.item()}

    @property
    def _parts(self) -> dict[str, Any]:
        return {**super()._parts, "critic": self._critic, "critic_optimizer": self._critic_optimizer}

    @torch.no_grad()
    def outcome(self) -> SetGenerator:
        """What comes out: the average, and `keep` of what the run started from."""
        mixed = copy.deepcopy(self.average)
        for ours, before in zip(mixed.state_dict().values(), self._before.state_dict().values(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(before, self.settings.keep)
        return mixed

    @torch.inference_mode()
    def measure(self) -> float:
        """How far coats by the :meth:`outcome` are from real ones (:func:`coat_distance`) on photos that nothing is
        learnt from: 0 where the two cannot be told apart, and never quite, with so few."""
        made, real, network = [], [], self.outcome()
        for number in spread(self.held_out, _MOST_HELD_OUT):
            raw, matte = translated(network, self._shown_of([number]))
            made.append(coat_of(self._backbone, raw, matte))
        for number in spread(self.real_held_out, _MOST_HELD_OUT):
            window = self._real_of([number])
            real.append(coat_of(self._backbone, window.image, window.masks))
        return coat_distance(torch.stack(made), torch.stack(real))

    @torch.inference_mode()
    def picture(self) -> Pixels:
        """What the :meth:`outcome` makes of windows of photos that nothing is learnt from. uint8 (H, W, 3)."""
        return translations(self.outcome(), self._shown, self.held_out, self._compositing, self._device)

    def _draw(self, step: int) -> Batch:
        """What is translated in a step; its colours are a little changed."""
        rng = np.random.default_rng(derive(self.settings.seed, "shown", step))
        batch = self._shown_of(rng.choice(self.learnt, self.settings.batch, replace=False))
        return batch.tinted(rng, _FLAT)

    def _chosen_real(self) -> NDArray[np.intp]:
        rng = np.random.default_rng(derive(self.settings.seed, "real", self.step))
        return np.asarray(rng.choice(self.real_learnt, self.settings.batch, replace=False))

    def _shown_of(self, chosen: list[int] | NDArray[np.intp]) -> Batch:
        return Batch.of(self._shown, chosen, self._device)

    def _real_of(self, chosen: list[int] | NDArray[np.intp]) -> Batch:
        return Batch.of(self._real, chosen, self._device)

    def _judge(self, image: Tensor, outline: Tensor, purpose: str) -> list[Tensor]:
        """Logits of instances that are cut out, (B, 1, h, w) of each scale."""
        rng = torch.Generator().manual_seed(derive(self.settings.seed, purpose, self.step))
        draw = Augmentation.sample(len(image), rng)
        outline = draw.masks(outline)
        with self._autocast():
            return self._critic(self._backbone(on_a_colour(draw.image(image), outline, rng)), outline)  # type: ignore[no-any-return]


def _each(logits: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Of (B, 1, h, w) of each scale, and that all samples count."""
    return logits, logits[0].new_ones(len(logits[0]), dtype=torch.bool)


def thinned(outline: Tensor) -> Tensor:
    """A pixel narrower all round, (B, 1, S, S) in [0, 1].

    Masks of real instances show some of their background at the border: of grass and sky a generator learnt yellow
    hooves and a white seam along the back.
    """
    return -F.max_pool2d(-outline, 3, stride=1, padding=1)


def body_of(outline: Tensor, least: int = STOUT, legs: float | None = None) -> Tensor:
    """An outline, (B, 1, S, S) in [0, 1], without legs: what is thinner than `least` pixels, an odd number, or in the
    lowest share `legs` of the height (default: what is not judged)."""
    inner = -F.max_pool2d(-outline, least, stride=1, padding=least // 2)
    stout = F.max_pool2d(inner, least, stride=1, padding=least // 2)
    rows = (outline >= 0.5).any(dim=3)[:, 0]
    top, feet = rows.float().argmax(dim=1), rows.shape[1] - rows.flip(1).float().argmax(dim=1)
    knees = feet - (_LEGS if legs is None else legs) * (feet - top)
    return stout * (torch.arange(rows.shape[1], device=rows.device) < knees[:, None])[:, None, :, None]


def common(made: Tensor, real: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """By which outlines, (B, 1, S, S) in [0, 1], made and real instances are cut out, from their own: some of both by
    what the two have in common."""
    both = made * real
    share = both.sum(dim=(1, 2, 3)) / made.sum(dim=(1, 2, 3)).clamp(min=1)
    drawn = torch.from_numpy(rng.random(len(made)) < _COMMON).to(made.device)
    chosen = (drawn & (share > _SHARE))[:, None, None, None]
    return torch.where(chosen, both, made), torch.where(chosen, both, real)


def on_a_colour(image: Tensor, outline: Tensor, rng: torch.Generator) -> Tensor:
    """Instances, each on a colour of its own: (B, 3, S, S) in [-1, 1].

    On grey a generator soon painted the legs grey that it could not get right: nobody saw them any more.
    """
    colours = torch.rand(len(image), 3, 1, 1, generator=rng) * 2 - 1
    return outline * image + (1 - outline) * colours.to(image.device)


def coat_of(backbone: FrozenBackbone, image: Tensor, matte: Tensor) -> Tensor:
    """The mean of each feature inside the one instance of (1, 3, S, S) and (1, 1, S, S), (C,) of all scales."""
    inside = thinned((matte >= 0.5).float())
    means = []
    for level in backbone(image * inside):
        weights = F.interpolate(inside, size=level.shape[-2:], mode="area")
        means.append((level.float() * weights).sum(dim=(0, 2, 3)) / weights.sum().clamp(min=1e-6))
    return torch.cat(means)


def coat_distance(made: Tensor, real: Tensor) -> float:
    """Of features (N, C) and (M, C), N and M at least 2: the Fréchet distance of normal distributions without
    correlations, as a mean over the features, each in units of its variance among the real ones."""
    spread_made, spread_real = made.std(dim=0), real.std(dim=0)
    apart = (made.mean(dim=0) - real.mean(dim=0)).square() + (spread_made - spread_real).square()
    return float((apart / spread_real.square().clamp(min=1e-6)).mean())
