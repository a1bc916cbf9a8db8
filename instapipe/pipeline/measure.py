"""Time and peak memory of a run's stages, for the `run` block of a report."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


def peak_memory() -> int | None:
    """The most bytes that this process has held so far; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


@dataclass(slots=True)
class Clock:
    """Collects what each stage took."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block as stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            peak = peak_memory()
            self.stages[name] = {
                "seconds": round(time.perf_counter() - start, 4),
                "peak_mb": None if peak is None else round(peak / 1e6, 1),
            }
