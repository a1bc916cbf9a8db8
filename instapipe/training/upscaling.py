"""An upscaler learns to make real instances of soft ones.

A soft picture of a real instance has its answer: the instance. What weights make has none, but made as soft it looks
much the same: so what makes real ones of soft ones makes them of it, and nothing that was made is learnt from.
Answers are compared pixel by pixel and in a frozen network's features (Johnson et al., "Perceptual losses for real-time
style transfer and super-resolution", ECCV 2016). There is no discriminator: bellies and legs, where soft pictures say
little, got a mesh from each kind that was tried (docs/training-log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from instapipe.data.domains import derive
from instapipe.networks.projected import FrozenBackbone
from instapipe.networks.upscaler import Upscaler, softly
from instapipe.structures import Pixels
from instapipe.training.ema import average_of
from instapipe.training.grooming import on_a_colour, thinned
from instapipe.training.pairs import Windows
from instapipe.training.pieces import PARTS, corner
from instapipe.training.precision import Choice, choose_precision
from instapipe.training.resumable import Resumable
from instapipe.training.teaching import divided, gram, relative
from instapipe.training.tiles import spread, tiled

LEVELS = (0, 1, 2, 3)
"""Of the frozen network, those at 1/2 to 1/16 of its input's side."""
SMALLEST = 0.6
"""A window's instance has a longer side of such a share of it in the photo at least: smaller ones would be blown up."""
_PIXELS, _FEATURES, _TEXTURES, _OUTLINE = 2.0, 1.0, 0.5, 2.0
"""Weights of how far what is made is from the instance; features, and their correlations (Gatys et al., "Image style
transfer using convolutional neural networks", CVPR 2016), as shares of its own."""
_BEYOND, _UNDECIDED = 0.5, 0.1
"""Weights of wanted mattes that are out of bounds, and of what is neither in nor out."""
_BETAS, _AVERAGE = (0.5, 0.99), 0.98
_SOFT = (0.5, 1.5)
"""How soft what is shown is made, shares of what it will be."""
_BLURRED, _BLUR, _NOISE = 0.7, 0.9, 0.03
"""Before that so many instances are blurred by up to so many pixels, and get noise of up to such a deviation in
[-1, 1]: generators paint softly."""
_SCALES = ((0.78, 1.0), (0.5, 1.0))
"""How large instances are shown, shares of their window's size: in the coarser windows, and in the finer ones."""
_FINER = 0.45
"""How many are from the finer windows: there are fewer of them."""
_SHOWN, _ACROSS = 6, 6


@dataclass(frozen=True, slots=True)
class Upscaling:
    """steps of `batch` pieces of real instances.

    rate: of the upscaler.
    """

    steps: int = 400
    batch: int = 8
    rate: float = 2e-4
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """image: (B, 3, s, s) in [-1, 1] and matte: (B, 1, s, s) in [0, 1], as a generator could have made them.

    large: (B, 3, 2 s, 2 s) and outline: (B, 1, 2 s, 2 s), 0 or 1, what they are.
    """

    image: Tensor
    matte: Tensor
    large: Tensor
    outline: Tensor


