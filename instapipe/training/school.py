"""The folder of a run of `grade teach` or `train-back`, -coats, -texture, -upscaler, and what is gathered there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from instapipe.data.photos import AnnotatedPhoto
from instapipe.errors import TrainingError, UsageError
from instapipe.imaging import write_atomically
from instapipe.networks.grader import Grader
from instapipe.training.lessons import Lessons, lessons_of, windows_of
from instapipe.training.pairs import Pairs, pairs_of
from instapipe.training.turns import Turns

CHECKPOINTS = "checkpoints"
_CONFIG = "config.json"


def claim(folder: Path, config: dict[str, Any]) -> bool:
    """Whether `folder` holds a run of this `config` to go on with; a new one is begun.

    Raises UsageError where it holds another one, TrainingError where what it holds cannot be read, OutputError.
    """
    path = folder / _CONFIG
    if not path.is_file():
        write_atomically(path, (json.dumps(config, indent=1) + "\n").encode())
        return False
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise TrainingError(f"cannot read {str(path)!r}: {error}") from error
    other = [name for name in sorted({*known, *config}) if known.get(name) != config.get(name)]
    if other:
        name = other[0]
        raise UsageError(
            f"{str(folder)!r} holds a run with {name} {known.get(name)!r}, not {config.get(name)!r}: give the same "
            "options to go on with it, or choose another --output"
        )
    return True


def gather(
    folder: Path,
    photos: Mapping[str, Sequence[AnnotatedPhoto]],
    turns: Turns,
    grader: Grader,
    views: int,
    seed: int,
    told: Callable[[str, int, int], None],
) -> Lessons:
    """Lessons of `photos`, by class; each class and view is kept in `folder` as soon as it is whole.

    told: of what, of how many windows, how many are done. Raises DataError.
    """
    parts = []
    for label, those in photos.items():
        files = [folder / f"{label}-{view:02d}.npz" for view in range(views)]
        missing = [view for view, path in enumerate(files) if not path.is_file()]
        samples = windows_of(those, turns.cutting) if missing else []
        for view in missing:
            tell = partial(told, f"{label}, view {view + 1} of {views}", len(samples))
            lessons_of(samples, turns, grader, seed, view, tell).write(files[view])
        parts += [Lessons.read(path) for path in files]
    return Lessons.together(parts)


def gather_pairs(
    folder: Path,
    photos: Sequence[AnnotatedPhoto],
    way_there: Callable[[], tuple[Turns, Grader | None]],
    views: int,
    seed: int,
    told: Callable[[int, int, int], None],
) -> Pairs:
    """What the way there makes of `photos`; each view is kept in `folder` as soon as it is whole.

    way_there: its turns and grader, asked for where a view is missing.  told: in which view (from 0), of how many
    windows, how many are done. Raises DataError, OutputError.
    """
    files = [folder / f"{view:02d}.npz" for view in range(views)]
    missing = [view for view, path in enumerate(files) if not path.is_file()]
    if missing:
        turns, grader = way_there()
        samples = windows_of(photos, turns.cutting)
        for view in missing:
            pairs_of(samples, turns, grader, seed, view, partial(told, view, len(samples))).write(files[view])
    return Pairs.together([Pairs.read(path) for path in files])
