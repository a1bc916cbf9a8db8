"""What weights make of windows of training photos at the first try: what an upscaler is shown."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from instapipe.data.domains import derive
from instapipe.data.samples import Sample
from instapipe.errors import DataError
from instapipe.imaging import write_atomically
from instapipe.structures import Pixels
from instapipe.training.turns import Turns, matte_of


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """raws: uint8 (N, S, S, 3).  mattes: uint8 (N, S, S), 255 inside.  photos: file names."""

    raws: NDArray[np.uint8]
    mattes: NDArray[np.uint8]
    photos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.photos)

    @classmethod
    def of(
        cls, samples: Sequence[Sample], turns: Turns, seed: int, views: int, done: Callable[[int, int], None]
    ) -> Made:
        """So many random views of each of `samples`, translated once; `done`: how many are, of how many.

        Raises DataError.
        """
        rows: list[tuple[Pixels, NDArray[np.uint8], str]] = []
        for number, sample in enumerate(views * tuple(samples)):
            turn = turns.first(sample, torch.Generator().manual_seed(derive(seed, "made", number)))
            done(number + 1, views * len(samples))
            if turn is not None and ((matte := matte_of(turn)) >= 0.5).any():
                raw = np.rint(turn.raw).clip(0, 255).astype(np.uint8)
                rows.append((raw, np.rint(255 * matte).astype(np.uint8), sample.photo))
        if not rows:
            raise DataError(f"nothing was made of {len(samples)} windows")
        raws, mattes, photos = zip(*rows, strict=True)
        return cls(np.stack(raws), np.stack(mattes), tuple(photos))

    def write(self, path: Path) -> None:
        """As npz. Raises OutputError."""
        stream = io.BytesIO()
        np.savez_compressed(stream, raws=self.raws, mattes=self.mattes, photos=np.array(self.photos))
        write_atomically(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path) -> Made:
        """What :meth:`write` wrote. Raises DataError."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return cls(file["raws"], file["mattes"], tuple(str(name) for name in file["photos"]))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"no instances in {str(path)!r}: {error}; remove it, and they are made again") from error
