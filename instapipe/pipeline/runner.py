"""One photo through all stages, each from the cache where it is there."""

from __future__ import annotations

import difflib
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instapipe import __version__, imaging, masks
from instapipe.config import Direction
from instapipe.errors import UnknownClass
from instapipe.filtering import Selection
from instapipe.pipeline import keys, outputs, stages
from instapipe.pipeline.measure import Clock
from instapipe.pipeline.memory import foreseen
from instapipe.pipeline.models import Models
from instapipe.pipeline.plan import Layout, Step, lay_out, plan_steps
from instapipe.pipeline.resolve import Found, Weights, find_segmenter, resolve_engine, resolve_weights
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Entry, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from instapipe.pipeline.rollout import Rollout
    from instapipe.structures import Instances

VERSIONS = {
    "instapipe": __version__,
    "decode": keys.DECODE_VERSION,
    "segment": keys.SEGMENT_VERSION,
    "filter": keys.FILTER_VERSION,
    "translate": keys.TRANSLATE_VERSION,
    "output": keys.OUTPUT_VERSION,
}
Status = Literal["translated", "no instances"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one photo.

    files: the encoded outputs under neutral names (see outputs).  result: what the report says of the outcome: equal
    for equal inputs.  run: of this run alone.  hits: the stages that came whole from the cache.
    """

    status: Status
    files: Mapping[str, bytes]
    result: dict[str, Any]
    run: dict[str, Any]
    hits: tuple[str, ...]

    def write(self, picture: Path) -> outputs.Written:
        """Write all files of this photo around `picture`. Raises OutputError."""
        return outputs.write(self.files, picture, {"result": self.result, "run": self.run})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photo up to the plan: everything known of it without a pixel of the translation."""

    facts: Mapping[str, Any]
    segmented: Entry
    selection: Selection
    origin: Mapping[str, Any]
    layout: Layout
    steps: tuple[Step, ...]


class Runner:
    """Translates photos by one set of settings. Threads may share it; the networks run on one of their own.

    Raises what its settings are wrong about (UsageError) when it is made, before anything is done.
    """

    def __init__(
        self,
        settings: TranslateSettings,
        store: Store,
        models: Models,
        *,
        mask_source: Path | None = None,
        engine: Mapping[str, str] | None = None,
        max_pixels: int = imaging.MAX_PIXELS,
    ) -> None:
        """`engine`: as resolved by an earlier run that this one continues."""
        self.settings = settings
        self.store = store
        self._models = models
        self.weights: Weights = resolve_weights(settings, store)
        self.engine = (
            dict(engine) if engine is not None else resolve_engine(settings, self.weights, store, self._measure)
        )
        self.max_pixels = max_pixels
        self._mask_source = mask_source
        self._found: Found | None = None
        self._lock = threading.Lock()
        if mask_source is not None:
            masks.open_source(mask_source)

    def _measure(self) -> dict[str, str]:
        return self._models.choose_engine(self.weights, self.settings.engine, self.settings.precision)

    @property
    def _grader(self) -> str | None:
        """The digest of what chooses among several tries, where there may be several."""
        return self.weights.grader.sha256 if self.weights.grader is not None and self.settings.tries != 1 else None

    @property
    def _back(self) -> str | None:
        """The digest of the generator that goes the other way, where round trips are tried."""
        return self.weights.back_sha256 if self.settings.tries != 1 else None

    @property
    def _upscaler(self) -> str | None:
        """The digest of what gives detail to what is enlarged."""
        return self.weights.upscaler.sha256 if self.weights.upscaler is not None and self.settings.upscale else None

    def segmenter(self) -> Found:
        """The segmenter for photos without masks. Raises UnknownClass, UsageError."""
        with self._lock:
            if self._found is None:
                found = find_segmenter(self.settings.segmenter, self.settings.source, self.store)
                source = self.settings.source
                if source not in found.classes:
                    close = difflib.get_close_matches(source, found.classes, n=3)
                    hint = f"close names: {', '.join(close)}" if close else f"it knows {', '.join(found.classes)}"
                    raise UnknownClass(f"segmenter {found.name!r} has no class {source!r}; {hint}")
                self._found = found
            return self._found

    def request(self, path: Path) -> dict[str, Any]:
        """Everything besides the photo's bytes that its result depends on. Raises MaskError, UsageError."""
        record = self._record(path)
        return {
            "settings": self.settings.model_dump(mode="json", exclude={"weights", "segmenter", "device"}),
            "weights": self.weights.fingerprint(),
            "grader": self._grader,
            "back": self._back,
            "upscaler": self._upscaler,
            "windows": self.weights.windows(),
            "engine": self.engine,
            "segmentation": {"masks": record.digest} if record is not None else self.segmenter().fingerprint,
            "versions": VERSIONS,
        }

    def process(
        self, data: bytes, name: str, path: Path | None, suffix: str, stopped: Callable[[], bool] = lambda: False
    ) -> Outcome:
        """Translate the photo in `data`; `path`: where its masks are looked for.

        Raises InputError for a bad photo or masks, UsageError for a bad request, Stopped.
        """
        clock = Clock()
        photo = stages.PhotoInput(data, name, hashlib.sha256(data).hexdigest(), path, max_pixels=self.max_pixels)
        prepared, hits = self._prepare(photo, clock)
        last = prepared.steps[-1].inputs if prepared.steps else None
        inputs = {
            "version": keys.OUTPUT_VERSION,
            "decode": keys.DECODE_VERSION,
            "photo": photo.digest,
            "steps": None if last is None else keys.key_of(last),
            "numbers": list(prepared.selection.numbers),
            "selected": [record["digest"] for record in _chosen(prepared)],
            "scores": [record["score"] for record in _chosen(prepared)],
            "target": self.settings.target,
            "suffix": suffix,
        }
        with clock.stage("translate"):
            entry = self.store.get("output", inputs)
            step_hits = [True] * len(prepared.steps)
            if entry is None:
                rollout = self._roll_out(photo, prepared, stopped)
                step_hits = rollout.hits
                entry = self.store.put("output", inputs, outputs.encoded(photo.photo, rollout, suffix))
        if all(step_hits):
            hits.append("translate")
        status: Status = "translated" if prepared.steps else "no instances"
        result = self._result(photo, prepared, entry, status)
        run = {"photo": name, "hits": hits, "steps_from_cache": sum(step_hits), "stages": clock.stages}
        return Outcome(status, entry.files, result, run, tuple(hits))

    def prepare(self, data: bytes, name: str, path: Path | None) -> Prepared:
        """All but the translation."""
        photo = stages.PhotoInput(data, name, hashlib.sha256(data).hexdigest(), path, max_pixels=self.max_pixels)
        return self._prepare(photo, Clock())[0]

    def _prepare(self, photo: stages.PhotoInput, clock: Clock) -> tuple[Prepared, list[str]]:
        hits = []
        with clock.stage("decode"):
            facts = photo.facts(self.store)
        size = (int(facts["size"][0]), int(facts["size"][1]))
        with clock.stage("segment"):
            record = self._record(photo.path) if photo.path is not None else None
            origin: dict[str, Any]
            if record is not None:
                segmented = stages.from_masks(self.store, record, size, self.settings.source)
                origin = {"masks": record.digest}
            else:
                found = self.segmenter()
                segmented = stages.from_segmenter(
                    self.store, photo, found.fingerprint, lambda decoded: self._models.segment(found, decoded)
                )
                origin = {"segmenter": found.name, "fingerprint": found.fingerprint}
        with clock.stage("filter"):
            selection, chosen_entry = stages.filtered(
                self.store, segmented, self.settings.filter(given=record is not None)
            )
        hits += [name for name, entry in (("segment", segmented), ("filter", chosen_entry)) if not entry.fresh]
        layout = lay_out(size, self.weights, self.settings)
        prepared = Prepared(facts, segmented, selection, origin, layout, ())
        steps = plan_steps(
            _chosen(prepared), _found(prepared), photo.digest, layout, self.weights, self.engine, self.settings
        )
        return Prepared(facts, segmented, selection, origin, layout, tuple(steps)), hits

    def _record(self, path: Path) -> masks.Record | None:
        source = self._mask_source or masks.find(path)
        return None if source is None else masks.record(source, path)

    def _roll_out(self, photo: stages.PhotoInput, prepared: Prepared, stopped: Callable[[], bool]) -> Rollout:
        def step(
            direction: Direction, pixels: NDArray[np.float32], step_masks: NDArray[np.bool_]
        ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            size = (pixels.shape[0], pixels.shape[1])
            with foreseen(self.weights.card, size, len(step_masks), self.settings.device):
                return self._models.step(self.weights, direction, self.engine, pixels, step_masks)

        # Not needed, with NumPy and OpenCV under it, where every result is in the cache.
        from instapipe.pipeline.formats import read_instances
        from instapipe.pipeline.rollout import roll_out
        from instapipe.pipeline.surfaces import RoundTrips, Tries
        from instapipe.translation.again import round_trip
        from instapipe.translation.native import Blend

        there = partial(step, self.weights.direction)
        again = None
        if self.weights.back is not None:
            back = partial(step, self.weights.back)
            again = partial(round_trip, there=there, back=back, compositing=self.weights.card.compositing)
        tries: Tries | RoundTrips | None = None
        if prepared.layout.tries > 1:
            tries = Tries(prepared.layout.tries, partial(self._models.grade, self.weights), again)
        elif prepared.layout.taken_after and again is not None:
            tries = RoundTrips(prepared.layout.taken_after, again)

        def pick(numbers: Sequence[int]) -> Instances:
            return read_instances(prepared.segmented.files, numbers)

        blend = Blend(self.weights.card.compositing, self.settings.background, self.settings.seam)
        return roll_out(
            photo.photo,
            pick,
            prepared.steps,
            [record["number"] for record in _found(prepared)],
            prepared.layout,
            blend,
            self.settings.target,
            self.store,
            there,
            stopped,
            tries,
            partial(self._models.upscale, self.weights) if prepared.layout.upscaled else None,
        )

    def _result(self, photo: stages.PhotoInput, prepared: Prepared, entry: Entry, status: Status) -> dict[str, Any]:
        """The report's `result` block: nothing of this machine, this moment or any path."""
        reasons = {each.number: each.reason for each in prepared.selection.dropped}
        step_of = {number: k for k, step in enumerate(prepared.steps) for number in step.numbers}
        facts = prepared.segmented.json("instances.json")["instances"]
        settings = self.settings.model_dump(mode="json", exclude={"weights", "segmenter", "device"})
        return {
            "format": 1,
            "status": status,
            "photo": {"sha256": photo.digest, **prepared.facts},
            "segmentation": prepared.origin,
            "weights": {
                "name": self.weights.card.name,
                "direction": self.weights.direction,
                "sha256": self.weights.sha256,
                "grader": self._grader,
                "back": self._back,
                "upscaler": self._upscaler,
            },
            "engine": self.engine,
            "settings": settings,
            "versions": VERSIONS,
            "instances": [
                {**record, "step": step_of.get(record["number"]), "dropped": reasons.get(record["number"])}
                for record in facts
            ],
            "region": {"mode": prepared.layout.mode, "model_size": prepared.layout.model_size},
            "steps": [
                {"numbers": list(step.numbers), "window": list(step.window), **facts}
                for step, facts in zip(prepared.steps, outputs.steps(entry.files), strict=True)
            ],
            "picture": hashlib.sha256(outputs.picture_bytes(entry.files)).hexdigest(),
        }


def _found(prepared: Prepared) -> list[Mapping[str, Any]]:
    """The records of all instances, in the segmenter's order."""
    return list(prepared.segmented.json("instances.json")["instances"])


def _chosen(prepared: Prepared) -> list[Mapping[str, Any]]:
    """The records of the selected instances, in their order."""
    records = {record["number"]: record for record in _found(prepared)}
    return [records[number] for number in prepared.selection.numbers]
