"""What the way back learns from: real instances, and what the way there has made of each.

A giraffe that was made of a real sheep comes with the answer to "which sheep?": the photo itself. So the way back can
learn from pairs whose wanted side is a photo (as translation of languages does: Sennrich et al., "Improving neural
machine translation models with monolingual data", ACL 2016). Windows of real giraffes, which have no answer, are shown
beside them: it is those that people will translate.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from instapipe.config import CompositingConfig
from instapipe.data.domains import Cutting, derive
from instapipe.data.samples import Sample
from instapipe.errors import DataError
from instapipe.imaging import write_atomically
from instapipe.imaging.telea import grow, smoothly_filled
from instapipe.networks.grader import BANDS, MOST_LEGS, Grader, GraderForm, legs, outline
from instapipe.structures import BoolMask, Pixels
from instapipe.training.lessons import worth_of
from instapipe.training.turns import Turns, matte_of, view_of

SMALLEST = 0.01
"""Of a window, that an instance in it must cover."""
_COUNTED = 3
"""Of the grader's heights above the feet, the lowest, at which legs are counted."""
_ARRAYS = ("pixels", "masks", "behind", "wanted", "outlines", "grades")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Windows that the way back is shown, and what it shall make of them.

    pixels: uint8 (N, S, S, 3), what it is shown.  masks: bool (N, S, S), of the instance there.
    behind: uint8 (N, S, S, 3), what lies behind both the one that is shown and the one that is wanted.
    wanted: uint8 (N, S, S, 3) and outlines: bool (N, S, S), the photo and the real instance in it; without any pixel
    where nobody knows the answer.
    grades: float32 (N,), of what is shown.  photos: file names.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    behind: NDArray[np.uint8]
    wanted: NDArray[np.uint8]
    outlines: NDArray[np.bool_]
    grades: NDArray[np.float32]
    photos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.photos)

    def write(self, path: Path) -> None:
        """As npz. Raises OutputError."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **{name: getattr(self, name) for name in _ARRAYS}, photos=np.array(self.photos))
        write_atomically(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path) -> Pairs:
        """What :meth:`write` wrote. Raises DataError."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS}
                return cls(**arrays, photos=tuple(str(name) for name in file["photos"]))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"no pairs in {str(path)!r}: {error}") from error

    @classmethod
    def together(cls, parts: Sequence[Pairs]) -> Pairs:
        """All of them."""
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        return cls(**arrays, photos=tuple(photo for part in parts for photo in part.photos))


def legs_of(outlines: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How many legs can be seen of each instance, (N, S, S) to (N,): into how many pieces its outline falls near its
    feet, the median of some heights. Of one that lies, or stands in high grass, about one."""
    planes = np.stack([outline(each.astype(np.float32), GraderForm().side) for each in outlines])
    shares = legs(torch.from_numpy(planes)).reshape(len(outlines), len(BANDS), MOST_LEGS)[:, :_COUNTED]
    pieces = (shares * torch.arange(1, MOST_LEGS + 1)).sum(dim=2)
    return np.asarray(pieces.median(dim=1).values.numpy(), dtype=np.float32)


Row = tuple[Pixels, BoolMask, Pixels, Pixels, BoolMask, float, str]


@torch.inference_mode()
def pairs_of(
    samples: Sequence[Sample], turns: Turns, grader: Grader | None, seed: int, view: int, done: Callable[[int], None]
) -> Pairs:
    """One random view of each of `samples` and what `turns` makes of it at the first try; `done`: how many are made.

    Raises DataError where nothing was made.
    """
    compositing = turns.card.compositing
    rows: list[Row] = []
    for number, sample in enumerate(samples):
        turn = turns.first(sample, torch.Generator().manual_seed(derive(seed, "pair", view, number)))
        done(number + 1)
        if turn is None:
            continue
        matte = matte_of(turn)
        made, real = matte >= 0.5, turn.masks[0]
        if min(made.mean(), real.mean()) < SMALLEST:
            continue
        pixels = _whole(turn.pixels)
        behind = _behind(pixels, made | real, compositing)
        grade = worth_of(grader, matte) if grader is not None else 0.0
        rows.append((_whole(turn.composite(compositing)), made, behind, pixels, real, grade, sample.photo))
    return _pairs(rows, "nothing was made of", samples)


def views_of(
    samples: Sequence[Sample], cutting: Cutting, compositing: CompositingConfig, seed: int, view: int
) -> Pairs:
    """One random view of each of `samples`, for which there is no answer. Raises DataError where none shows one."""
    rows: list[Row] = []
    for number, sample in enumerate(samples):
        shown, masks = view_of(sample, cutting, torch.Generator().manual_seed(derive(seed, "view", view, number)))
        pixels, mask = _whole(shown), masks[0]
        if mask.mean() >= SMALLEST:
            nothing = np.zeros_like(pixels), np.zeros_like(mask)
            rows.append((pixels, mask, _behind(pixels, mask, compositing), *nothing, 0.0, sample.photo))
    return _pairs(rows, "no instance is seen in", samples)


def _pairs(rows: Sequence[Row], why: str, samples: Sequence[Sample]) -> Pairs:
    if not rows:
        raise DataError(f"{why} {len(samples)} windows")
    pixels, masks, behind, wanted, outlines, grades, photos = zip(*rows, strict=True)
    return Pairs(
        np.stack(pixels), np.stack(masks), np.stack(behind), np.stack(wanted), np.stack(outlines),
        np.array(grades, np.float32), tuple(photos),
    )  # fmt: skip


def _whole(pixels: NDArray[np.float32]) -> Pixels:
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _behind(pixels: Pixels, instances: BoolMask, compositing: CompositingConfig) -> Pixels:
    hole = grow(instances, compositing.dilate)
    return smoothly_filled(pixels, hole, np.zeros_like(hole), compositing.inpaint_radius)
