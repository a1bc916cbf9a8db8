"""Translated instances, numbered on sheets, for people to grade."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from instapipe.config import CompositingConfig, Direction, TranslatorCard
from instapipe.data.domains import cut_samples, derive
from instapipe.data.photos import AnnotatedPhoto
from instapipe.data.samples import Sample
from instapipe.errors import DataError
from instapipe.imaging import encode_image, write_atomically
from instapipe.imaging.windows import VIEWS
from instapipe.structures import Pixels
from instapipe.training.grading import ANSWERS, Outputs
from instapipe.training.turns import Turns, matte_of
from instapipe.translation.again import Turn

COLUMNS, ROWS, SIDE = 5, 4, 224
"""Of a sheet; large enough that legs can be counted."""
_MOST_TRIPS = max(trips for _, _, trips in VIEWS)
_GREY = 128


class OutputsToGrade:
    """What weights make of instances, a few views of each, each by none to three round trips. Iterating
    gives (matte, tile, photo) one by one."""

    def __init__(
        self, card: TranslatorCard, folder: Path, direction: Direction, *, views: int, most: int, seed: int
    ) -> None:
        """views: crops of each instance's window.  most: outputs in all. Raises WeightsError, UsageError."""
        self.turns = Turns(card, folder, direction)
        self.views, self.most, self.seed = views, most, seed

    def __call__(self, photos: Sequence[AnnotatedPhoto]) -> Iterator[tuple[NDArray[np.uint8], Pixels, str]]:
        """Of `photos` in random order, until there are enough."""
        rng = torch.Generator().manual_seed(derive(self.seed, "grade"))
        most = _MOST_TRIPS if self.turns.returns else 0
        trips = np.random.default_rng(derive(self.seed, "round trips"))
        count = 0
        for place in torch.randperm(len(photos), generator=rng).tolist():
            for sample in cut_samples(photos[place], self.turns.cutting, {}):
                for _ in range(self.views):
                    if count == self.most:
                        return
                    output = self._translated(sample, rng, int(trips.integers(most + 1)))
                    if output is not None:
                        yield *output, Path(photos[place].origin).name
                        count += 1

    @torch.inference_mode()
    def _translated(self, sample: Sample, rng: torch.Generator, trips: int) -> tuple[NDArray[np.uint8], Pixels] | None:
        turn = self.turns.first(sample, rng)
        if turn is None:
            return None
        for _ in range(trips):
            # Where nothing comes back, what there was stays.
            turn = self.turns.again(turn) or turn
        matte = matte_of(turn)
        return np.rint(matte * 255).astype(np.uint8), tile(turn, self.turns.card.compositing)


def tile(turn: Turn, compositing: CompositingConfig) -> Pixels:
    """A turn's window with what was made in it: uint8 (SIDE, SIDE, 3).

    With the photo around, whoever looks can tell a leg that another animal hides from one that is missing. Alone on
    grey, half of the real animals were called broken (docs/training-log.md).
    """
    shown = np.clip(np.rint(turn.composite(compositing)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(shown, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def sheet(crops: Iterable[tuple[int, Pixels]]) -> Pixels:
    """Numbered crops, uint8 (S, S, 3) each, :data:`COLUMNS` in a row, at SIDE pixels."""
    tiles = []
    for number, crop in crops:
        picture = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        where = (3, 15)
        tiles.append(cv2.putText(picture, str(number), where, 0, 0.5, (255, 255, 0), 1, cv2.LINE_AA))
    tiles += [np.full((SIDE, SIDE, 3), _GREY, np.uint8)] * (-len(tiles) % COLUMNS)
    return np.vstack([np.hstack(tiles[k : k + COLUMNS]) for k in range(0, len(tiles), COLUMNS)])


def write_to_grade(folder: Path, outputs: Sequence[tuple[NDArray[np.uint8], Pixels, str]], seed: int) -> list[Path]:
    """The outputs, shuffled: `outputs.npz`, an empty `grades.csv`, and numbered sheets, whose paths it gives.

    Raises DataError where nothing was made.
    """
    if not outputs:
        raise DataError("no instance to translate is large enough, whole and alone enough to be graded")
    order = np.random.default_rng(seed).permutation(len(outputs))
    shuffled = [outputs[place] for place in order]
    Outputs(np.stack([matte for matte, _, _ in shuffled]), tuple(photo for *_, photo in shuffled)).write(folder)
    sheets = []
    per_sheet = COLUMNS * ROWS
    for first in range(0, len(shuffled), per_sheet):
        numbered = enumerate((picture for _, picture, _ in shuffled[first : first + per_sheet]), start=first)
        sheets.append(folder / f"sheet-{first // per_sheet + 1:02d}.png")
        write_atomically(sheets[-1], encode_image(sheet(numbered), ".png"))
    lines = "".join(f"{number},\n" for number in range(len(shuffled)))
    write_atomically(folder / ANSWERS, f"number,grade\n{lines}".encode())
    return sheets