class Finisher(Resumable[Upscaler]):
    """The state of a run: upscaler, average of its weights, optimiser, the step reached."""

    settings: Upscaling

    def __init__(
        self,
        upscaler: Upscaler,
        windows: tuple[Windows, Windows],
        backbone: FrozenBackbone,
        settings: Upscaling,
        device: torch.device,
    ) -> None:
        """upscaler: is changed.  windows: around instances of the target, of twice the generator's size, and of four
        times.  backbone: of :data:`LEVELS`.

        Raises DataError where there is too little to learn from, or nothing to hold out.
        """
        self._windows = windows
        names = "large enough instances of the target", "instances of the target that are twice as large"
        self.learnt, self.held_out = zip(
            *(divided(name, each.photos, 1) for name, each in zip(names, windows, strict=True)), strict=True
        )
        self._side = windows[0].pixels.shape[1] // 4
        self.settings, self.step = settings, 0
        self._backbone, self._device = backbone.to(device), device
        self._network = upscaler.to(device).requires_grad_(True).train()
        self.average = average_of(self._network)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.rate, betas=_BETAS)
        self.precision: Choice = choose_precision("auto", self._trial, device)

    def _trial(self, precision: str) -> None:
        torch.stack(list(self._losses(self._pieces(0), precision).values())).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()

    def _advance(self) -> dict[str, float]:
        self._learn_at(self._rate())
        parts = self._losses(self._pieces(self.step))
        self._descend(torch.stack(list(parts.values())).sum(), _AVERAGE)
        return {name: value.item() for name, value in parts.items()}

    def _losses(self, pieces: _Pieces, precision: str | None = None) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(derive(self.settings.seed, "soft", self.step))
        least, most = (share * self._network.form.soft for share in _SOFT)
        soft, thin = softly(pieces.image, pieces.matte, float(torch.rand((), generator=rng)) * (most - least) + least)
        with self._autocast(precision):
            made, wanted = self._network(soft, thin)
        matte = self._network.within(wanted, thin)
        inner = thinned(pieces.outline)
        ours, theirs = self._looks(made, pieces.large, inner, rng, precision)
        textures = [[gram(each) for each in levels[:-1]] for levels in (ours, theirs)]
        return {
            "pixels": _PIXELS * (inner * (made - pieces.large)).abs().mean(),
            "features": _FEATURES * _apart(ours, theirs),
            "textures": _TEXTURES * _apart(*textures),
            "outline": _OUTLINE * (matte - pieces.outline).abs().mean(),
            "beyond": _BEYOND * (wanted - matte).abs().mean(),
            "undecided": _UNDECIDED * (matte * (1 - matte)).mean(),
        }

    @torch.inference_mode()
    def measure(self) -> float:
        """How far what becomes of soft instances is from these in the frozen network's features, as a share of theirs,
        on photos that nothing is learnt from."""
        apart = []
        for number, (image, matte, large, outline) in enumerate(self._held_out()):
            made, _ = self.average.anew(image, matte)
            rng = torch.Generator().manual_seed(derive(self.settings.seed, "measured", number))
            apart.append(_apart(*self._looks(made, large, thinned(outline), rng)))
        return float(torch.stack(apart).mean())

    @torch.inference_mode()
    def picture(self) -> Pixels:
        """Instances of photos that nothing is learnt from on grey: made soft and interpolated, upscaled, and as they
        are. uint8 (H, W, 3)."""
        images = []
        for image, matte, large, outline in self._held_out():
            shown = (
                [F.interpolate(each, scale_factor=2, mode="bicubic")
                 for each in softly(image, matte, self.average.form.soft)],
                self.average.anew(image, matte),
                (large, outline),
            )  # fmt: skip
            images += [(pixels * there)[0].clamp(-1, 1) for pixels, there in shown]
        return tiled(images, across=_ACROSS, side=8 * self._side)

    def _held_out(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Some instances at half their size with their mattes, and as they are with their outlines: (1, C, H, W)."""
        out = []
        for windows, numbers in zip(self._windows, self.held_out, strict=True):
            for number in spread(numbers, _SHOWN):
                large, outline = _tensors(windows.pixels[number], windows.masks[number])
                large, outline = large[None].to(self._device), outline[None].to(self._device)
                out.append((F.avg_pool2d(large, 2), F.avg_pool2d(outline, 2), large, outline))
        return out

    def _pieces(self, step: int) -> _Pieces:
        rng = np.random.default_rng(derive(self.settings.seed, "pieces", step))
        drawn = [self._piece(rng) for _ in range(self.settings.batch)]
        large, outline = (torch.stack(each) for each in zip(*drawn, strict=True))
        image, matte = softened(F.avg_pool2d(large, 2), rng), F.avg_pool2d(outline, 2)
        return _Pieces(*(each.to(self._device) for each in (image, matte, large, outline)))

    def _piece(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A part of an instance and its outline, (3, 2 s, 2 s) and (1, 2 s, 2 s), shown somewhat smaller than it is."""
        finer = int(rng.random() < _FINER)
        windows = self._windows[finer]
        number = rng.choice(self.learnt[finer])
        pixels, mask = windows.pixels[number], windows.masks[number].astype(np.float32)
        full = len(pixels)
        half = max(self._side, round(full / 2 * np.exp(rng.uniform(*np.log(_SCALES[finer])))))
        if 2 * half != full:
            pixels, mask = (
                cv2.resize(each, (2 * half, 2 * half), interpolation=cv2.INTER_AREA) for each in (pixels, mask)
            )
        there = mask >= 0.5
        part = PARTS[int(rng.integers(len(PARTS)))]
        small = cv2.resize(mask, (half, half), interpolation=cv2.INTER_AREA) >= 0.5
        y, x = corner(part, small, self._side, rng)
        piece = np.s_[2 * y : 2 * (y + self._side), 2 * x : 2 * (x + self._side)]
        large, outline = _tensors(pixels[piece], there[piece])
        return (large.flip(-1), outline.flip(-1)) if rng.random() < 0.5 else (large, outline)

    def _looks(
        self, made: Tensor, large: Tensor, inner: Tensor, rng: torch.Generator, precision: str | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Features of what is made and of the instances, cut out, on the same colours."""
        seed = int(torch.randint(2**62, (), generator=rng))
        looks = [on_a_colour(each, inner, torch.Generator().manual_seed(seed)) for each in (made, large)]
        with self._autocast(precision):
            ours = self._backbone(looks[0])
            with torch.no_grad():
                theirs = self._backbone(looks[1])
        return [each.float() for each in ours], [each.float() for each in theirs]


def _apart(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """How far features are apart, as a share of the second ones, a mean over the levels."""
    return torch.stack([relative(*pair) for pair in zip(ours, theirs, strict=True)]).mean()


def initialised(network: Upscaler, seed: int) -> Upscaler:
    """Seeded; what it adds is 0 at first."""
    rng = torch.Generator().manual_seed(derive(seed, "first weights"))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer is not network.out:
            nn.init.kaiming_normal_(layer.weight, a=1.0, generator=rng)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


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


def _tensors(pixels: Pixels, mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """(H, W, 3) and (H, W) to (3, H, W) in [-1, 1] and (1, H, W), 0 or 1."""
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)) / 127.5 - 1
    return image, torch.from_numpy(mask.astype(np.float32))[None]
