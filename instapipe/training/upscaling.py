"""An upscaler learns what generators' pictures lack where they are shown larger than they were made.

From real instances, which are there at both sizes: halved and made soft, it has to give back what was lost. And from
what weights make, of which there is no larger one: discriminators compare pieces of it with pieces of real instances at
that size, and halved again it must be what it was. The first part is that of Wang et al., "ESRGAN" (ECCV workshops
2018); by it alone it would learn to sharpen photos and leave painted coats as soft as they are.
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
from instapipe.networks.upscaler import Upscaler, UpscalerForm
from instapipe.structures import Pixels
from instapipe.training import losses
from instapipe.training.augment import Augmentation
from instapipe.training.contest import Contest
from instapipe.training.grooming import STOUT, body_of, coat_distance, coat_of, on_a_colour, thinned
from instapipe.training.made import Made
from instapipe.training.pairs import Windows, planes
from instapipe.training.tiles import spread, tiled

LEVELS = (0, 1, 2)
"""Of the frozen network, those at 1/2 to 1/8 of its input's side: detail, not shapes."""
_PIXELS, _FEATURES, _ADVERSARIAL = 4.0, 0.5, 0.2
_SAME, _COARSELY = 2.0, 8.0
"""Weights of what must stay: a made instance, halved, pixel by pixel, and halved once more."""
_OUTSIDE = 0.2
"""Of a pixel outside the instance; one inside is 1."""
_SOFT, _SOFTEST, _NOISE = 0.7, 0.9, 0.03
"""So many real instances are blurred by up to so many pixels, and get noise of up to such a deviation in [-1, 1]:
generators paint softly."""
_JITTER = 1 / 6
"""How far from a pixel of the instance the middle of a piece lies at most, in sides of a piece."""
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
class _Batch:
    """image: (B, 3, S, S) in [-1, 1].  matte: (B, 1, S, S) in [0, 1].  outline: (B, 1, 2 S, 2 S), 0 or 1, where it is
    judged.  corners: (y, x) of the piece of each that is judged."""

    image: Tensor
    matte: Tensor
    outline: Tensor
    corners: list[tuple[int, int]]


