"""`python -m instapipe.training.trial`: two training steps on made-up photos; tells on stdout what they took.

stdin: JSON with config, device and limit (bytes). The process is not let grow far beyond the limit: a machine must not
run out of memory to find out that something does not fit.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from instapipe.config import build
from instapipe.data.domains import Domain
from instapipe.data.samples import Sample
from instapipe.errors import InstapipeError
from instapipe.training import memory
from instapipe.training.config import TrainConfig
from instapipe.training.loop import train
from instapipe.training.run import start
from instapipe.training.team import Team

_SCRATCH_SPACE = 2 * 10**9
"""Above the limit: libraries, stacks and what is reserved but never used count against the process too."""


def main() -> None:
    """See the module."""
    asked = json.load(sys.stdin)
    config = build(TrainConfig, asked["config"], "the trial's config")
    device = torch.device(asked["device"])
    told: dict[str, Any]
    try:
        told = {"base": _base(device, asked["limit"]), "peak": _peak(config, device)}
    except (MemoryError, RuntimeError, InstapipeError) as error:
        told = {"base": 0, "peak": None} if _of_memory(error) else {"error": " ".join(str(error).split())[:200]}
    sys.stdout.write(json.dumps(told) + "\n")


def _base(device: torch.device, limit: int) -> int:
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        index = device.index if ":" in str(device) else torch.cuda.current_device()
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), index)
        return 0
    base = memory.resident()
    with contextlib.suppress(ImportError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (base + limit + _SCRATCH_SPACE,) * 2)
    return base


def _peak(config: TrainConfig, device: torch.device) -> int:
    # The largest step that can come: every loss, every instance, optimisers with their state, a pool that is full. What
    # precision `auto` finds on a CPU differs from one moment to the next; float32 takes most.
    losses = config.losses.model_copy(update={"identity_every": 1})
    quick = {"steps": 2, "losses": losses, "save_every": 2, "validate_every": 0, "tensorboard": False}
    config = config.model_copy(update=quick)
    if config.precision == "auto" and device.type == "cpu":
        config = config.model_copy(update={"precision": "float32"})
    with tempfile.TemporaryDirectory() as folder:
        run = start(
            config, _domain("source", config), _domain("target", config), Path(folder) / "run", team=Team(device)
        )
        for _ in train(run):
            pass
    each = (3 + config.data.max_instances) * config.data.size**2 * 4
    missing = max(0, config.pool_size - 2 * config.batch_size * config.accumulate)
    return (memory.peak(device) or 0) + 2 * missing * each


def _domain(label: str, config: TrainConfig) -> Domain:
    side, count = config.data.load_size, config.data.max_instances
    rng = np.random.default_rng(0)
    samples = []
    for number in range(3):
        masks = np.zeros((count, side, side), dtype=np.bool_)
        for index in range(count):
            masks[index, :, index::count] = True
        image = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
        samples.append(Sample(image, masks, f"{label}-{number}"))
    return Domain(label, config.data, tuple(samples[:2]), tuple(samples[2:]), {})


def _of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in text or "alloc" in text


if __name__ == "__main__":
    main()
