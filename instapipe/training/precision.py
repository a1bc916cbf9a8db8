"""Which precision a step runs in: found by measuring, since the CPU's flags do not tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16"]

WORTH = 1.2
HOPELESS = 4.0
"""A first run that takes so many times as long as float32's is not repeated: it may take a minute."""


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

    def seconds(precision: Precision) -> float:
        start = time.perf_counter()
        trial(precision)
        return time.perf_counter() - start

    # The first run of each pays for allocations and kernel choice.
    first = {precision: seconds(precision) for precision in get_args(Precision)}
    if first["bfloat16"] > HOPELESS * first["float32"]:
        ratio = first["float32"] / first["bfloat16"]
    else:
        best = {precision: min(seconds(precision) for _ in range(3)) for precision in get_args(Precision)}
        ratio = best["float32"] / best["bfloat16"]
    told = f"bfloat16 is {ratio:.2f} times as fast as float32 here"
    if ratio >= WORTH:
        return Choice("bfloat16", told)
    return Choice("float32", f"{told}, {WORTH:g} would be worth it")
