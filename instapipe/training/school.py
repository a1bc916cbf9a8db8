"""A run of `instapipe grade teach` or `instapipe train-back`: its folder, and the weights that come out of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from instapipe.config import Direction, TranslatorCard, opposite
from instapipe.data.photos import AnnotatedPhoto
from instapipe.errors import TrainingError, UsageError
from instapipe.imaging import write_atomically
from instapipe.networks.generator import SetGenerator
from instapipe.networks.grader import Grader
from instapipe.networks.weights import load_generator, save_translator, with_grader
from instapipe.training.lessons import Lessons, lessons_of, windows_of
from instapipe.training.pairs import Pairs, pairs_of, views_of
from instapipe.training.turns import Turns, cutting_for

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
        samples = windows_of(those, turns.cutting) if missing else []
        for view in missing:
            tell = partial(told, f"{label}, view {view + 1} of {views}", len(samples))
            lessons_of(samples, turns, grader, seed, view, tell).write(files[view])
        parts += [Lessons.read(path) for path in files]
    return Lessons.together(parts)


def gather_pairs(
    folder: Path,
    photos: Mapping[str, Sequence[AnnotatedPhoto]],
    turns: Turns,
    grader: Grader | None,
    views: int,
    seed: int,
    told: Callable[[str, int, int], None],
) -> tuple[Pairs, Pairs]:
    """What `turns` makes of `photos` of the source, and windows of those of the target; each view of pairs is kept in
    `folder` as soon as it is whole.

    told: as of :func:`gather`. Raises DataError.
    """
    card = turns.card
    files = [folder / f"{view:02d}.npz" for view in range(views)]
    missing = [view for view, path in enumerate(files) if not path.is_file()]
    samples = windows_of(photos[card.source], turns.cutting) if missing else []
    for view in missing:
        tell = partial(told, f"{card.source}, view {view + 1} of {views}", len(samples))
        pairs_of(samples, turns, grader, seed, view, tell).write(files[view])
    pairs = Pairs.together([Pairs.read(path) for path in files])
    cutting = cutting_for(card, opposite(turns.direction), turns.max_company, narrowest=0.0)
    others = windows_of(photos[card.target], cutting)
    seen = [views_of(others, cutting, card.compositing, seed, view) for view in range(views)]
    return pairs, Pairs.together(seen)


def write_taught(
    taught: SetGenerator, card: TranslatorCard, folder: Path, direction: Direction, export: Path, facts: dict[str, Any]
) -> None:
    """The weights of `card` in `folder` with what has been `taught` in `direction`, their grader as it was, as `export`
    (which must not exist). `facts`: further fields of the card. Raises OutputError."""
    networks: dict[Direction, SetGenerator] = {
        way: taught if way == direction else load_generator(card, folder, way) for way in card.directions
    }
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / export.name
        states = {way: dict(network.state_dict()) for way, network in networks.items()}
        without = card.model_copy(update={**facts, "name": export.name, "grader": None})
        if card.grader is None:
            save_translator(export, without, states)
        else:
            with_grader(save_translator(weights, without, states), weights, folder / card.grader.file, export)
