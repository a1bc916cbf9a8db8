"""`translate --verify`: the independent judge looks at what was made, and what failed is flagged, retried or undone.

What the judge sees is kept in the cache like every other stage: a warm run needs no network for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from instapipe.errors import UsageError
from instapipe.pipeline.api import Result
from instapipe.pipeline.formats import instances_files, read_instances
from instapipe.pipeline.models import Models
from instapipe.pipeline.outputs import picture_bytes
from instapipe.pipeline.runner import Outcome, Runner
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store
from instapipe.structures import Instances, Mask, Pixels
from instapipe.verdict.card import DEFAULT, find_judge
from instapipe.verdict.matching import judge

VERIFY_VERSION = 1
OnFailure = Literal["flag", "retry", "roll-back"]
ON_FAILURE: tuple[OnFailure, ...] = get_args(OnFailure)
RETRIES = ("size-ascending", "left-to-right")
"""Orders that are tried instead, in this order; the first with the fewest failures is kept."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The verdicts on one outcome: records for the report, and the numbers of the instances that failed."""

    records: tuple[dict[str, Any], ...]
    failed: tuple[int, ...]


class VerifyingRunner(Runner):
    """A runner that looks at what it made.

    on_failure: `flag`: say so in the report.  `retry`: try other orders, keep the best.  `roll-back`: leave failed
    instances as they were.  judge_name: a bundled judge or a folder.

    Raises UsageError where the judge does not know the classes.
    """

    def __init__(
        self,
        settings: TranslateSettings,
        store: Store,
        models: Models,
        *,
        on_failure: OnFailure = "flag",
        judge_name: str = DEFAULT,
        mask_source: Path | None = None,
        engine: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(settings, store, models, mask_source=mask_source, engine=engine)
        if on_failure not in ON_FAILURE:
            raise UsageError(f"--verify must be one of {', '.join(ON_FAILURE)}, got {on_failure!r}")
        self.card, _ = find_judge(judge_name)
        for label in (settings.source, settings.target):
            if label not in self.card.classes:
                known = ", ".join(self.card.classes)
                raise UsageError(f"judge {self.card.name!r} cannot verify {label!r}; it knows {known}")
        self._on_failure = on_failure
        self._judge_name = judge_name
        self._judge: Any = None
        self._source = mask_source

    def request(self, path: Path) -> dict[str, Any]:
        """Of the plain runner, and how it is verified."""
        verification = {"version": VERIFY_VERSION, "judge": self.card.fingerprint(), "on_failure": self._on_failure}
        return {**super().request(path), "verification": verification}

    def process(
        self, data: bytes, name: str, path: Path | None, suffix: str, stopped: Callable[[], bool] = lambda: False
    ) -> Outcome:
        """As of the plain runner; the result has a block `verification`."""
        outcome = super().process(data, name, path, suffix, stopped)
        seen = self._look(self, outcome, data, name, path)
        actions: list[dict[str, Any]] = []
        best, best_seen = outcome, seen
        if seen.failed and self._on_failure == "retry":
            for order in RETRIES:
                other = self._with(order=order)
                again = other.process(data, name, path, suffix, stopped)
                found = self._look(other, again, data, name, path)
                actions.append({"action": "retry", "order": order, "failed": list(found.failed)})
                if len(found.failed) < len(best_seen.failed):
                    best, best_seen = again, found
        elif seen.failed and self._on_failure == "roll-back":
            # What is undone uncovers what lay behind it, so that another look is needed, until nothing fails.
            while best_seen.failed:
                kept = tuple(number for number in _translated(best) if number not in best_seen.failed)
                actions.append({"action": "roll back", "numbers": list(best_seen.failed)})
                other = self._with(keep=kept)
                best = other.process(data, name, path, suffix, stopped)
                best_seen = self._look(other, best, data, name, path)
        verification = {
            "judge": self.card.fingerprint(),
            "on_failure": self._on_failure,
            "instances": list(best_seen.records),
            "failed": list(best_seen.failed),
            "actions": actions,
        }
        return replace(best, result={**best.result, "verification": verification})

    def _with(self, **changes: Any) -> Runner:
        settings = self.settings.model_copy(update=changes)
        return Runner(settings, self.store, self._models, mask_source=self._source, engine=self.engine)

    def _look(self, runner: Runner, outcome: Outcome, data: bytes, name: str, path: Path | None) -> Seen:
        """Judge one outcome. Every selected instance counts, however small."""
        settings = runner.settings
        prepared = runner.prepare(data, name, path)
        everything = read_instances(prepared.segmented.files)
        result = Result(outcome, name, settings.target)
        returned = dict(zip(result.instances.numbers, result.instances.masks, strict=True))
        known = everything.select(
            i
            for i, number in enumerate(everything.numbers)
            if number in returned or everything.labels[i] == settings.target
        )
        after: Sequence[Mask | None] = [returned.get(number) for number in known.numbers]
        seen = self._detections(picture_bytes(outcome.files), lambda: result.pixels)
        # With --keep what was called something else was translated as well, and is judged likewise.
        labels = tuple(
            settings.source if number in returned else label
            for number, label in zip(known.numbers, known.labels, strict=True)
        )
        verdicts = judge(replace(known, labels=labels), after, seen, source=settings.source, target=settings.target)
        records: tuple[dict[str, Any], ...] = tuple(
            {
                "number": None if v.source is None else known.numbers[v.source],
                "verdict": v.kind,
                "seen_as": v.seen_as,
                "score": round(v.score, 4),
                "iou": round(v.iou, 4),
            }
            for v in verdicts
        )
        failed = tuple(r["number"] for r in records if r["number"] is not None and r["verdict"] != "translated")
        return Seen(records, failed)

    def _detections(self, picture: bytes, pixels: Callable[[], Pixels]) -> Instances:
        """What the judge sees in a picture, from the cache where it has looked before."""
        inputs = {
            "version": VERIFY_VERSION,
            "judge": self.card.fingerprint(),
            "picture": hashlib.sha256(picture).hexdigest(),
        }
        entry = self.store.get("verify", inputs)
        if entry is None:
            found = self._models.call(lambda: self._witness().detect(pixels()).instances)
            entry = self.store.put("verify", inputs, instances_files(found))
        return read_instances(entry.files)

    def _witness(self) -> Any:
        if self._judge is None:
            from instapipe.verdict.detector import load_judge

            self._judge = load_judge(self._judge_name)
        return self._judge


def notes(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What people are told of the block `verification`, where there is one."""
    block = result.get("verification")
    if block is None:
        return ()
    lines = [
        f"{record['number']} {record['verdict']}" + (f", seen as {record['seen_as']}" if record["seen_as"] else "")
        for record in block["instances"]
        if record["number"] in block["failed"]
    ]
    undone = [str(number) for each in block["actions"] if each["action"] == "roll back" for number in each["numbers"]]
    if undone:
        lines.append(f"rolled back: {', '.join(undone)}")
    return tuple(f"verification: {line}" for line in lines)


def _translated(outcome: Outcome) -> list[int]:
    return [number for step in outcome.result["steps"] for number in step["numbers"]]