class Finisher(Contest[Upscaler]):
    """An upscaler against discriminators of detail."""

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
        super().__init__(network, backbone, settings, rng, device, *names)

    def _trial(self, precision: str) -> None:
        batch = self._made_batch(0)
        with self._autocast(precision):
            features = self._backbone(_piece(self._network(batch.image, batch.matte), batch))
        torch.stack([level.float().sum() for level in features]).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()

    def _advance(self) -> dict[str, float]:
        self._learn_at(self._rate())
        made = self._made_batch(self.step)
        real, large = self._real_batch(self.step)
        parts: dict[str, Tensor] = {}
        with frozen(self._critics):
            with self._autocast():
                both = self._network(torch.cat([made.image, real.image]), torch.cat([made.matte, real.matte])).float()
            ours, again = both.chunk(2)
            inside = _OUTSIDE + (1 - _OUTSIDE) * made.matte
            apart = F.avg_pool2d(ours, 2) - made.image
            parts["same"] = _SAME * (inside * apart).abs().mean()
            parts["coarsely"] = _COARSELY * F.avg_pool2d(inside * apart, 2).abs().mean()
            outline = F.interpolate(real.matte, scale_factor=2, mode="nearest")
            parts["pixels"] = _PIXELS * ((_OUTSIDE + (1 - _OUTSIDE) * outline) * (again - large).abs()).mean()
            parts["features"] = _FEATURES * self._unlike(_piece(again, real), _piece(large, real))
            fooled = losses.hinge_generator(self._judge(ours, made, "made"), self._everyone)
            listened = _ADVERSARIAL if self.step >= self.settings.alone else 0.0
            parts["adversarial"] = listened * fooled / len(LEVELS)
        self._learn_from(parts)
        judged = self._teach_critics(
            lambda: self._judge(large, real, "real"), lambda: self._judge(ours.detach(), made, "judged")
        )
        return {**{name: value.item() for name, value in parts.items()}, "critics": judged.item()}

    @torch.inference_mode()
    def measure(self) -> float:
        """How far coats of made instances, upscaled, are from real ones (grooming.coat_distance) on photos that nothing
        is learnt from."""
        made = []
        for number in spread(self.held_out, _MOST_HELD_OUT):
            image, matte, _ = self._made_of([number])
            made.append(coat_of(self._backbone, self.average(image, matte), _doubled(matte)))
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
            image, matte, _ = self._made_of([number])
            soft = F.interpolate(matte, scale_factor=2, mode="bilinear", align_corners=False)
            plain = F.interpolate(image, scale_factor=2, mode="bicubic", align_corners=False)
            images += [(soft * each)[0].clamp(-1, 1) for each in (plain, self.average(image, matte))]
        return tiled(images, across=_ACROSS, side=images[0].shape[-1])

    def _made_of(self, chosen: Sequence[int] | NDArray[np.intp]) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
        mattes = self._made.mattes[chosen]
        matte = torch.from_numpy(mattes.astype(np.float32) / 255)[:, None]
        return planes(self._made.raws[chosen]).to(self._device), matte.to(self._device), mattes >= 128

    def _real_of(self, chosen: Sequence[int] | NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        masks = torch.from_numpy(self._real.masks[chosen].astype(np.float32))[:, None]
        return planes(self._real.pixels[chosen]).to(self._device), masks.to(self._device)

    def _made_batch(self, step: int) -> _Batch:
        rng = np.random.default_rng(derive(self.settings.seed, "made", step))
        image, matte, inside = self._made_of(rng.choice(self.learnt, self.settings.batch, replace=False))
        if rng.random() < 0.5:  # in the photo it may look the other way
            image, matte, inside = image.flip(-1), matte.flip(-1), inside[:, :, ::-1]
        corners = [corner(mask.repeat(2, axis=0).repeat(2, axis=1), len(mask), rng) for mask in inside]
        return _Batch(image, matte, _judged(_doubled(matte)), corners)

    def _real_batch(self, step: int) -> tuple[_Batch, Tensor]:
        """Instances as a generator could have made them, and as they are: (B, 3, 2 S, 2 S) in [-1, 1]."""
        rng = np.random.default_rng(derive(self.settings.seed, "real", step))
        chosen = rng.choice(self.real_learnt, self.settings.batch, replace=False)
        large, masks = self._real_of(chosen)
        inside = self._real.masks[chosen]
        if rng.random() < 0.5:
            large, masks, inside = large.flip(-1), masks.flip(-1), inside[:, :, ::-1]
        image = softened(F.avg_pool2d(large, 2).cpu(), rng).to(self._device)
        corners = [corner(mask, len(mask) // 2, rng) for mask in inside]
        return _Batch(image, F.avg_pool2d(masks, 2), _judged(masks), corners), large

    def _unlike(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """The distance of features, as a share of theirs, a mean over the levels."""
        with self._autocast():
            made, wanted = self._backbone(ours), self._backbone(theirs)
        shares = [
            (one.float() - two.float()).abs().mean() / two.float().abs().mean().clamp(min=1e-6)
            for one, two in zip(made, wanted, strict=True)
        ]
        return torch.stack(shares).mean()

    def _judge(self, large: Tensor, batch: _Batch, purpose: str) -> list[Tensor]:
        """Logits of pieces of instances that are cut out, (B, 1, h, w) of each scale."""
        rng = torch.Generator().manual_seed(derive(self.settings.seed, purpose, self.step))
        draw = Augmentation.sample(len(large), rng)
        image, outline = draw.image(_piece(large, batch)), draw.masks(_piece(batch.outline, batch))
        with self._autocast():
            return self._critics(self._backbone(on_a_colour(image, outline, rng)), outline)  # type: ignore[no-any-return]


def _initialised(network: Upscaler, rng: torch.Generator) -> None:
    """Seeded; what it adds is 0 at first."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer is not network.out:
            nn.init.kaiming_normal_(layer.weight, a=1.0, generator=rng)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def corner(mask: NDArray[np.bool_], side: int, rng: np.random.Generator) -> tuple[int, int]:
    """(y, x) of a piece of `side` squared about a pixel of `mask` (H, W), inside the window."""
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return int(rng.integers(mask.shape[0] - side + 1)), int(rng.integers(mask.shape[1] - side + 1))
    chosen, far = rng.integers(rows.size), round(_JITTER * side)
    y, x = (int(line[chosen]) - side // 2 + int(rng.integers(-far, far + 1)) for line in (rows, columns))
    return min(max(y, 0), mask.shape[0] - side), min(max(x, 0), mask.shape[1] - side)


def softened(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Real instances (B, 3, H, W) in [-1, 1], as soft as what generators paint."""
    out = []
    for image in images:
        pixels = image.permute(1, 2, 0).numpy()
        if rng.random() < _SOFT:
            pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.2, _SOFTEST))
        noise = rng.normal(0, rng.uniform(0, _NOISE), pixels.shape).astype(np.float32)
        out.append(torch.from_numpy(pixels + noise).permute(2, 0, 1))
    return torch.stack(out)


def _judged(outline: Tensor) -> Tensor:
    """By what outline, (B, 1, 2 S, 2 S), an instance is cut out for the discriminators.

    Of legs they would ask for a net (grooming.STOUT).
    """
    return body_of(thinned(outline), 2 * STOUT - 1)


def _doubled(matte: Tensor) -> Tensor:
    """The outline of a matte at twice its size, 0 or 1."""
    return (F.interpolate(matte, scale_factor=2, mode="bilinear", align_corners=False) >= 0.5).float()


def _piece(large: Tensor, batch: _Batch) -> Tensor:
    """Of each of (B, C, 2 S, 2 S) the piece (S, S) at the batch's corners."""
    side = large.shape[-1] // 2
    return torch.stack([one[:, y : y + side, x : x + side] for one, (y, x) in zip(large, batch.corners, strict=True)])
