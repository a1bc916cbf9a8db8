"""Many photos: several in flight, each result written as it comes, one bad photo never stopping the rest."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from instapipe import imaging
from instapipe.errors import InstapipeError, OutputError, UsageError
from instapipe.pipeline.jobs import Job
from instapipe.pipeline.keys import key_of
from instapipe.pipeline.ledger import Ledger
from instapipe.pipeline.outputs import Written, paths_beside
from instapipe.pipeline.plan import Stopped
from instapipe.pipeline.runner import Runner

_BYTES_PER_PIXEL = 2.5
"""Of the outputs of one photo together, as measured on photos; the cache holds about as much again."""
_BYTES_PER_PHOTO = 600_000
DEFAULT_WORKERS = 3
"""While the networks work on one photo, the next is decoded and the last encoded: with two, photos that are filled or
composited at the same time left the networks idle (`benchmarks/README.md`)."""
_POOR = 1.0
"""Of 406 outlines with a lower grade, photos left out, observers called 363 broken, 3 sound (docs/training-log.md)."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one job. status: `failed` has an error. earlier: it was done by an earlier run."""

    job: Job
    status: Literal["translated", "no instances", "failed"]
    written: Written | None = None
    instances: int = 0
    hits: tuple[str, ...] = ()
    error: str | None = None
    earlier: bool = False
    run: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()


def exit_code(statuses: Sequence[str]) -> int:
    """0 all translated; 3 some without instance; 4 some failed, some done; 1 nothing done."""
    failed = sum(status == "failed" for status in statuses)
    if failed:
        return 1 if failed == len(statuses) else 4
    return 3 if "no instances" in statuses else 0


def translate_one(job: Job, runner: Runner, stopped: threading.Event) -> Done:
    """Read, translate, write. Raises InstapipeError."""
    data = imaging.read_bytes(job.photo)
    outcome = runner.process(data, str(job.name), job.photo, job.picture.suffix.lower(), stopped.is_set)
    written = outcome.write(job.picture)
    instances = outcome.result["instances"]
    return Done(
        job,
        outcome.status,
        written,
        instances=sum(record["step"] is not None for record in instances),
        hits=outcome.hits,
        run=outcome.run,
        dropped=tuple((record["number"], record["dropped"]) for record in instances if record["dropped"]),
        notes=(
            *outcome.result["photo"]["notes"],
            *_doubtful(outcome.result),
            *_verification_notes(outcome.result),
        ),
    )


def _doubtful(result: Mapping[str, Any]) -> tuple[str, ...]:
    """A line about instances of which even the best try has a poor grade."""
    found = [
        f"{', '.join(str(number) for number in step['numbers'])} ({grade:.1f})"
        for step in result["steps"]
        if step["chosen"] is not None and (grade := step["chosen"]["grade"] or 0) < _POOR
    ]
    return (f"may look broken, by the grade of the outline (0 to 2): {', '.join(found)}",) if found else ()


def _verification_notes(result: Mapping[str, Any]) -> tuple[str, ...]:
    if "verification" not in result:
        return ()
    # The judge's modules cost a warm run time that most runs have no use for.
    from instapipe.pipeline.verify import notes

    return notes(result)


def translate_many(jobs: Sequence[Job], runner: Runner, ledger: Ledger, *, workers: int) -> Iterator[Done]:
    """Translate all `jobs`, yielding each as it is done; what the ledger has as done like this is not done again.

    Raises UsageError where the request itself turns out wrong. Whoever stops iterating stops the run after the steps
    in flight; everything written is whole.
    """
    stopped = threading.Event()
    waiting = iter(jobs)
    running: set[Future[Done]] = set()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="instapipe-photo")
    try:
        while True:
            # Few are handed in ahead: what waits in a queue would hold its photo's bytes.
            while len(running) < workers and (job := next(waiting, None)) is not None:
                running.add(pool.submit(_guarded, job, runner, ledger, stopped))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _guarded(job: Job, runner: Runner, ledger: Ledger, stopped: threading.Event) -> Done:
    """One job; whatever is wrong with its photo is its own affair."""
    request: str | None = None
    try:
        request = _request(job, runner)
        earlier = _done_before(job, ledger, request)
        if earlier is not None:
            return earlier
        done = translate_one(job, runner, stopped)
    except (UsageError, Stopped):
        raise
    except InstapipeError as error:
        done = Done(job, "failed", error=str(error))
    except MemoryError:
        done = Done(job, "failed", error=f"photo {job.name!r}: not enough memory; try --size or fewer --workers")
    # A segmenter is anybody's code: what it dies of on one photo must not cost the others.
    except Exception as error:
        done = Done(job, "failed", error=f"photo {job.name!r}: {type(error).__name__}: {' '.join(str(error).split())}")
    outcome: dict[str, Any]
    if done.status != "failed":
        outcome = {"status": done.status, "instances": done.instances, "bytes": job.picture.stat().st_size}
    else:
        outcome = {"status": done.status, "error": done.error}
    ledger.finish(job.name, {"request": request, **outcome})
    return done


def _request(job: Job, runner: Runner) -> str:
    """A digest of everything that one photo's outputs depend on."""
    digest = hashlib.sha256(imaging.read_bytes(job.photo)).hexdigest()
    return key_of({"photo": digest, "suffix": job.picture.suffix.lower(), **runner.request(job.photo)})


def _done_before(job: Job, ledger: Ledger, request: str) -> Done | None:
    """What an earlier run made of the same request, if its files are still there."""
    line = ledger.done.get(job.name)
    if line is None or line.get("request") != request or line.get("status") not in ("translated", "no instances"):
        return None
    written = paths_beside(job.picture)
    if not all(path.exists() for path in (written.masks, written.filmstrip, written.report)):
        return None
    try:
        if job.picture.stat().st_size != line["bytes"]:
            return None
    except (OSError, KeyError):
        return None
    return Done(job, line["status"], written, instances=int(line.get("instances", 0)), earlier=True)


def check_disk(jobs: Sequence[Job], folder: Path) -> int:
    """Bytes that the outputs of `jobs` will need in `folder`, about. Raises OutputError where there is not as much."""
    from PIL import Image

    pixels, seen = 0, 0
    # The headers of some are enough for an estimate.
    for job in jobs[:: max(1, len(jobs) // 64)]:
        try:
            with Image.open(job.photo) as image:
                pixels += image.width * image.height
                seen += 1
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
    need = int(len(jobs) * (_BYTES_PER_PHOTO + _BYTES_PER_PIXEL * pixels / max(1, seen)))
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if need > free:
        raise OutputError(
            f"{len(jobs)} photos need about {need / 1e9:.1f} GB in {str(folder)!r}, "
            f"where {free / 1e9:.1f} GB are free; give another --output or fewer photos"
        )
    return need
