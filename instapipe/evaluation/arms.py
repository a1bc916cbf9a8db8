"""The arms of an evaluation: the same photos translated with other masks, orders and steps, and left as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from instapipe import masks
from instapipe.errors import UsageError
from instapipe.evaluation.cases import Case, case_of, copy_case
from instapipe.evaluation.masks import Fault, worsen
from instapipe.imaging import read_bytes, write_atomically
from instapipe.masks.coco import document
from instapipe.pipeline.api import Result
from instapipe.pipeline.formats import read_instances
from instapipe.pipeline.models import Models
from instapipe.pipeline.runner import Runner
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store
from instapipe.structures import Instances, Mask, Translation
from instapipe.verdict.dataset import LabelledPhoto

Suite = Literal["masks", "order", "steps", "worse", "all"]
SUITES: tuple[Suite, ...] = get_args(Suite)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of translating the photos.

    masks: `given` (the data set's), `predicted` (the segmenter's), `none` (the photo is copied).  fault, amount: how
    the given masks are made worse.  settings: on top of the evaluation's own.  wanted: what the animals should be seen
    as afterwards.
    """

    name: str
    masks: Literal["given", "predicted", "none"] = "given"
    fault: Fault = "none"
    amount: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    wanted: Literal["target", "source"] = "target"

    def __post_init__(self) -> None:
        if self.fault != "none" and self.masks != "given":
            raise ValueError(f"arm {self.name!r}: only given masks are made worse")


GIVEN, PREDICTED, COPY = Arm("given masks"), Arm("predicted masks", "predicted"), Arm("copy of the input", "none")
UNTOUCHED = Arm("untouched, as they are", "none", wanted="source")
"""What the judge sees of the real animals in the same photos, by the same rules: the most that it can find."""
ORDERS = (
    Arm("smallest first", settings={"order": "size-ascending"}),
    Arm("random order", settings={"order": "random"}),
)
STEPS = tuple(
    Arm(name, settings={"instances_per_step": size})
    for name, size in (("1 a step", 1), ("2 a step", 2), ("4 a step", 4), ("all at once", 64))
)
WORSE = tuple(
    Arm(f"{fault} {amount:g}", fault=fault, amount=amount)
    for fault in ("erode", "dilate", "holes", "drop", "merge")
    for amount in (0.25, 0.5)
)


def arms_of(suite: str) -> list[Arm]:
    """The arms of a suite, the plainest first: the report opens with it. Raises UsageError for an unknown suite."""
    if suite not in SUITES:
        raise UsageError(f"no suite {suite!r}; known: {', '.join(SUITES)}")
    more: dict[str, Sequence[Arm]] = {"masks": (), "order": ORDERS, "steps": STEPS, "worse": WORSE}
    parts = more[suite] if suite != "all" else (*ORDERS, *STEPS, *WORSE)
    return [GIVEN, PREDICTED, *parts, COPY, UNTOUCHED]


class Translating:
    """Translates labelled photos by an arm, through the pipeline and its cache.

    folder: where the masks of an arm are written for the pipeline to read.
    """

    def __init__(
        self,
        arm: Arm,
        settings: TranslateSettings,
        photos: Sequence[LabelledPhoto],
        store: Store,
        models: Models,
        folder: Path,
        seed: int,
    ) -> None:
        self.arm = arm
        self.selected: list[tuple[Instances, Instances]] = []
        """(listed, selected for translation) of each photo so far."""
        self._settings = settings.model_copy(update=dict(arm.settings))
        self._runner: Runner | None = None
        if arm.masks == "none":
            return
        source = None
        if arm.masks == "given":
            # One draw for the whole arm: a photo's masks must not depend on which photos come with it.
            source = folder / f"{arm.name.replace(' ', '-')}.json"
            worse = [worsen(p.instances, arm.fault, arm.amount, _rng(seed, p.name)) for p in photos]
            entries = [masks.Entry(photo.name, made) for photo, made in zip(photos, worse, strict=True)]
            write_atomically(source, json.dumps(document(entries)).encode())
        self._runner = Runner(self._settings, store, models, mask_source=source)

    def provenance(self) -> dict[str, Any]:
        """What made the pictures of this arm."""
        if self._runner is None:
            return {"masks": "none"}
        segmenter = None if self.arm.masks == "given" else self._runner.segmenter().name
        return {
            "masks": self.arm.masks,
            "fault": self.arm.fault,
            "amount": self.arm.amount,
            "segmenter": segmenter,
            "settings": self._settings.model_dump(mode="json"),
            "engine": dict(self._runner.engine),
        }

    def weights(self) -> dict[str, Any]:
        """Name, direction and digest of the translator's weights; raises UsageError for the copy, which has none."""
        if self._runner is None:
            raise UsageError("the copy of the input has no weights")
        used = self._runner.weights
        return {"name": used.card.name, "direction": used.direction, "sha256": used.sha256}

    def __call__(self, photo: LabelledPhoto) -> Case:
        """The case of one photo. Raises InputError."""
        pixels = photo.pixels()
        if self._runner is None:
            wanted = self._settings.source if self.arm.wanted == "source" else None
            return copy_case(photo.name, pixels, photo.instances, self._settings.source, photo.made_by, wanted)
        data = read_bytes(photo.path)
        prepared = self._runner.prepare(data, str(photo.path), photo.path)
        everything = read_instances(prepared.segmented.files)
        chosen = everything.select(everything.numbers.index(number) for number in prepared.selection.numbers)
        self.selected.append((photo.instances, chosen))
        outcome = self._runner.process(data, str(photo.path), photo.path, ".png")
        result = Result(outcome, str(photo.path), self._settings.target)
        boxes = tuple((int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in _regions(outcome.result))
        translation = Translation(result.pixels, result.instances, boxes, _union(boxes, photo.instances.size))
        return case_of(photo.name, pixels, photo.instances, chosen, translation, photo.made_by)


def _regions(result: Mapping[str, Any]) -> list[list[int]]:
    return [step["region"] for step in result["steps"]]


def _union(boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, int]) -> Mask:
    covered = np.zeros(size, dtype=np.bool_)
    for x0, y0, x1, y1 in boxes:
        covered[y0:y1, x0:x1] = True
    return Mask.from_dense(covered)


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, *name.encode()])
