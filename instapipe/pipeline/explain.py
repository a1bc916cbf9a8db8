"""Which stages of a request are in the cache, and which field of a key keeps one from being there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instapipe import imaging
from instapipe.pipeline.keys import Json, differences, key_of
from instapipe.pipeline.models import Models
from instapipe.pipeline.runner import Runner
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Entry, Store


@dataclass(frozen=True, slots=True)
class Verdict:
    """One stage. differences: dotted field -> (now, then), against the stored entry that differs least."""

    stage: str
    hit: bool
    key: str | None = None
    note: str = ""
    differences: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        shown = {name: {"now": now, "then": then} for name, (now, then) in self.differences.items()}
        return {"stage": self.stage, "hit": self.hit, "key": self.key, "note": self.note, "differences": shown}


class _Missed(Exception):
    """A stage would have to run."""


class _Probe(Store):
    """A store that notes what is asked of it, and stops a runner before it would compute."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.verdicts: list[Verdict] = []

    def get(self, stage: str, inputs: Json) -> Entry | None:
        entry = super().get(stage, inputs)
        if stage == "decode":
            # Decoding is quick, and its result is needed for every later key.
            return entry
        self.verdicts.append(judge(self, stage, stage, inputs))
        if entry is None:
            raise _Missed
        return entry


def explain(settings: TranslateSettings, root: Path, photo: Path, mask_source: Path | None) -> Iterator[Verdict]:
    """A verdict for each stage and step, as far as their keys are known. No network is run.

    Raises InputError, UsageError, CacheError.
    """
    probe = _Probe(root)
    with Models(settings.device, probe.artefacts) as models:
        runner = Runner(settings, probe, models, mask_source=mask_source)
        try:
            prepared = runner.prepare(imaging.read_bytes(photo), str(photo), photo)
        except _Missed:
            yield from probe.verdicts
            yield Verdict("later stages", False, note=f": they depend on {probe.verdicts[-1].stage}")
            return
    yield from probe.verdicts
    for number, step in enumerate(prepared.steps, 1):
        yield judge(probe, f"translate step {number}", "translate", step.inputs)


def judge(store: Store, name: str, stage: str, inputs: Json) -> Verdict:
    """Whether `store` has the entry; if not, against which it differs least, and in what."""
    key = key_of(inputs)
    if store.has(stage, inputs):
        return Verdict(name, True, key)
    stored = [store.inputs_of(entry) for entry in store.entries() if entry.stage == stage]
    found = [differences(inputs, each) for each in stored if each is not None]
    if not found:
        return Verdict(name, False, key, ": no entry of this stage")
    return Verdict(name, False, key, differences=min(found, key=len))
