"""A folder of photos with the bundled weights: how much of the time the networks are not at work.

Reading, filling the holes, compositing and writing overlap with the networks where there is a processor for them; what
counts is the time that the networks' thread stands idle.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from photos import write_variations

from instapipe.config import TranslatorCard
from instapipe.networks.cards import bundled
from instapipe.pipeline.batch import DEFAULT_WORKERS, translate_many
from instapipe.pipeline.jobs import find_inputs, folder_jobs
from instapipe.pipeline.ledger import Ledger
from instapipe.pipeline.models import Models
from instapipe.pipeline.runner import Runner
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store

T = TypeVar("T")


class Timed(Models):
    """Networks that say how long they worked."""

    busy = 0.0
    calls = 0

    def call(self, function: Callable[[], T]) -> T:
        """See Models."""

        def run() -> T:
            start = time.perf_counter()
            try:
                return function()
            finally:
                self.busy += time.perf_counter() - start
                self.calls += 1

        return super().call(run)


def measure(count: int) -> dict[str, Any] | None:
    """Seconds of `count` photos and of their networks; None where no translator of sheep is bundled."""
    cards = [card for card, _ in bundled() if isinstance(card, TranslatorCard) and card.source == "sheep"]
    if not cards:
        return None
    card = cards[-1]
    settings = TranslateSettings(source=card.source, target=card.target, weights=card.name)
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name, "in"), Path(name, "out")
        source.mkdir()
        output.mkdir()
        write_variations(source, count + 1)
        with Timed("cpu") as models:
            store = Store(Path(name, "cache"))
            runner = Runner(settings, store, models)
            ledger = Ledger(output)
            jobs = folder_jobs(find_inputs([str(source)], skip=output), output, card.target, ledger.pictures)
            ledger.begin({}, {job.name: job.picture.relative_to(output).as_posix() for job in jobs})
            list(translate_many(jobs[:1], runner, ledger, workers=1))  # loads the networks
            models.busy, models.calls = 0.0, 0
            start, cpu = time.perf_counter(), time.process_time()
            done = list(translate_many(jobs[1:], runner, ledger, workers=DEFAULT_WORKERS))
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    stages: dict[str, float] = {}
    for each in done:
        for stage, value in each.run.get("stages", {}).items():
            stages[stage] = round(stages.get(stage, 0.0) + value["seconds"], 2)
    return {
        "photos": len(done),
        "failed": sum(each.status == "failed" for each in done),
        "instances": sum(each.instances for each in done),
        "engine": runner.engine,
        "wall": round(wall, 2),
        "cpu": round(cpu, 2),
        "networks": round(models.busy, 2),
        "share_outside": round(1 - models.busy / wall, 4),
        "stages": stages,
    }


if __name__ == "__main__":
    import json
    import sys

    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100), indent=1))
