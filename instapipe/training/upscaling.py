"""An upscaler learns to make real instances of soft ones.

A soft picture of a real instance has its answer: the instance. What weights make has none, but made as soft it looks
much the same, so what is learnt from the first holds for the second; discriminators of both, one for each part of an
animal, see to it that the answer has detail (as in Wang et al., "ESRGAN", ECCV workshops 2018). Of what was made as it
is, without softening, a network sees which is which, and leaves painted heads as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from instapipe.data.domains import derive
from instapipe.networks.blocks import frozen
from instapipe.networks.projected import FrozenBackbone
from instapipe.networks.upscaler import Upscaler, UpscalerForm, softly
from instapipe.structures import Pixels
from instapipe.training.augment import Augmentation
from instapipe.training.contest import Contest
from instapipe.training.grooming import STOUT, body_of, coat_distance, coat_of, on_a_colour, thinned
from instapipe.training.made import Made
from instapipe.training.pairs import Windows, planes
from instapipe.training.pieces import PARTS, Part, corner, cut, side_of
from instapipe.training.tiles import spread, tiled

LEVELS = (0, 1, 2, 3)
"""Of the frozen network, those at 1/2 to 1/16 of its input's side."""
_PIXELS, _FEATURES, _OUTLINE = 2.0, 1.0, 2.0
"""Weights of how far what is made of soft real instances is from these."""
_SAME, _COARSELY, _MATTE, _MATTE_SAME = 0.2, 4.0, 3.0, 0.3
"""Weights of what must stay of made ones: halved, pixel by pixel, and in squares of _SQUARE; likewise of mattes."""
_BEYOND, _UNDECIDED = 0.5, 0.1
"""Weights of wanted mattes that are out of bounds, and of what is neither in nor out."""
_ADVERSARIAL = 0.3
_SQUARE = 4
"""Of the generator's pixels: so large a square keeps its colour, and its share of the outline."""
_SOFT = (0.5, 1.5)
"""How soft what is shown is made, shares of what it will be."""
_BLURRED, _BLUR, _NOISE = 0.7, 0.9, 0.03
"""Before that so many real instances are blurred by up to so many pixels, and get noise of up to such a deviation in
[-1, 1]: generators paint softly."""
_MOST_HELD_OUT, _SHOWN, _ACROSS = 48, 12, 6


