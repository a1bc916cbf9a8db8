"""Finding weights by name, path or class pair. Reads JSON only: no torch."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Literal, overload

from pydantic import TypeAdapter, ValidationError

from instapipe.config import AttachedFile, SegmenterCard, TranslatorCard, explain
from instapipe.errors import WeightsError
from instapipe.resources import pulled_root, weights_root

CARD = "card.json"
Kind = Literal["translator", "segmenter"]


def digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def attached(entry: AttachedFile, folder: Path) -> Path:
    """The file that a card in `folder` names. Raises WeightsError where it is missing, or not what the card says."""
    path = folder / entry.file
    if not path.is_file():
        raise WeightsError(f"no file {str(path)!r}, which {CARD} names")
    if digest(path) != entry.sha256:
        raise WeightsError(f"{str(path)!r} is damaged or not the one of the card (sha256 differs)")
    return path


def read_card(folder: Path) -> TranslatorCard | SegmenterCard | None:
    """The card in `folder`; None where it is a card of another kind (the judge's).

    Raises WeightsError where it is missing or wrong.
    """
    path = folder / CARD
    try:
        text = path.read_text(encoding="utf-8")
        kind = json.loads(text).get("kind")
    except OSError as error:
        raise WeightsError(f"no weights in {str(folder)!r}: cannot read {CARD}: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{str(path)!r} is no card: {' '.join(str(error).split())}") from error
    models: dict[str, type[TranslatorCard] | type[SegmenterCard]] = {
        "translator": TranslatorCard,
        "segmenter": SegmenterCard,
    }
    if kind not in models:
        return None
    try:
        return TypeAdapter[TranslatorCard | SegmenterCard](models[kind]).validate_json(text)
    except ValidationError as error:
        raise WeightsError(explain(error, str(path))) from error


def bundled() -> list[tuple[TranslatorCard | SegmenterCard, Path]]:
    """Every bundled card with its folder, by name."""
    return _cards(weights_root())


def known() -> list[tuple[TranslatorCard | SegmenterCard, Path]]:
    """Every card that has a name here: the bundled ones, then those that were pulled."""
    return [*bundled(), *_cards(pulled_root())]


def _cards(root: Path) -> list[tuple[TranslatorCard | SegmenterCard, Path]]:
    found = []
    for path in sorted(root.glob(f"[!.]*/{CARD}")):
        card = read_card(path.parent)
        if card is not None:
            found.append((card, path.parent))
    return found


@overload
def find_card(name: str, kind: Literal["translator"]) -> tuple[TranslatorCard, Path]: ...
@overload
def find_card(name: str, kind: Literal["segmenter"]) -> tuple[SegmenterCard, Path]: ...
def find_card(name: str, kind: Kind) -> tuple[TranslatorCard | SegmenterCard, Path]:
    """The card and its folder, for a bundled name, a folder, or a safetensors file in such a folder.

    A bundled name may leave out its version: `sheep2giraffe` is the newest `sheep2giraffe-<n>`.
    Raises WeightsError, which lists the names known.
    """
    path = Path(name).expanduser()
    if path.suffix == ".safetensors" and path.is_file():
        path = path.parent
    if path.is_dir() and (path / CARD).is_file():
        card = read_card(path)
        if card is None or card.kind != kind:
            raise WeightsError(f"weights {name!r} are no {kind}'s")
        return card, path
    cards = {card.name: (card, folder) for card, folder in reversed(known()) if card.kind == kind}
    if name in cards:
        return cards[name]
    versions = [n for n in cards if n.rpartition("-")[0] == name and n.rpartition("-")[2].isdigit()]
    if versions:
        return cards[max(versions, key=lambda n: int(n.rpartition("-")[2]))]
    close = difflib.get_close_matches(name, cards, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    names = ", ".join(sorted(cards)) or "none"
    raise WeightsError(f"no {kind} weights {name!r}{hint}; known: {names}; or give a folder that holds a {CARD}")


def find_translator(source: str, target: str) -> tuple[TranslatorCard, Path]:
    """The newest known translator of `source` into `target`, in either direction of its pair; where there is none, one
    whose card says that it was measured on `source` all the same.

    Raises WeightsError, which lists the pairs known.
    """
    cards = [(c, f) for c, f in known() if isinstance(c, TranslatorCard)]
    matches = [(c, f) for c, f in cards if direction_of(c, source, target) is not None]
    # Second choice: weights that were measured on this source, though trained on another.
    matches = matches or [(c, f) for c, f in cards if source in c.also_from and c.target == target]
    if matches:
        return max(matches, key=lambda match: (match[0].source == source, _version(match[0].name)))
    pairs = sorted(
        {f"{c.source} -> {c.target}" for c, _ in cards if "source_to_target" in c.directions}
        | {f"{c.target} -> {c.source}" for c, _ in cards if "target_to_source" in c.directions}
        | {f"{other} -> {c.target}" for c, _ in cards for other in c.also_from}
    )
    raise WeightsError(
        f"no weights here translate {source!r} to {target!r}; known: {', '.join(pairs) or 'none'}; or give --weights"
    )


def direction_of(
    card: TranslatorCard, source: str, target: str
) -> Literal["source_to_target", "target_to_source"] | None:
    """Which of the card's generators makes `target` out of `source`; None where neither does."""
    if (card.source, card.target) == (source, target) and "source_to_target" in card.directions:
        return "source_to_target"
    if (card.target, card.source) == (source, target) and "target_to_source" in card.directions:
        return "target_to_source"
    return None


def _version(name: str) -> int:
    tail = name.rpartition("-")[2]
    return int(tail) if tail.isdigit() else 0
