"""The coat that a generator makes in the middle of an animal goes on over all of it.

Against discriminators coats come about unevenly: shoulders and flanks have patches, rumps, bellies and necks stay pale.
Here nobody is fooled. Textures are compared, as distributions of features along random directions (Heitz et al., "A
sliced Wasserstein loss for neural texture synthesis", CVPR 2021), with what the generator had made in the middle of the
same animal before; so there is a fixed goal for each, and no real instance is needed. The image decoder alone learns:
outlines stay, to the last bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instapipe.config import CompositingConfig
from instapipe.data.domains import derive
from instapipe.errors import DataError
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.structures import Pixels
from instapipe.training.ema import average_of
from instapipe.training.grooming import body_of, thinned
from instapipe.training.pairs import Batch, Windows, translated
from instapipe.training.precision import Choice, choose_precision
from instapipe.training.resumable import Resumable
from instapipe.training.teaching import continued, held_out
from instapipe.training.tiles import spread, translations

LEVELS = (0, 1, 2, 3)
"""Of the frozen network, those at 1/2 to 1/16 of its input's side."""
_TEXTURE, _PATCHES, _LEGS, _STAY, _BEYOND = 1.0, 2.0, 2.0, 48.0, 2.0
"""Weights of the losses. _STAY: what has a coat already, and in part (1 - _FREE) legs."""
_FREE = 0.8
_MIDDLE, _TOP, _BELLY = (0.30, 0.66), 0.2, 0.46
"""The middle: from here to there across an animal's outline that looks to the right, below such a share of its height
and above such a share over its feet."""
_KNEES = 0.36
"""The share of the height over the feet that has legs' colours alone."""
_RUMP, _NECK = (0.50, 0.36), (0.62, 0.72)
"""Across: from where on there is none of it, and from where on nothing else."""
_HEAD = (0.80, 0.13)
"""To the right of that and that near the top nothing changes: no patches on faces."""
_FEET = 0.20
"""The share of the height over the feet where legs are pale, as the lighter half of the middle is."""
_CLOSE, _UP = (0.75, 0.60), 192
"""The part that is looked at, shares of the outline's width and height, the larger one, and to what side it is
enlarged: the frozen network sees little in patches of eight pixels."""
_NEAR = 0.5
"""Of the height, what of necks is looked at: in smaller parts patches are to be smaller."""
_TRUNK_AT, _NECK_AT, _LEAST_CLOSE = (0.38, 0.50), (0.70, 0.28), 0.2
"""The middles of what is looked at, across and down the outline's box; and of the window, what is at least."""
_PATCH, _COARSER = 5, 3
"""Patches of so many pixels squared of what is looked at, so many times reduced."""
_DIRECTIONS, _PALETTE, _QUANTILES = 64, 24, 48
_FEWEST = 8
_MOST_HELD_OUT, _FLAT = 32, 0.08
_BETAS, _AVERAGE = (0.5, 0.99), 0.995