@dataclass(frozen=True, slots=True)
class Upscaling:
    """steps of `batch` made instances and as many real ones.

    rate: of the upscaler.  alone: steps at first in which the discriminators are not yet listened to.
    """

    steps: int = 1200
    batch: int = 4
    rate: float = 3e-4
    alone: int = 30
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A part of each instance of a batch. image: (B, 3, s, s) in [-1, 1].  matte: (B, 1, s, s) in [0, 1].

    large: (B, 3, 2 s, 2 s), of real ones what they are, else nothing.  outline: (B, 1, 2 s, 2 s), 0 or 1, likewise.
    judged: (B, 1, 2 s, 2 s), 0 or 1, where discriminators look.
    """

    image: Tensor
    matte: Tensor
    large: Tensor
    outline: Tensor
    judged: Tensor


class Finisher(Contest[Upscaler]):
    """An upscaler against discriminators of heads, legs and bodies."""

    settings: Upscaling

    def __init__(
        self, made: Made, real: Windows, backbone: FrozenBackbone, settings: Upscaling, device: torch.device
    ) -> None:
        """made: at the generator's size S.  real: instances of the target in windows of 2 S.  backbone: of
        :data:`LEVELS`.

        Raises DataError where there is too little to learn from, or nothing to hold out.
        """
        self._made, self._real = made, real
        rng = torch.Generator().manual_seed(derive(settings.seed, "upscaler"))
        network = Upscaler(UpscalerForm())
        _initialised(network, rng)
        names = ("made instances", made.photos), ("large enough instances of the target", real.photos)
        super().__init__(network, backbone, settings, rng, device, *names, sets=len(PARTS))

    def _trial(self, precision: str) -> None:
        piece = self._made_pieces(0)["legs"]
        with self._autocast(precision):
            image, wanted = self._network(piece.image, piece.matte)
            features = self._backbone(image)
        sums = [level.float().sum() for level in features] + [wanted.sum()]
        torch.stack(sums).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()

    def _advance(self) -> dict[str, float]:
        self._learn_at(self._rate())
        listened = _ADVERSARIAL if self.step >= self.settings.alone else 0.0
        rng = torch.Generator().manual_seed(derive(self.settings.seed, "soft", self.step))
        least, most = (share * self._network.form.soft for share in _SOFT)
        made, real = self._made_pieces(self.step), self._real_pieces(self.step)
        parts: dict[str, list[Tensor]] = {}
        shown: list[tuple[Part, Tensor, Tensor, Tensor]] = []
        with frozen(self._critics):
            for part in PARTS:
                mine, theirs = made[part], real[part]
                deviation = float(torch.rand((), generator=rng)) * (most - least) + least
                soft, thin = softly(
                    torch.cat([mine.image, theirs.image]), torch.cat([mine.matte, theirs.matte]), deviation
                )
                with self._autocast():
                    both, wanted = self._network(soft, thin)
                mattes = self._network.within(wanted, thin)
                for name, loss in (
                    *self._kept(both[: len(mine.image)], mattes[: len(mine.image)], mine).items(),
                    *self._answered(both[len(mine.image) :], mattes[len(mine.image) :], theirs, rng).items(),
                ):
                    parts.setdefault(name, []).append(loss)
                parts.setdefault("beyond", []).append(_BEYOND * (wanted - mattes).abs().mean())
                parts.setdefault("undecided", []).append(_UNDECIDED * (mattes * (1 - mattes)).mean())
                where = torch.cat([mine.judged, theirs.judged])
                fooled = self._fooling(self._judge(part, both, mattes, where, "made"))
                parts.setdefault("adversarial", []).append(listened * fooled / len(LEVELS))
                shown.append((part, both.detach(), mattes.detach(), where))
        means = {name: torch.stack(each).mean() for name, each in parts.items()}
        self._learn_from(means)
        told = self._teach_critics(
            lambda: [
                each
                for part in PARTS
                for each in self._judge(part, real[part].large, real[part].outline, real[part].judged, "real")
            ],
            lambda: [each for look in shown for each in self._judge(*look, "judged")],
        )
        return {**{name: value.item() for name, value in means.items()}, "critics": told.item()}

    @torch.inference_mode()
    def measure(self) -> float:
        """How far coats of made instances, upscaled, are from real ones (grooming.coat_distance) on photos that nothing
        is learnt from."""
        made = []
        for number in spread(self.held_out, _MOST_HELD_OUT):
            image, matte = self.average.anew(*self._made_of([number]))
            made.append(coat_of(self._backbone, image, matte))
        real = []
        for number in spread(self.real_held_out, _MOST_HELD_OUT):
            large, masks = self._real_of([number])
            real.append(coat_of(self._backbone, large, masks))
        return coat_distance(torch.stack(made), torch.stack(real))

    @torch.inference_mode()
    def picture(self) -> Pixels:
        """Made instances of photos that nothing is learnt from on grey, each interpolated and upscaled.

        uint8 (H, W, 3).
        """
        images = []
        for number in spread(self.held_out, _SHOWN):
            made = self._made_of([number])
            shown = [F.interpolate(each, scale_factor=2, mode="bicubic") for each in made]
            images += [(image * matte)[0].clamp(-1, 1) for image, matte in (shown, self.average.anew(*made))]
        return tiled(images, across=_ACROSS, side=images[0].shape[-1])

    def _made_of(self, chosen: Sequence[int] | NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        mattes = torch.from_numpy(self._made.mattes[chosen].astype(np.float32) / 255)[:, None]
        return planes(self._made.raws[chosen]).to(self._device), mattes.to(self._device)

    def _real_of(self, chosen: Sequence[int] | NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        masks = torch.from_numpy(self._real.masks[chosen].astype(np.float32))[:, None]
        return planes(self._real.pixels[chosen]).to(self._device), masks.to(self._device)

    def _made_pieces(self, step: int) -> dict[Part, _Piece]:
        rng = np.random.default_rng(derive(self.settings.seed, "made", step))
        chosen = rng.choice(self.learnt, self.settings.batch, replace=False)
        image, matte = self._made_of(chosen)
        body = F.interpolate(body_of(thinned((matte >= 0.5).float())), scale_factor=2, mode="nearest")
        whole = image.new_zeros(len(image), 3, 2 * image.shape[2], 2 * image.shape[3])
        return self._pieces(image, matte, whole, torch.ones_like(body), body, self._made.mattes[chosen] >= 128, rng)

    def _real_pieces(self, step: int) -> dict[Part, _Piece]:
        """Of instances as a generator could have made them, and as they are."""
        rng = np.random.default_rng(derive(self.settings.seed, "real", step))
        chosen = rng.choice(self.real_learnt, self.settings.batch, replace=False)
        large, masks = self._real_of(chosen)
        image, matte = softened(F.avg_pool2d(large, 2).cpu(), rng).to(self._device), F.avg_pool2d(masks, 2)
        body = body_of(thinned(masks), 2 * STOUT - 1)
        return self._pieces(image, matte, large, masks, body, matte[:, 0].cpu().numpy() >= 0.5, rng)

    def _pieces(
        self,
        image: Tensor,
        matte: Tensor,
        large: Tensor,
        outline: Tensor,
        body: Tensor,
        inside: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> dict[Part, _Piece]:
        """inside: bool (B, S, S), the instances at the generator's size."""
        mirrored = rng.random() < 0.5  # in the photo it may look the other way
        pieces: dict[Part, _Piece] = {}
        for part in PARTS:
            side = side_of(part, image.shape[-1])
            corners = [corner(part, mask, side, rng) for mask in inside]
            judged = body if part == "body" else torch.ones_like(body)
            shown = [cut(whole, corners, side) for whole in (image, matte)]
            shown += [cut(whole, [(2 * y, 2 * x) for y, x in corners], 2 * side) for whole in (large, outline, judged)]
            pieces[part] = _Piece(*(each.flip(-1) if mirrored else each for each in shown))
        return pieces

    def _kept(self, large: Tensor, matte: Tensor, piece: _Piece) -> dict[str, Tensor]:
        """How far what is made of made instances is from these."""
        about = F.max_pool2d(piece.matte, 3, stride=1, padding=1)
        apart = about * (F.avg_pool2d(large, 2) - piece.image)
        moved = F.avg_pool2d(matte, 2) - piece.matte
        return {
            "same": _SAME * apart.abs().mean(),
            "coarsely": _COARSELY * F.avg_pool2d(apart, _SQUARE).abs().mean(),
            "matte": _MATTE * F.avg_pool2d(moved, _SQUARE).abs().mean() + _MATTE_SAME * moved.abs().mean(),
        }

    def _answered(self, large: Tensor, matte: Tensor, piece: _Piece, rng: torch.Generator) -> dict[str, Tensor]:
        """How far what is made of soft real instances is from these; features as a share of theirs, a mean over the
        levels."""
        inner = thinned(piece.outline)
        looks = [on_a_colour(each, inner, copy) for each, copy in zip((large, piece.large), _twice(rng), strict=True)]
        with self._autocast():
            made = self._backbone(looks[0])
            with torch.no_grad():
                wanted = self._backbone(looks[1])
        shares = [
            (one.float() - two.float()).abs().mean() / two.float().abs().mean().clamp(min=1e-6)
            for one, two in zip(made, wanted, strict=True)
        ]
        return {
            "pixels": _PIXELS * (inner * (large - piece.large)).abs().mean(),
            "features": _FEATURES * torch.stack(shares).mean(),
            "outline": _OUTLINE * (matte - piece.outline).abs().mean(),
        }

    def _judge(self, part: Part, large: Tensor, matte: Tensor, judged: Tensor, purpose: str) -> list[Tensor]:
        """Logits of a part of instances that are cut out, (B, 1, h, w) of each scale.

        Two pixels inside the outline: masks of real ones show some of their background at the border.
        """
        rng = torch.Generator().manual_seed(derive(self.settings.seed, purpose, part, self.step))
        draw = Augmentation.sample(len(large), rng)
        image, outline = draw.image(large), draw.masks(thinned(thinned(matte)) * judged)
        with self._autocast():
            heads = self._critics[PARTS.index(part)]
            return heads(self._backbone(on_a_colour(image, outline, rng)), outline)  # type: ignore[no-any-return]


def _twice(rng: torch.Generator) -> tuple[torch.Generator, torch.Generator]:
    """The same draws twice; another time others."""
    seed = int(torch.randint(2**62, (), generator=rng))
    return torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)


def _initialised(network: Upscaler, rng: torch.Generator) -> None:
    """Seeded; what it adds is 0 at first."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer is not network.out:
            nn.init.kaiming_normal_(layer.weight, a=1.0, generator=rng)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def softened(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Real instances (B, 3, H, W) in [-1, 1], as soft as what generators paint."""
    out = []
    for image in images:
        pixels = image.permute(1, 2, 0).numpy()
        if rng.random() < _BLURRED:
            pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.2, _BLUR))
        noise = rng.normal(0, rng.uniform(0, _NOISE), pixels.shape).astype(np.float32)
        out.append(torch.from_numpy(pixels + noise).permute(2, 0, 1))
    return torch.stack(out)
