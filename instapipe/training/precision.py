"""Which precision a step runs in: found by measuring, since the CPU's flags do not tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]

WORTH = 1.2


@dataclass(frozen=True, slots=True)
class Choice:
    """The precision, and in one sentence why."""

    precision: Precision
    reason: str


def choose_precision(
    wanted: Literal["auto", "float32", "bfloat16"], trial: Callable[[Precision], None], device: torch.device
) -> Choice:
    """`trial` runs a piece of the real work in a precision; bfloat16 is taken where it is :data:`WORTH` times as
    fast."""
    if wanted != "auto":
        return Choice(wanted, "as asked")
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported()
        return Choice("bfloat16" if supported else "float32", f"the GPU {'has' if supported else 'lacks'} bfloat16")
    seconds: dict[Precision, float] = {}
    for precision in ("float32", "bfloat16"):
        trial(precision)  # the first run pays for allocations and kernel choice
        times = []
        for _ in range(3):
            start = time.perf_counter()
            trial(precision)
            times.append(time.perf_counter() - start)
        seconds[precision] = min(times)
    ratio = seconds["float32"] / seconds["bfloat16"]
    told = f"bfloat16 is {ratio:.2f} times as fast as float32 here"
    if ratio >= WORTH:
        return Choice("bfloat16", told)
    return Choice("float32", f"{told}, {WORTH:g} would be worth it")
