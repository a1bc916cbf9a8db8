"""Out of memory, foreseen where it can be, explained where it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instapipe.config import TranslatorCard
from instapipe.errors import EngineError

_PER_STEP = {"paper": 60, "resize": 40}
"""Bytes per pixel and channel of width at the peak of a float32 step on a CPU, which is in a decoder: measured (61 and
40 with one mask, torch, 600x600, width 16)."""
_PER_MASK = 4
"""The same for each mask. Masks go through the networks one after the other; what stays of each is 4 x width channels
of float32 at 1/16 of the pixels, four times while they are summed."""
_ADVICE = "use --region instance, a smaller --size, or --instances-per-step 1"


def step_memory(card: TranslatorCard, size: tuple[int, int], instances: int) -> int:
    """About how many bytes one step takes at `size` (h, w), above the loaded model."""
    form = card.generator.form
    return size[0] * size[1] * card.generator.width * (_PER_STEP[form] + _PER_MASK * instances)


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


@contextmanager
def foreseen(card: TranslatorCard, size: tuple[int, int], instances: int, device: str) -> Iterator[None]:
    """Around one step. Raises EngineError instead of starting what cannot fit, and for an allocation that failed."""
    need = step_memory(card, size, instances)
    wanted = f"a step on {size[1]}x{size[0]} pixels with {instances} masks needs about {need / 1e9:.1f} GB"
    free = available_memory() if device in ("cpu", "auto") else None
    # On a GPU found by `auto` the host's memory says nothing; such machines have more of it than their GPU anyway.
    if free is not None and need > free:
        raise EngineError(f"{wanted}, {free / 1e9:.1f} GB are free; {_ADVICE}")
    try:
        yield
    except MemoryError as error:
        raise EngineError(f"{wanted} and did not fit; {_ADVICE}") from error
    except RuntimeError as error:
        # torch has a class of its own for a GPU's memory and none for the host's.
        if "memory" not in str(error).lower():
            raise
        raise EngineError(f"{wanted} and did not fit; {_ADVICE}") from error
