"""Segmenters by name. No torch: a run whose results are all cached asks only for descriptions.

A name is one of

- bundled weights (``maskrcnn-animals``), or a folder with a card: the compact Mask R-CNN;
- ``ADAPTER`` or ``ADAPTER:ARGUMENT``, where the adapter is built in (``torchvision``, ``detectron2``) or an entry point
  of the group ``instapipe.segmenters`` in any installed package. The entry point's object is an :class:`Adapter`:
  usually a module with the two functions.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from instapipe.config import SegmenterCard
from instapipe.errors import UnknownClass, WeightsError
from instapipe.networks.cards import bundled, find_card
from instapipe.segmentation import Segmenter

GROUP = "instapipe.segmenters"
BUILT_IN: Mapping[str, str] = {
    "torchvision": "instapipe.segmentation.torchvision",
    "detectron2": "instapipe.segmentation.detectron2",
}

COMPACT_VERSION = 2
"""Of what the compact adapter computes from given weights: part of the fingerprint."""

Description = tuple[tuple[str, ...], dict[str, Any]]
"""(classes, fingerprint)"""


class Adapter(Protocol):
    """What makes segmenters of one kind. `argument` is what follows the colon in the name, or None."""

    def describe(self, argument: str | None) -> Description:
        """Classes and fingerprint of what :meth:`load` would give; quick, and best without importing the vendor."""
        ...

    def load(self, argument: str | None, *, device: str) -> Segmenter:
        """The segmenter, ready to run on `device`."""
        ...


def describe(name: str) -> Description:
    """(classes, fingerprint) of the segmenter `name`, as the loaded one would give them. Raises WeightsError."""
    adapter, argument = _adapter(name)
    if adapter is not None:
        return adapter.describe(argument)
    card, _ = _card(name)
    return card.classes, compact_fingerprint(card)


def load(name: str, *, device: str = "cpu") -> Segmenter:
    """The segmenter `name`; raises WeightsError, or EngineError where there is no such device (`auto`: the best)."""
    from instapipe.networks.devices import resolve_device

    device = resolve_device(device)
    adapter, argument = _adapter(name)
    if adapter is not None:
        return adapter.load(argument, device=device)
    card, folder = _card(name)
    from instapipe.segmentation.compact import CompactSegmenter

    return CompactSegmenter(card, folder, device)


def default_for(label: str) -> str:
    """The name of the segmenter to use for `label` where none was asked for: the newest bundled one that knows it.

    Raises UnknownClass, which lists what the bundled ones know and says how to use another.
    """
    cards = [card for card, _ in bundled() if isinstance(card, SegmenterCard)]
    knowing = [card.name for card in cards if label in card.classes]
    if knowing:
        return max(knowing, key=lambda name: (len(name), name))
    known = ", ".join(sorted({c for card in cards for c in card.classes})) or "nothing"
    raise UnknownClass(
        f"no bundled segmenter knows {label!r} (they know: {known}); choose one, "
        "such as --segmenter torchvision for the COCO classes, or give --masks"
    )


def adapters() -> tuple[str, ...]:
    """The names of all adapters: built in and by entry point."""
    return tuple(sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))


def compact_fingerprint(card: SegmenterCard) -> dict[str, Any]:
    """What decides the result of the segmenter that `card` describes."""
    return {
        "segmenter": card.architecture,
        "version": COMPACT_VERSION,
        "weights": card.sha256,
        "classes": list(card.classes),
        "settings": card.settings,
    }


def _adapter(name: str) -> tuple[Adapter | None, str | None]:
    """The adapter that `name` means, with its argument; None for weights with a card."""
    kind, colon, argument = name.partition(":")
    if kind in BUILT_IN:
        # A module is an adapter: mypy cannot see through importlib.
        return cast(Adapter, importlib.import_module(BUILT_IN[kind])), argument if colon else None
    for point in entry_points(group=GROUP, name=kind):
        try:
            return cast(Adapter, point.load()), argument if colon else None
        except (ImportError, AttributeError) as error:
            raise WeightsError(f"segmenter {kind!r} of {point.value!r} cannot be imported: {error}") from error
    return None, None


def _card(name: str) -> tuple[SegmenterCard, Any]:
    try:
        return find_card(name, "segmenter")
    except WeightsError as error:
        raise WeightsError(f"{error}; or an adapter: {', '.join(adapters())}") from error
