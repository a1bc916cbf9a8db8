"""Steps of a translation, engine by engine, against the plain reading of the original: side by side, as ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline import PASSES_AS_TESTED, PlainGenerator, loop

from instapipe.config import GeneratorConfig, TranslatorCard
from instapipe.networks.blocks import initialise
from instapipe.networks.cards import bundled, find_card
from instapipe.networks.generator import SetGenerator
from instapipe.networks.weights import load_generator
from instapipe.translation.engines.artefacts import Artefacts
from instapipe.translation.engines.backends import PRECISIONS, why_not
from instapipe.translation.engines.choice import choose_engine, mask_agreement
from instapipe.translation.engines.probes import probe_window
from instapipe.translation.engines.run import Engine, build

PAPER = GeneratorConfig(form="paper", width=64, encoder_blocks=9)
PAPER_SIZE = (200, 200)


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to measure. trained: whether its errors mean something."""

    name: str
    generator: SetGenerator
    size: tuple[int, int]
    per_step: int
    instances: int
    trained: bool
    weights: str


@dataclass(slots=True)
class Measured:
    """One engine on one subject: seconds by round, wall clock and processor, and how far its results are off."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    set_up: float = 0.0


def subjects(more: Iterable[str] = ()) -> Iterable[Subject]:
    """The paper's generator (random weights), each bundled one, and `more` by name or folder."""
    paper = SetGenerator(PAPER)
    initialise(paper, torch.Generator().manual_seed(0))
    yield Subject("paper", paper.eval().requires_grad_(False), PAPER_SIZE, 2, 2, trained=False, weights="paper-seed-0")
    for card, folder in bundled():
        if isinstance(card, TranslatorCard) and "source_to_target" in card.directions:
            yield of_card(card, folder)
    for name in more:
        yield of_card(*find_card(name, "translator"))


def of_card(card: TranslatorCard, folder: Path) -> Subject:
    """A set of weights, at its own size and number of instances per step."""
    generator = load_generator(card, folder, "source_to_target")
    sha256 = card.directions["source_to_target"].sha256
    count = 2 * card.instances_per_step
    return Subject(card.name, generator, card.size or PAPER_SIZE, card.instances_per_step, count, True, sha256)


def measure(subject: Subject, rounds: int, say: Callable[[str], None], *, skip: Collection[str] = ()) -> dict[str, Any]:
    """The baseline and every engine that is installed but those in `skip`, one after the other, `rounds` times.

    A ratio is of two times of one round, so that they lie side by side.
    """
    threads = torch.get_num_threads()
    image, masks = probe_window(subject.size, subject.instances, 0)
    soft = (masks * np.random.default_rng(0).uniform(0.3, 1, masks.shape)).astype(np.float32)
    plain = PlainGenerator(subject.generator)
    expected = {
        "binary": loop(plain.run, image, masks, subject.per_step),
        "soft": loop(plain.run, image, soft, subject.per_step),
    }
    engines: dict[str, Engine] = {}
    found: dict[str, Measured] = {"baseline": Measured()}
    for name, kinds in PRECISIONS.items():
        for precision in kinds:
            label = f"{name} {precision}"
            reason = why_not(name, precision)
            if label in skip or reason is not None:
                say(f"  {label}: {reason or 'left out'}")
                continue
            start = time.process_time()
            made = build(subject.generator, subject.weights, "cpu", name, precision, Artefacts(None))
            result = Measured()
            for masks_kind, given in (("binary", masks), ("soft", soft)):
                got = loop(made.run, image, given, subject.per_step)
                result.errors.update({f"{masks_kind} {k}": v for k, v in errors(expected[masks_kind], got).items()})
            result.set_up = time.process_time() - start
            engines[label], found[label] = made, result
            say(f"  {label}: {result.errors}")
    say(f"  {subject.name}: {len(engines)} engines, {rounds} rounds")
    for _ in range(rounds):
        _timed(found["baseline"], lambda: loop(plain.run, image, masks, subject.per_step))
        for label, made in engines.items():
            _timed(found[label], lambda made=made: loop(made.run, image, masks, subject.per_step))
    choice = choose_engine(
        subject.generator, subject.weights, subject.size, subject.per_step, "cpu", "auto", "auto", Artefacts(None)
    )
    return {
        "subject": subject.name,
        "size": list(subject.size),
        "instances": subject.instances,
        "per_step": subject.per_step,
        "trained": subject.trained,
        "threads": threads,
        "auto": {"engine": f"{choice.engine} {choice.precision}", "reason": choice.reason},
        "engines": {label: _summary(found["baseline"], value) for label, value in found.items()},
        "passes_as_tested": PASSES_AS_TESTED,
    }


def errors(expected: list[Any], got: list[Any]) -> dict[str, float]:
    """Mean and largest difference, of [-1, 1], and the least IoU of a mask at 0.5."""
    differences = np.concatenate([np.abs(a - b).ravel() for a, b in zip(expected, got, strict=True)])
    agreement = min(mask_agreement(a, b) for a, b in zip(expected[1], got[1], strict=True))
    return {"mean": float(differences.mean()), "max": float(differences.max()), "least IoU": agreement}


def _timed(into: Measured, call: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    into.wall.append(time.perf_counter() - wall)
    into.cpu.append(time.process_time() - cpu)


def _summary(baseline: Measured, one: Measured) -> dict[str, Any]:
    """Medians, and ratios round by round with their spread."""
    out: dict[str, Any] = {"errors": one.errors, "set_up_cpu_seconds": round(one.set_up, 2)}
    for clock in ("wall", "cpu"):
        own, base = getattr(one, clock), getattr(baseline, clock)
        ratios = [b / a for a, b in zip(own, base, strict=True)]
        out[clock] = {
            "seconds": round(statistics.median(own), 4),
            "ratio": round(statistics.median(ratios), 2),
            "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    return out
