"""What the way back learns from: real instances, and what the way there has made of each.

A giraffe that was made of a real sheep comes with the answer to "which sheep?": the photo itself. So the way back can
learn from pairs whose wanted side is a photo (as translation of languages does: Sennrich et al., "Improving neural
machine translation models with monolingual data", ACL 2016). Windows of real giraffes, which have no answer, are shown
beside them: it is those that people will translate.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instapipe.config import CompositingConfig
from instapipe.data.domains import Cutting, derive
from instapipe.data.samples import Sample
from instapipe.errors import DataError
from instapipe.imaging import write_atomically
from instapipe.imaging.telea import grow, smoothly_filled
from instapipe.networks.generator import SetGenerator
from instapipe.networks.grader import BANDS, MOST_LEGS, Grader, GraderForm, legs, outline
from instapipe.structures import BoolMask, Pixels
from instapipe.training.lessons import worth_of
from instapipe.training.turns import Turns, matte_of, view_of

SMALLEST = 0.01
"""Of a window, that an instance in it must cover."""
_FLAT, _NOISE = 0.03, 0.04
"""How much the colours of what is shown vary, as a whole and from pixel to pixel, in [-1, 1]: a generator can hide in
its giraffe, where nobody sees it, of which sheep it was made, and real giraffes hide nothing."""
_COUNTED = 3
"""Of the grader's heights above the feet, the lowest, at which legs are counted."""
_SHOWN, _ANSWERS = ("pixels", "masks", "behind"), ("wanted", "outlines", "grades")


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows around one instance each.

    pixels: uint8 (N, S, S, 3).  masks: bool (N, S, S), of the instance there.  behind: uint8 (N, S, S, 3), what lies
    behind it.  photos: file names.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    behind: NDArray[np.uint8]
    photos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.photos)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Windows of instances that were made, and what they were made of.

    shown: behind both instances is what lies behind them there.  wanted: uint8 (N, S, S, 3), the photo.
    outlines: bool (N, S, S), the real instance in it.  grades: float32 (N,), of what is shown, 0 without a grader.
    """

    shown: Windows
    wanted: NDArray[np.uint8]
    outlines: NDArray[np.bool_]
    grades: NDArray[np.float32]

    @property
    def photos(self) -> tuple[str, ...]:
        """File names of the photos."""
        return self.shown.photos

    def __len__(self) -> int:
        return len(self.shown)

    def write(self, path: Path) -> None:
        """As npz. Raises OutputError."""
        stream = io.BytesIO()
        arrays = {name: getattr(self.shown, name) for name in _SHOWN} | {name: getattr(self, name) for name in _ANSWERS}
        np.savez_compressed(stream, **arrays, photos=np.array(self.photos))
        write_atomically(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path) -> Pairs:
        """What :meth:`write` wrote. Raises DataError."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                photos = tuple(str(name) for name in file["photos"])
                shown = Windows(**{name: file[name] for name in _SHOWN}, photos=photos)
                return cls(shown, **{name: file[name] for name in _ANSWERS})
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"no pairs in {str(path)!r}: {error}; remove it, and it is made again") from error

    @classmethod
    def together(cls, parts: Sequence[Pairs]) -> Pairs:
        """The pairs of all `parts` (one at least), in their order."""

        def joined(name: str, of: Sequence[Pairs | Windows]) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in of])

        windows = [part.shown for part in parts]
        photos = tuple(photo for part in parts for photo in part.photos)
        shown = Windows(**{name: joined(name, windows) for name in _SHOWN}, photos=photos)
        return cls(shown, **{name: joined(name, parts) for name in _ANSWERS})


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """image, behind: (B, 3, S, S) in [-1, 1].  masks: (B, 1, S, S) in [0, 1].

    wanted: (P, 3, S, S) in [-1, 1], outline: (P, 1, S, S) in [0, 1], the answers to the first P.
    """

    image: Tensor
    masks: Tensor
    behind: Tensor
    wanted: Tensor
    outline: Tensor

    @classmethod
    def of(cls, windows: Windows, chosen: Sequence[int] | NDArray[np.intp], device: torch.device) -> Batch:
        """Some of `windows`, without answers."""
        image, behind = (planes(pixels[chosen]).to(device) for pixels in (windows.pixels, windows.behind))
        masks = torch.from_numpy(windows.masks[chosen].astype(np.float32))[:, None].to(device)
        return cls(image, masks, behind, image[:0], masks[:0])

    def answered(self, wanted: NDArray[np.uint8], outlines: NDArray[np.bool_]) -> Batch:
        """With the answers, uint8 (B, S, S, 3) and bool (B, S, S)."""
        outline = torch.from_numpy(outlines.astype(np.float32))[:, None]
        device = self.image.device
        return replace(self, wanted=planes(wanted).to(device), outline=outline.to(device))

    @property
    def pairs(self) -> int:
        """How many have an answer."""
        return len(self.wanted)

    @property
    def active(self) -> tuple[Tensor, Tensor]:
        """Of which samples the window is judged, bool (B,), and of which the instance. The windows without an answer
        are of other places: a discriminator would learn those."""
        everyone = self.image.new_ones(len(self.image), dtype=torch.bool)
        return torch.arange(len(everyone), device=everyone.device) < self.pairs, everyone

    def followed_by(self, others: Batch, rng: np.random.Generator) -> Batch:
        """This and windows without answers; the colours of all instances that are shown are a little changed."""
        image, masks, behind = (
            torch.cat([getattr(self, name), getattr(others, name)]) for name in ("image", "masks", "behind")
        )
        return replace(self, image=image, masks=masks, behind=behind).tinted(rng, _FLAT, _NOISE)

    def tinted(self, rng: np.random.Generator, flat: float, noise: float = 0.0) -> Batch:
        """The colours of the instances changed, as a whole and from pixel to pixel (standard deviations)."""
        drawn = rng.normal(0, flat, (len(self.image), 3, 1, 1)) + rng.normal(0, noise, tuple(self.image.shape))
        changed = self.image + self.masks * torch.from_numpy(drawn.astype(np.float32)).to(self.image.device)
        return replace(self, image=changed.clamp(-1, 1))


