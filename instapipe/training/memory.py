"""A run that fits into memory: measured before the first step, by real steps in a process of their own.

What is chosen never changes what a step means: `batch_size` x `accumulate` stays. First the batch goes through the
networks in smaller parts, then checkpointing comes on (about half more time), and only then the window shrinks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from instapipe.errors import ConfigError, EngineError, TrainingError
from instapipe.training.config import TrainConfig

UNITS = {"MB": 10**6, "MIB": 2**20, "GB": 10**9, "GIB": 2**30}
ROOM = 0.95
"""Of the memory asked for: what allocators scatter differs from run to run."""
SHRINK = (0.75, 0.5)
SMALLEST = 32
CUDA_CONTEXT = 600 * 10**6
"""What a process holds on a GPU besides its tensors."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What two steps took, bytes. base: before the networks were there.  peak: None where they did not fit."""

    base: int
    peak: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What was chosen, what it is predicted to take at most (bytes), and why."""

    config: TrainConfig
    predicted: int
    reason: str

    def record(self) -> dict[str, Any]:
        """For the run's folder: settings by their dotted names."""
        return {
            "batch_size": self.config.batch_size,
            "accumulate": self.config.accumulate,
            "checkpointing": self.config.checkpointing,
            "data.size": self.config.data.size,
            "data.load_size": self.config.data.load_size,
        }


def parse_memory(text: str) -> int:
    """`6GB`, `512MB`, `5.5GiB` -> bytes. Raises ConfigError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if found is None or found[2].upper() not in UNITS or float(found[1]) == 0:
        raise ConfigError(f"--memory {text!r}: expected a number and MB, MiB, GB or GiB, like 6GB")
    return round(float(found[1]) * UNITS[found[2].upper()])


def plan(config: TrainConfig, limit: int, predict: Callable[[TrainConfig], int | None]) -> Plan:
    """The settings nearest to `config` that `predict` (peak bytes; None: more than there is) puts within `limit` bytes.

    Raises TrainingError, naming the way out, where nothing fits.
    """
    room = round(limit * ROOM)
    known: dict[TrainConfig, int | None] = {}

    def fits(candidate: TrainConfig) -> bool:
        if candidate not in known:
            known[candidate] = predict(candidate)
        found = known[candidate]
        return found is not None and found <= room

    def chosen(candidate: TrainConfig, reason: str) -> Plan:
        return Plan(candidate, known[candidate] or 0, reason)

    if fits(config):
        return chosen(config, f"fits as it is in {_gb(limit)}")
    for form, what in _forms(config):
        parts = _divisions(form)
        if not fits(parts[0]):
            continue
        if len(parts) > 1 and fits(parts[1]):
            # Memory grows linearly with the batch: two measurements tell which others are worth a try.
            one, two = known[parts[0]] or 0, known[parts[1]] or 0
            each = (two - one) / (parts[1].batch_size - 1)
            worth = [part for part in parts[2:] if one + each * (part.batch_size - 1) <= room]
            return next((chosen(part, what) for part in reversed(worth) if fits(part)), chosen(parts[1], what))
        return chosen(parts[0], what)
    least = min((peak for peak in known.values() if peak is not None), default=None)
    needs = f"at least {_gb(round(least / ROOM))}" if least is not None else "more"
    smallest = min(form.data.size for form, _ in _forms(config))
    raise TrainingError(
        f"{_gb(limit)} of memory is too little even for one sample of {smallest} px at a time, with checkpointing: it "
        f"needs {needs}; give --memory more, or make the networks smaller (--set "
        f"generator.width=..., now {config.generator.width}; data.max_instances=..., now {config.data.max_instances})"
    )


def predictor(device: torch.device, limit: int) -> Callable[[TrainConfig], int | None]:
    """Peak bytes of this process when it trains with a config: what it holds now, and what a trial took on top."""

    def predict(config: TrainConfig) -> int | None:
        trial = measure(config, device, limit)
        if trial.peak is None:
            return None
        return trial.peak if device.type == "cuda" else resident() + trial.peak - trial.base

    return predict


def measure(config: TrainConfig, device: torch.device, limit: int) -> Trial:
    """Two steps on made-up photos with as many instances as there can be, in a process of their own.

    Raises TrainingError where they fail for another reason than memory.
    """
    asked = {"config": config.model_dump(mode="json"), "device": str(device), "limit": limit}
    done = subprocess.run(
        [sys.executable, "-m", "instapipe.training.trial"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode < 0 or not last:
        if done.returncode in (-9, -6):  # killed by the kernel, or an allocation that failed beneath Python
            return Trial(0, None)
        raise TrainingError(f"the trial step ended with {done.returncode}: {' '.join(done.stderr.split())[-200:]}")
    told = json.loads(last[0])
    if "error" in told:
        raise TrainingError(f"the trial step failed: {told['error']}")
    return Trial(told["base"], told["peak"])


def own_limit(device: torch.device) -> int | None:
    """What a run is given that asks for nothing: the GPU's memory; no limit on a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def resident() -> int:
    """Bytes of memory that this process holds now. Raises EngineError where the system does not tell."""
    now = _status("VmRSS")
    if now is None:
        raise EngineError("memory can be measured on Linux only: leave --memory out")
    return now


def peak(device: torch.device) -> int | None:
    """The most that this process has held so far, bytes: of the GPU's memory, where it trains on one; None where the
    system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) + CUDA_CONTEXT
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _forms(config: TrainConfig) -> Iterator[tuple[TrainConfig, str]]:
    """From the one that changes least to the smallest, with the reason to give."""
    if not config.checkpointing:
        yield config, "the batch in smaller parts, added up"
    less = config.model_copy(update={"checkpointing": True})
    yield less, "with checkpointing: less memory, about half more time"
    for share in SHRINK:
        size = _side(config, share)
        if size >= SMALLEST:
            load = max(size, round(config.data.load_size * size / config.data.size))
            data = config.data.model_copy(update={"size": size, "load_size": load})
            yield (
                less.model_copy(update={"data": data}),
                f"with checkpointing, and windows of {size} instead of {config.data.size} px: nothing else was enough",
            )


def _side(config: TrainConfig, share: float) -> int:
    return round(config.data.size * share / 4) * 4


def _divisions(config: TrainConfig) -> list[TrainConfig]:
    """The same samples a step in parts, the smallest parts first; none larger than asked for."""
    total = config.batch_size * config.accumulate
    sizes = [size for size in range(1, config.batch_size + 1) if total % size == 0]
    return [config.model_copy(update={"batch_size": size, "accumulate": total // size}) for size in sizes]


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
