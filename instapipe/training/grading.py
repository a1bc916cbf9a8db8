"""Graded outputs become a grader: ridge regression on features of their outlines."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from instapipe.errors import DataError
from instapipe.imaging import write_atomically
from instapipe.networks.grader import GRADES, Grader, GraderForm, Outlines, looks, outline

FORM = GraderForm()
OUTPUTS, ANSWERS = "outputs.npz", "grades.csv"
LEAST = 40
"""Fewer graded outputs teach nothing."""
_COPIES = 5
_RIDGE = 15.0
_FOLDS = 8
_SHIFT, _SCALE, _SHARPER = 0.03, 0.05, (1.0, 1.5, 2.5)
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """Translated instances, by number. mattes: uint8 (N, S, S), 255 inside.  photos: what each was made of."""

    mattes: NDArray[np.uint8]
    photos: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """`outputs.npz` in `folder`. Raises OutputError."""
        stream = io.BytesIO()
        np.savez_compressed(stream, mattes=self.mattes, photos=np.array(self.photos))
        write_atomically(folder / OUTPUTS, stream.getvalue())


@dataclass(frozen=True, slots=True, eq=False)
class Graded:
    """Outputs with their grades, float (N,), of those that have one."""

    outputs: Outputs
    grades: Floats


def read_graded(folder: Path) -> Graded:
    """The outputs in `folder` that `grades.csv` there grades: a line `number,grade` each, whatever follows.

    Raises DataError, which names the line.
    """
    path = folder / OUTPUTS
    try:
        with np.load(path, allow_pickle=False) as file:
            mattes, photos = file["mattes"], tuple(str(name) for name in file["photos"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(f"no outputs to grade in {str(folder)!r}: cannot read {OUTPUTS}: {error}") from error
    grades: dict[int, float] = {}
    for place, row in enumerate(_rows(folder / ANSWERS), start=1):
        if not row or (place == 1 and not row[0].strip().isdigit()):
            continue
        number, grade = row[0].strip(), row[1].strip() if len(row) > 1 else ""
        if grade == "":
            continue  # not graded
        if not number.isdigit() or int(number) >= len(mattes) or grade not in {str(g) for g in GRADES}:
            raise DataError(
                f"{str(folder / ANSWERS)!r}, line {place}: {','.join(row)!r}: expected a number below {len(mattes)} "
                "and a grade: 0 broken, 1 doubtful, 2 sound"
            )
        grades[int(number)] = float(grade)
    chosen = sorted(grades)
    return Graded(
        Outputs(mattes[chosen], tuple(photos[n] for n in chosen)), np.array([grades[n] for n in chosen], np.float32)
    )


def _rows(path: Path) -> list[list[str]]:
    try:
        return list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"no grades in {str(path)!r}: {error}") from error


def fit_grader(
    graded: Sequence[Graded],
    form: GraderForm = FORM,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Grader:
    """Learn from all of `graded`; the grader's `agreement` is measured on photos that were left out in turn.

    Each outline is learnt from as it is and in four copies, moved, scaled and sharpened a little.
    Raises DataError where there are too few, or all have one grade.
    """
    grades = np.concatenate([each.grades for each in graded]) if graded else np.zeros(0, np.float32)
    photos = [photo for each in graded for photo in each.outputs.photos]
    if len(grades) < LEAST or len(set(photos)) < _FOLDS:
        raise DataError(
            f"{len(grades)} graded outputs of {len(set(photos))} photos: a grader needs {LEAST} of {_FOLDS} at least"
        )
    if grades.min() == grades.max():
        raise DataError(f"all {len(grades)} outputs have grade {grades[0]:g}: there is nothing to tell apart")
    outlines = Outlines.pretrained(form)
    copies = _features(outlines, [matte for each in graded for matte in each.outputs.mattes], progress)
    mean, deviation = copies[0].mean(axis=0), copies[0].std(axis=0) + 1e-3
    share = np.concatenate([np.full(size, size**-0.5, np.float32) for size in outlines.sizes])
    scaled = [(copy - mean) / deviation * share for copy in copies]  # each scale counts as much, whatever its width
    guesses = np.zeros(len(grades), np.float32)
    fold = _folds(photos)
    for number in range(_FOLDS):
        out = fold == number
        weight, bias = _ridge([copy[~out] for copy in scaled], grades[~out])
        guesses[out] = scaled[0][out] @ weight + bias
    weight, bias = _ridge(scaled, grades)
    weight = weight * share / deviation
    known = replace(form, outputs=len(grades), agreement=spearman(guesses, grades))
    grader = Grader(known, outlines, torch.from_numpy(weight), torch.tensor(bias - float(weight @ mean)))
    return grader.eval()


def spearman(one: Floats, two: Floats) -> float:
    """Spearman's rank correlation; ties share their mean rank."""
    return float(np.corrcoef(_ranks(one), _ranks(two))[0, 1])


def _ranks(values: Floats) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=np.float64)


def _folds(photos: Sequence[str]) -> NDArray[np.intp]:
    """One of the folds for each output; those of one photo are in the same."""
    names = sorted(set(photos))
    order = np.random.default_rng(0).permutation(len(names))
    of = {name: int(order[k]) % _FOLDS for k, name in enumerate(names)}
    return np.array([of[photo] for photo in photos], dtype=np.intp)


def _ridge(copies: Sequence[Floats], grades: Floats) -> tuple[Floats, float]:
    features, wanted = np.concatenate(copies), np.tile(grades, len(copies))
    mean = float(wanted.mean())
    gram = features.T @ features + _RIDGE * np.eye(features.shape[1], dtype=np.float32)
    return np.asarray(np.linalg.solve(gram, features.T @ (wanted - mean)), dtype=np.float32), mean


@torch.no_grad()
def _features(
    outlines: Outlines, mattes: Sequence[NDArray[np.uint8]], progress: Callable[[int, int], None]
) -> list[Floats]:
    """Of the mattes as they are, then of each of the copies: (N, d)."""
    rng = np.random.default_rng(0)
    found = []
    total = _COPIES * len(mattes)
    for copy in range(_COPIES):
        rows = []
        for start in range(0, len(mattes), 32):
            shown = [_shown(matte, outlines.side, rng if copy else None) for matte in mattes[start : start + 32]]
            rows.append(outlines(torch.from_numpy(np.stack([looks(one, outlines.looks) for one in shown]))).numpy())
            progress(copy * len(mattes) + start + len(shown), total)
        found.append(np.concatenate(rows))
    return found


def _shown(matte: NDArray[np.uint8], side: int, rng: np.random.Generator | None) -> Floats:
    """float (side, side) in [0, 1]: as it is, or as `rng` moves, scales and sharpens it."""
    plane = outline(matte.astype(np.float32) / np.float32(255), side)
    if rng is None:
        return plane
    scale = 1 + rng.uniform(-_SCALE, _SCALE)
    across, down = rng.uniform(-_SHIFT, _SHIFT, 2) * side
    middle = side / 2 * (1 - scale)
    moved = cv2.warpAffine(plane, np.array([[scale, 0, middle + across], [0, scale, middle + down]]), (side, side))
    return np.asarray(np.clip((moved - 0.5) * rng.choice(_SHARPER) + 0.5, 0, 1), dtype=np.float32)