def translated(network: SetGenerator, batch: Batch) -> tuple[Tensor, Tensor]:
    """What a generator makes of a batch: its image, (B, 3, S, S) in [-1, 1], and the matte, (B, 1, S, S) in [0, 1]."""
    valid = batch.masks.new_ones(len(batch.image), 1, dtype=torch.bool)
    raw, made = network(batch.image, batch.masks * 2 - 1, valid)
    return raw.float(), (made.float() + 1) / 2


def planes(pixels: NDArray[np.uint8]) -> Tensor:
    """(B, S, S, 3) to (B, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(127.5) - 1).permute(0, 3, 1, 2)


def legs_of(outlines: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How many legs can be seen of each instance, bool (N, S, S) to float32 (N,): into how many pieces its outline
    falls near its feet, the median of some heights. Of one that lies, or stands in high grass, about one."""
    planes = np.stack([outline(each.astype(np.float32), GraderForm().side) for each in outlines])
    shares = legs(torch.from_numpy(planes)).reshape(len(outlines), len(BANDS), MOST_LEGS)[:, :_COUNTED]
    pieces = (shares * torch.arange(1, MOST_LEGS + 1)).sum(dim=2)
    return np.asarray(pieces.median(dim=1).values.numpy(), dtype=np.float32)


@torch.inference_mode()
def pairs_of(
    samples: Sequence[Sample], turns: Turns, grader: Grader | None, seed: int, view: int, done: Callable[[int], None]
) -> Pairs:
    """One random view of each of `samples` and what `turns` makes of it at the first try; `done`: how many are made.

    Raises DataError where nothing was made.
    """
    compositing = turns.card.compositing
    rows: list[tuple[Pixels, BoolMask, Pixels, Pixels, BoolMask, float, str]] = []
    for number, sample in enumerate(samples):
        turn = turns.first(sample, torch.Generator().manual_seed(derive(seed, "pair", view, number)))
        done(number + 1)
        if turn is None:
            continue
        matte = matte_of(turn)
        made, real = matte >= 0.5, turn.masks[0]
        if min(made.mean(), real.mean()) < SMALLEST:
            continue
        shown, pixels = _whole(replace(turn, mattes=matte[None]).composite(compositing)), _whole(turn.pixels)
        grade = worth_of(grader, matte) if grader is not None else 0.0
        rows.append((shown, made, _behind(pixels, made | real, compositing), pixels, real, grade, sample.photo))
    if not rows:
        raise DataError(f"nothing that could be learnt from was made of {len(samples)} windows")
    made_ones, masks, behind, wanted, outlines, grades, photos = zip(*rows, strict=True)
    windows = Windows(np.stack(made_ones), np.stack(masks), np.stack(behind), tuple(photos))
    return Pairs(windows, np.stack(wanted), np.stack(outlines), np.array(grades, np.float32))


def views_of(
    samples: Sequence[Sample],
    cutting: Cutting,
    compositing: CompositingConfig,
    seed: int,
    views: int,
    done: Callable[[int, int], None] = lambda _, __: None,
) -> Windows:
    """So many random views of each of `samples`; `done`: how many are cut, of how many.

    Raises DataError where none shows an instance.
    """
    rows: list[tuple[Pixels, BoolMask, Pixels, str]] = []
    for view in range(views):
        for number, sample in enumerate(samples):
            shown, masks = view_of(sample, cutting, torch.Generator().manual_seed(derive(seed, "view", view, number)))
            done(view * len(samples) + number + 1, views * len(samples))
            if masks[0].mean() >= SMALLEST:
                pixels = _whole(shown)
                rows.append((pixels, masks[0], _behind(pixels, masks[0], compositing), sample.photo))
    if not rows:
        raise DataError(f"no instance is seen in {len(samples)} windows")
    pixels_, masks_, behind, photos = zip(*rows, strict=True)
    return Windows(np.stack(pixels_), np.stack(masks_), np.stack(behind), tuple(photos))


def _whole(pixels: NDArray[np.float32]) -> Pixels:
    """In [0, 255], rounded to uint8."""
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _behind(pixels: Pixels, instances: BoolMask, compositing: CompositingConfig) -> Pixels:
    """The window without `instances`, bool (S, S), filled as in training."""
    hole = grow(instances, compositing.dilate)
    return smoothly_filled(pixels, hole, np.zeros_like(hole), compositing.inpaint_radius)