@dataclass(frozen=True, slots=True)
class Weaving:
    """steps of `batch` instances.  rate: of the image decoder, falling to 0 in the second half."""

    steps: int = 450
    batch: int = 6
    rate: float = 1.5e-4
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where what is on animals that look to the right, (B, 1, S, S) each.

    inner: the outline, a pixel narrower, 0 or 1.  middle: where the coat is as it shall be everywhere, 0 or 1.
    rest: where it shall become so, in [0, 1].  legs: 0 or 1.  feet: of these, the lowest.  boxes: (left, top, right,
    bottom) of each outline, in pixels.
    """

    inner: Tensor
    middle: Tensor
    rest: Tensor
    legs: Tensor
    feet: Tensor
    boxes: list[tuple[int, int, int, int]]

    @classmethod
    def of(cls, outline: Tensor) -> Places:
        """outline: (B, 1, S, S), 0 or 1."""
        boxes = [_box(each) for each in outline[:, 0]]
        side = outline.shape[-1]
        pixels = torch.arange(side, device=outline.device)
        x = torch.stack([(pixels - left) / (right - left) for left, _, right, _ in boxes])[:, None, None, :]
        y = torch.stack([(pixels - top) / (bottom - top) for _, top, _, bottom in boxes])[:, None, :, None]
        inner = thinned(outline)
        trunk, above = (body_of(inner, legs=share) for share in (_KNEES, _BELLY))
        middle = above * ((x > _MIDDLE[0]) & (x < _MIDDLE[1]) & (y > _TOP))
        rump = trunk * _ramp(x, *_RUMP)
        belly = (trunk - above).clamp(min=0) * (x < _MIDDLE[1])
        neck = above * _ramp(x, *_NECK) * ~((x > _HEAD[0]) & (y < _HEAD[1]))
        legs = inner * (1 - trunk) * (y > 0.5)
        rest = torch.maximum(torch.maximum(rump, belly), neck)
        return cls(inner, middle, rest, legs, legs * (y > 1 - _FEET), boxes)


class Weaver(Resumable[SetGenerator]):
    """A generator whose coats become even."""

    settings: Weaving

    def __init__(
        self,
        generator: SetGenerator,
        shown: Windows,
        backbone: FrozenBackbone,
        compositing: CompositingConfig,
        settings: Weaving,
        device: torch.device,
    ) -> None:
        """generator: is changed; it makes animals that look to the right.  shown: what is translated.  backbone: of
        :data:`LEVELS`.

        Raises DataError where there is too little to learn from.
        """
        self.settings, self.step = settings, 0
        self._shown, self._compositing, self._device = shown, compositing, device
        self._backbone = backbone.to(device)
        self._before = copy.deepcopy(generator).to(device).requires_grad_(False).eval()
        self._network = generator.to(device).requires_grad_(False).train()
        self._network.decoder_image.requires_grad_(True)
        self.average = average_of(self._network)
        learning = [weight for weight in self._network.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.Adam(learning, lr=settings.rate, betas=_BETAS)
        out = held_out(shown.photos)
        self.learnt, self.held_out = np.flatnonzero(~out), np.flatnonzero(out)
        if len(self.learnt) < settings.batch:
            raise DataError(
                f"{len(self.learnt)} windows can be learnt from, of which a step takes {settings.batch}: more photos, "
                "more --views, or a smaller --batch"
            )
        self.precision: Choice = choose_precision("auto", self._trial, device)

    def _trial(self, precision: str) -> None:
        parts = self._losses(self.learnt[:2], np.random.default_rng(0), near=False, precision=precision)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()

    def _advance(self) -> dict[str, float]:
        settings = self.settings
        self._learn_at(self._rate())
        rng = np.random.default_rng(derive(settings.seed, "shown", self.step))
        chosen = rng.choice(self.learnt, settings.batch, replace=False)
        parts = self._losses(chosen, rng, near=self.step % 2 == 1)
        self._descend(torch.stack(list(parts.values())).sum(), _AVERAGE)
        return {name: value.item() for name, value in parts.items()}

    @torch.inference_mode()
    def measure(self) -> float:
        """How far the textures of rump, neck and belly are from the middle's (:func:`apart`, a mean over the levels),
        of photos that nothing is learnt from, by the average."""
        found = []
        for number in spread(self.held_out, _MOST_HELD_OUT):
            batch = Batch.of(self._shown, [number], self._device)
            raw, matte = translated(self.average, batch)
            painted, _ = translated(self._before, batch)
            places = Places.of((matte >= 0.5).float())
            for near in (False, True):
                texture, _ = self._compared(raw, painted, places, near, torch.Generator().manual_seed(0))
                found.append(float(texture))
        return float(np.mean(found))

    @torch.inference_mode()
    def picture(self) -> Pixels:
        """Windows of photos that nothing is learnt from, translated by the average. uint8 (H, W, 3)."""
        return translations(self.average, self._shown, self.held_out, self._compositing, self._device)

    def _losses(
        self, chosen: NDArray[np.intp], rng: np.random.Generator, *, near: bool, precision: str | None = None
    ) -> dict[str, Tensor]:
        """By name, weighted.  near: necks are looked at, else rumps and bellies."""
        batch = Batch.of(self._shown, chosen, self._device).tinted(rng, _FLAT)
        with self._autocast(precision):
            raw, matte = translated(self._network, batch)
            with torch.no_grad():
                painted, _ = translated(self._before, batch)
        places = Places.of((matte >= 0.5).float())
        draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with self._autocast(precision):
            texture, patches = self._compared(raw, painted, places, near, draws)
        kept = places.inner * (1 - places.rest) * (1 - _FREE * places.legs)
        outside = 1 - places.inner
        return {
            "texture": _TEXTURE * texture,
            "patches": _PATCHES * patches,
            "legs": _LEGS * _palette(raw, painted, places, draws),
            "stay": _STAY * (kept * (raw - painted).abs()).mean(),
            # Where another view's animal may reach, the coat goes on.
            "beyond": _BEYOND * (outside * (raw - continued(raw.detach(), places.inner)).abs()).mean(),
        }

    def _compared(
        self, raw: Tensor, painted: Tensor, places: Places, near: bool, draws: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """How far the rest is from the middle as it was: by features, a mean over the levels, and by patches."""
        trunks = closer(places.boxes, raw.shape[-1], near=False).to(raw.device)
        looked = closer(places.boxes, raw.shape[-1], near=True).to(raw.device) if near else trunks
        middle, rest = _seen(places.middle, trunks), _seen(places.rest, looked)
        mean = _mean(painted, places.middle)
        ours = _seen(torch.lerp(mean.expand_as(raw), raw, places.inner), looked)
        theirs = _seen(torch.lerp(mean.expand_as(raw), painted, places.inner), trunks)
        mine = [level.float() for level in self._backbone(ours)]
        with torch.no_grad():
            wanted = [level.float() for level in self._backbone(theirs)]
        textures = [_between(one, two, rest, middle, draws) for one, two in zip(mine, wanted, strict=True)]
        return torch.stack(textures).mean(), _between(_patches(ours), _patches(theirs), rest, middle, draws)


def apart(ours: Tensor, theirs: Tensor, directions: Tensor) -> Tensor:
    """The sliced Wasserstein distance of features (N, C) and (M, C) along `directions` (C, D), each feature in units of
    what it varies by among theirs; of quantiles, so that N and M may differ."""
    mean = theirs.mean(dim=0)
    scale = theirs.std(dim=0) + 1e-3 * theirs.std() + 1e-6
    return _along(directions, (ours - mean) / scale, (theirs - mean) / scale)


def closer(boxes: Sequence[tuple[int, int, int, int]], side: int, *, near: bool) -> Tensor:
    """Grids for `grid_sample` that enlarge the trunks, or the necks (`near`), of outlines in windows of `side` pixels:
    (B, _UP, _UP, 2)."""
    turns = []
    for left, top, right, bottom in boxes:
        wide, high = right - left, bottom - top
        part = _NEAR * high if near else max(_CLOSE[0] * wide, _CLOSE[1] * high)
        part = min(max(part, _LEAST_CLOSE * side), side)
        across, down = _NECK_AT if near else _TRUNK_AT
        x, y = (min(max(at, part / 2), side - part / 2) for at in (left + across * wide, top + down * high))
        turns.append([[part / side, 0, 2 * x / side - 1], [0, part / side, 2 * y / side - 1]])
    return F.affine_grid(torch.tensor(turns, dtype=torch.float32), [len(boxes), 1, _UP, _UP], align_corners=False)


def _seen(image: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _box(outline: Tensor) -> tuple[int, int, int, int]:
    """Of (S, S); all of the window where there is nothing."""
    rows, columns = outline.any(dim=1).nonzero()[:, 0].tolist(), outline.any(dim=0).nonzero()[:, 0].tolist()
    if not rows:
        return 0, 0, outline.shape[1], outline.shape[0]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _ramp(x: Tensor, none: float, whole: float) -> Tensor:
    """From 0 at `none` to 1 at `whole`."""
    return ((x - none) / (whole - none)).clamp(0, 1)


def _mean(image: Tensor, where: Tensor) -> Tensor:
    return (image * where).sum(dim=(2, 3), keepdim=True) / where.sum(dim=(2, 3), keepdim=True).clamp(min=1)


def _patches(image: Tensor) -> Tensor:
    """The patch about each pixel of what is _COARSER times smaller: (B, 3 _PATCH^2, h, w)."""
    small = F.avg_pool2d(image, _COARSER)
    return F.unfold(small, _PATCH, padding=_PATCH // 2).view(len(small), -1, *small.shape[-2:])


def _between(ours: Tensor, theirs: Tensor, rest: Tensor, middle: Tensor, draws: torch.Generator) -> Tensor:
    """:func:`apart` of what lies in the rest of each of (B, C, h, w) and in the middle: the mean over the batch, in
    which an instance that shows too little of one of them counts as zero."""
    size = ours.shape[-2:]
    directions = _directions(ours.shape[1], _DIRECTIONS, draws, ours.device)
    inside = F.interpolate(rest, size=size, mode="area")[:, 0] > 0.6
    wanted = F.interpolate(middle, size=size, mode="area")[:, 0] > 0.8
    found = [
        apart(one[:, here].T, two[:, there].T, directions)
        for one, two, here, there in zip(ours, theirs, inside, wanted, strict=True)
        if here.sum() >= _FEWEST and there.sum() >= _FEWEST
    ]
    return torch.stack(found).sum() / len(ours) if found else ours.sum() * 0


def _palette(raw: Tensor, painted: Tensor, places: Places, draws: torch.Generator) -> Tensor:
    """How far the colours of legs are from those of the middle, and of feet from its lighter half."""
    directions = _directions(3, _PALETTE, draws, raw.device)
    soft, before = (F.avg_pool2d(image, 3, stride=1, padding=1) for image in (raw, painted))
    found = [raw.sum() * 0]
    for number, middle in enumerate(places.middle[:, 0] > 0.5):
        if middle.sum() < _FEWEST:
            continue
        coat = before[number][:, middle].T
        light = coat.mean(dim=1)
        feet = places.feet[number, 0] > 0.5
        for where, colours in (((places.legs[number, 0] > 0.5) & ~feet, coat), (feet, coat[light >= light.median()])):
            if where.sum() >= _FEWEST:
                found.append(_along(directions, soft[number][:, where].T, colours))
    return torch.stack(found).sum() / (2 * len(raw))


def _along(directions: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    levels = torch.linspace(0, 1, _QUANTILES, device=ours.device)
    one, two = (torch.quantile(points @ directions, levels, dim=0) for points in (ours, theirs))
    return (one - two).abs().mean()


def _directions(channels: int, count: int, draws: torch.Generator, device: torch.device) -> Tensor:
    return F.normalize(torch.randn(channels, count, generator=draws), dim=0).to(device)
