"""A run of `instapipe grade teach`: its folder, and the weights that come out of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from instapipe.config import Direction, TranslatorCard
from instapipe.data.photos import AnnotatedPhoto
from instapipe.errors import TrainingError, UsageError
from instapipe.imaging import write_atomically
from instapipe.networks.generator import SetGenerator
from instapipe.networks.grader import Grader
from instapipe.networks.weights import load_generator, save_translator, with_grader
from instapipe.training.lessons import Lessons, lessons_of, windows_of
from instapipe.training.teaching import Teacher
from instapipe.training.turns import Turns

CHECKPOINTS = "checkpoints"
_CONFIG = "config.json"


def claim(folder: Path, config: dict[str, Any]) -> bool:
    """Whether `folder` holds a run of this `config` to go on with; a new one is begun.

    Raises UsageError where it holds another one, OutputError.
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
        samples = windows_of(those, turns) if missing else []
        for view in missing:
            tell = partial(told, f"{label}, view {view + 1} of {views}", len(samples))
            lessons_of(samples, turns, grader, seed, view, tell).write(files[view])
        parts += [Lessons.read(path) for path in files]
    return Lessons.together(parts)


def write_taught(
    teacher: Teacher, card: TranslatorCard, folder: Path, direction: Direction, export: Path, facts: dict[str, Any]
) -> None:
    """The weights of `card` in `folder` with what the teacher's average has become in `direction`, their grader as it
    was, as `export` (which must not exist). `facts`: further fields of the card. Raises OutputError."""
    networks: dict[Direction, SetGenerator] = {
        way: teacher.average if way == direction else load_generator(card, folder, way) for way in card.directions
    }
    assert card.grader is not None
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / export.name
        states = {way: dict(network.state_dict()) for way, network in networks.items()}
        written = save_translator(weights, card.model_copy(update={**facts, "name": export.name}), states)
        with_grader(written, weights, folder / card.grader.file, export)
