"""Checkpoints: the full state of a run, whole or absent, read as data only."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import torch

from instapipe.errors import OutputError, TrainingError

_SCRATCH = ".step-"
BEST = "best.pt"
_NAME = re.compile(r"step-(\d{8})\.pt")


def save(folder: Path, step: int, state: dict[str, Any], *, keep: int = 2) -> Path:
    """Write `folder/step-<step>.pt`; older ones than `keep` are removed. Raises OutputError."""
    path = write(path_of(folder, step), state)
    for old in found(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def write(path: Path, state: dict[str, Any]) -> Path:
    """Write `path`: to a scratch file first, synced, then renamed.

    Raises OutputError where it cannot be written; what was there before is still there then.
    """
    scratch = path.parent / f"{_SCRATCH}{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError where a disk is full
        with contextlib.suppress(OSError):
            scratch.unlink()
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
        raise OutputError(f"cannot save checkpoint {str(path)!r}: {reason}") from error
    return path


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return folder / f"step-{step:08d}.pt"


def sweep(folder: Path) -> None:
    """Remove what a kill left half written."""
    for scratch in folder.glob(f"{_SCRATCH}*"):
        scratch.unlink(missing_ok=True)


def found(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's state on the CPU; None where there is none.

    Raises TrainingError where it cannot be read.
    """
    paths = found(folder)
    return load(paths[-1]) if paths else None


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's state on the CPU. Raises TrainingError where it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise TrainingError(f"cannot read checkpoint {str(path)!r}: {' '.join(str(error).split())[:160]}") from error
    assert isinstance(state, dict)
    return state
