"""Which precision a step runs in: found by measuring, since the CPU's flags do not tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from instapipe.networks.devices import HOPELESS, bfloat16_handicap

Precision = Literal["float32", "bfloat16"]

WORTH = 1.2
"""bfloat16 must be so many times as fast to be taken: it rounds."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The precision, and in one sentence why."""

    precision: Precision
    reason: str


def choose_precision(
    wanted: Literal["auto", "float32", "bfloat16"], trial: Callable[[Precision], None], device: torch.device
) -> Choice:
    """`trial` runs a piece of the real work in a precision; bfloat16 is taken where it is :data:`WORTH` times as
    fast, by the best of three runs after a first one."""
    if wanted != "auto":
        return Choice(wanted, "as asked")
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported()
        return Choice("bfloat16" if supported else "float32", f"the GPU {'has' if supported else 'lacks'} bfloat16")

    def seconds(precision: Precision) -> float:
        start = time.perf_counter()
        trial(precision)
        return time.perf_counter() - start

    slower = bfloat16_handicap(device)
    if slower > HOPELESS:
        return Choice("float32", f"a convolution takes {slower:.0f} times as long in bfloat16 here")
    # The first run of each pays for allocations and kernel choice.
    trial("float32")
    exact = min(seconds("float32") for _ in range(3))
    first = seconds("bfloat16")
    ratio = exact / (first if first > HOPELESS * exact else min(seconds("bfloat16") for _ in range(3)))
    told = f"bfloat16 is {ratio:.2f} times as fast as float32 here"
    if ratio >= WORTH:
        return Choice("bfloat16", told)
    return Choice("float32", f"{told}, {WORTH:g} would be worth it")
