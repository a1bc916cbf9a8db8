"""What weights made of training windows at their best, as lessons for themselves.

Of the first try and the round trips after it the one with the best grade, by the weights' own grader, is what the
generator shall make at once. All of it was made by the generator itself: there is nothing in it that could please a
grader alone (docs/training-log.md).
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

from instapipe.data.domains import Cutting, cut_samples, derive
from instapipe.data.photos import AnnotatedPhoto
from instapipe.data.samples import Sample
from instapipe.errors import DataError
from instapipe.imaging import write_atomically
from instapipe.imaging.windows import VIEWS
from instapipe.networks.grader import Grader
from instapipe.training.turns import Turns, matte_of
from instapipe.translation.again import Turn
from instapipe.translation.native import CUT_OFF, cut_above

MOST_TRIPS = 1 + max(trips for _, _, trips in VIEWS)
WORST = -2.0
"""The grade where nothing was made."""
_ARRAYS = ("pixels", "masks", "raws", "mattes", "grades", "first")


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """pixels: uint8 (N, S, S, 3), what the generator is shown.  masks: bool (N, S, S), of the instance.

    raws: uint8 (N, S, S, 3) and mattes: uint8 (N, S, S), 255 inside, the best that became of it.
    grades: float32 (N,), of that.  first: float32 (N,), of the first try.  photos: file names.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    raws: NDArray[np.uint8]
    mattes: NDArray[np.uint8]
    grades: NDArray[np.float32]
    first: NDArray[np.float32]
    photos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.photos)

    def write(self, path: Path) -> None:
        """As npz. Raises OutputError."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **{name: getattr(self, name) for name in _ARRAYS}, photos=np.array(self.photos))
        write_atomically(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path) -> Lessons:
        """What :meth:`write` wrote. Raises DataError."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS}
                return cls(**arrays, photos=tuple(str(name) for name in file["photos"]))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"no lessons in {str(path)!r}: {error}") from error

    @classmethod
    def together(cls, parts: Sequence[Lessons]) -> Lessons:
        """All of them."""
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        return cls(**arrays, photos=tuple(photo for part in parts for photo in part.photos))


def windows_of(photos: Sequence[AnnotatedPhoto], cutting: Cutting) -> list[Sample]:
    """The windows that are learnt from. Raises DataError where there is none."""
    dropped: dict[str, int] = {}
    samples = [sample for photo in photos for sample in cut_samples(photo, cutting, dropped)]
    if not samples:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none was refused"
        raise DataError(f"no usable instance in {len(photos)} photos ({reasons})")
    return samples


@torch.inference_mode()
def lessons_of(
    samples: Sequence[Sample], turns: Turns, grader: Grader, seed: int, view: int, done: Callable[[int], None]
) -> Lessons:
    """One random view of each of `samples`, by seed and number of the `view`; `done` is told how many are made.

    Raises DataError where no view shows an instance.
    """
    rows: list[tuple[Turn, Turn, float, float, str]] = []
    for number, sample in enumerate(samples):
        rng = torch.Generator().manual_seed(derive(seed, "lesson", view, number))
        turn = turns.first(sample, rng)
        done(number + 1)
        if turn is None:
            continue
        first = best = turn
        grade = worth = _grade(grader, turn)
        for _ in range(MOST_TRIPS if turns.returns else 0):
            if (turn := turns.again(turn)) is None:
                break
            if (reached := _grade(grader, turn)) > worth:
                best, worth = turn, reached
        rows.append((first, best, grade, worth, sample.photo))
    if not rows:
        raise DataError(f"none of {len(samples)} windows shows its instance")
    return Lessons(
        np.stack([np.rint(first.pixels).clip(0, 255).astype(np.uint8) for first, *_ in rows]),
        np.stack([first.masks[0] for first, *_ in rows]),
        np.stack([np.rint(best.raw).clip(0, 255).astype(np.uint8) for _, best, *_ in rows]),
        np.stack([np.rint(255 * matte_of(best)).astype(np.uint8) for _, best, *_ in rows]),
        np.array([worth for *_, worth, _ in rows], np.float32),
        np.array([grade for _, _, grade, *_ in rows], np.float32),
        tuple(photo for *_, photo in rows),
    )


def _grade(grader: Grader, turn: Turn) -> float:
    return worth_of(grader, matte_of(turn))


def worth_of(grader: Grader, matte: NDArray[np.float32]) -> float:
    """The grade of a matte, float32 (h, w) in [0, 1], less what is lost where its head is cut off."""
    if not (matte >= 0.5).any():
        return WORST
    return grader.grade(matte[None]) - CUT_OFF * cut_above(matte[None])
