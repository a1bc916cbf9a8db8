"""Which weights, segmenter and engine a request means, without loading any of them.

What was found is remembered in the store: where the files have gone since, a run that finds every result in the cache
still gives its picture, and one that would have to compute says what is missing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from instapipe.config import AttachedFile, Direction, SegmenterCard, TranslatorCard, opposite
from instapipe.errors import UnknownClass, UsageError, WeightsError
from instapipe.networks.cards import bundled, direction_of, find_card, find_translator
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store


@dataclass(frozen=True, slots=True)
class Weights:
    """A translator's card and which of its generators is meant. folder: None where the files have gone."""

    card: TranslatorCard
    direction: Direction
    folder: Path | None
    gone: WeightsError | None = None

    @property
    def sha256(self) -> str:
        """Of the generator's file, as its card says (loading checks it)."""
        return self.card.directions[self.direction].sha256

    @property
    def grader(self) -> AttachedFile | None:
        """What chooses among several tries; graders know the target alone."""
        there = self.direction == "source_to_target"
        return self.card.grader if there and self.card.paints_outlines else None

    @property
    def upscaler(self) -> AttachedFile | None:
        """What gives detail to what is enlarged; upscalers, too, know the target alone, cut out by its matte."""
        there = self.direction == "source_to_target" and self.card.compositing.mode == "matte"
        return self.card.upscaler if there else None

    @property
    def taken_after(self) -> int:
        """After how many round trips what is made is taken, where no grader chooses."""
        card = self.card
        back = self.direction == "target_to_source" and "source_to_target" in card.directions
        return card.target_round_trips if back and card.paints_outlines else 0

    @property
    def back(self) -> Direction | None:
        """The direction of the generator that goes the other way, where there are round trips."""
        other = opposite(self.direction)
        trips = self.grader is not None or self.taken_after > 0
        return other if trips and other in self.card.directions else None

    @property
    def back_sha256(self) -> str | None:
        """Of the file of `back`."""
        return None if self.back is None else self.card.directions[self.back].sha256

    def windows(self) -> dict[str, Any]:
        """What of the card decides where windows lie; a step's key holds the windows themselves."""
        names = {
            "window_scale",
            "window_height_scale",
            "least_aspect",
            "target_window_scale",
            "instances_per_step",
        }
        size = self.card.size_of(self.direction)
        return {"size": None if size is None else list(size), **self.card.model_dump(mode="json", include=names)}

    def fingerprint(self) -> dict[str, Any]:
        """Everything of the weights that changes a step's result. The card's prose is not among it."""
        out = {
            "sha256": self.sha256,
            "generator": self.card.generator.model_dump(mode="json"),
            "compositing": self.card.compositing.model_dump(mode="json"),
        }
        # Only where they are not the usual, so that what was translated before is found again.
        card, usual = self.card, {"masks": "instances", "facing": "any", "placement": "centre"}
        return {**out, **{name: getattr(card, name) for name, value in usual.items() if getattr(card, name) != value}}


@dataclass(frozen=True, slots=True)
class Found:
    """A segmenter as its registry describes it. gone: why it could not be described anew."""

    name: str
    classes: tuple[str, ...]
    fingerprint: dict[str, Any]
    gone: Exception | None = None


def resolve_weights(settings: TranslateSettings, store: Store) -> Weights:
    """The weights that `settings` mean. Raises WeightsError, UnknownClass."""
    names = _names(settings)
    gone: WeightsError | None = None
    folder: Path | None
    try:
        if settings.weights is None:
            card, folder = find_translator(settings.source, settings.target)
        else:
            card, folder = find_card(settings.weights, "translator")
        store.remember("translators", names[0], card.model_dump(mode="json"))
    except WeightsError as error:
        recalled = next(filter(None, (store.recall("translators", name) for name in names)), None)
        if recalled is None:
            raise
        card, folder, gone = TranslatorCard.model_validate(recalled), None, error
    weights = Weights(card, _direction(card, settings), folder, gone)
    if (settings.tries or 1) > 1 and settings.region == "whole":
        raise UsageError(f"--tries {settings.tries}: with --region whole a photo is translated once")
    if (settings.tries or 1) > 1 and weights.grader is None:
        raise UsageError(
            f"--tries {settings.tries}: weights {card.name!r} have no grader to choose {settings.target!r} by"
        )
    return weights


