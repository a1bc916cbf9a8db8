"""What computes: a device by its name."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

from instapipe.errors import EngineError

HOPELESS = 8.0
"""What takes so many times as long needs no further look: without any bfloat16 a CPU takes a hundred times as long,
and a step of a training minutes."""
_CHANNELS, _SIDE, _TIMES = 64, 32, 3
"""Of a convolution, and how often: a hundredth of a second in all where bfloat16 has a chance."""


def resolve_device(name: str) -> str:
    """`auto` is a GPU where there is one. Raises EngineError where torch cannot use `name`."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(f"device {name!r} cannot be used: {' '.join(str(error).split())[:160]}") from error
    return name


@torch.inference_mode()
def bfloat16_handicap(device: torch.device) -> float:
    """How many times as long one convolution takes in bfloat16 as in float32; the best of some of each, in one thread:
    on a busy machine two would wait for each other, and the wait would be all that is measured."""

    def seconds(dtype: torch.dtype) -> float:
        weights = torch.ones(_CHANNELS, _CHANNELS, 3, 3, dtype=dtype, device=device)
        image = torch.ones(1, _CHANNELS, _SIDE, _SIDE, dtype=dtype, device=device)
        times = []
        for _ in range(_TIMES):
            start = time.perf_counter()
            F.conv2d(image, weights, padding=1)
            times.append(time.perf_counter() - start)
        return min(times)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        exact = seconds(torch.float32)
        return seconds(torch.bfloat16) / exact
    finally:
        torch.set_num_threads(threads)