def _names(settings: TranslateSettings) -> list[str]:
    """What a request's weights are remembered by: the pair of classes, the bundled name, or the path."""
    if settings.weights is None:
        return [f"{settings.source} -> {settings.target}"]
    path = Path(settings.weights).expanduser()
    absolute = str(path.absolute())
    return [absolute] if path.exists() else [settings.weights, absolute]


def _direction(card: TranslatorCard, settings: TranslateSettings) -> Direction:
    """By the pair; where the weights were named, any source may be tried with them, as long as the target is theirs."""
    direction = direction_of(card, settings.source, settings.target)
    if direction is not None:
        return direction
    if settings.target == card.target and "source_to_target" in card.directions:
        return "source_to_target"
    if settings.target == card.source and "target_to_source" in card.directions:
        return "target_to_source"
    makes = [card.target] if "source_to_target" in card.directions else []
    makes += [card.source] if "target_to_source" in card.directions else []
    raise UnknownClass(f"weights {card.name!r} do not make {settings.target!r}; they make {' and '.join(makes)}")


def find_segmenter(name: str | None, label: str | None, store: Store) -> Found:
    """The segmenter called `name`; without one, the bundled one for the class `label` (any, if None).

    Raises UsageError where there is none.
    """
    from instapipe.segmentation import registry

    asked = name or f"for {label}"
    gone: Exception | None = None
    try:
        chosen = name or (registry.default_for(label) if label is not None else _any_segmenter())
        classes, fingerprint = registry.describe(chosen)
        store.remember("segmenters", asked, {"name": chosen, "classes": list(classes), "fingerprint": fingerprint})
    # A torch-backed segmenter may fail to be described in many ways once its files or torch are gone.
    except (UsageError, ImportError, OSError) as error:
        recalled = store.recall("segmenters", asked)
        if recalled is None:
            raise
        chosen, classes, fingerprint = recalled["name"], tuple(recalled["classes"]), recalled["fingerprint"]
        gone = error
    return Found(chosen, tuple(classes), dict(fingerprint), gone)


def _any_segmenter() -> str:
    names = sorted(card.name for card, _ in bundled() if isinstance(card, SegmenterCard))
    if not names:
        raise UsageError("no segmenter is bundled; choose one, such as --segmenter torchvision")
    return names[-1]


def resolve_engine(
    settings: TranslateSettings, weights: Weights, store: Store, measure: Callable[[], dict[str, str]]
) -> dict[str, str]:
    """{"engine", "precision"}, resolved once for a run: as asked, as measured on this machine before, or by `measure`,
    which also gives a "reason".

    What was measured is remembered for these weights, this machine and the versions of what was measured.
    """
    if settings.engine != "auto" and settings.precision != "auto":
        return {"engine": settings.engine, "precision": settings.precision}
    name = " ".join([weights.sha256, settings.engine, settings.precision, settings.device, machine()])
    recalled = store.recall("engines", name)
    versions = _versions()
    # Without torch nothing can be measured, but what was once computed with it can still be found.
    if recalled is not None and (versions["torch"] is None or versions == recalled.get("versions")):
        return {"engine": recalled["engine"], "precision": recalled["precision"]}
    chosen = measure()
    store.remember("engines", name, {**chosen, "versions": versions})
    logging.getLogger(__name__).info("engine %(engine)s, %(precision)s: %(reason)s", {"reason": "", **chosen})
    return {"engine": chosen["engine"], "precision": chosen["precision"]}


def machine() -> str:
    """The processor, by its name and what it can do, as a short digest: engines are chosen by measuring on it."""
    facts = [platform.machine(), platform.system(), str(os.cpu_count())]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    for start in ("model name", "flags", "Features"):
        facts += [line for line in lines if line.startswith(start)][:1]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _versions() -> dict[str, str | None]:
    """Of what engines are made of; None where it is not installed."""
    found: dict[str, str | None] = {}
    for package in ("torch", "openvino", "nncf", "onnxruntime"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
