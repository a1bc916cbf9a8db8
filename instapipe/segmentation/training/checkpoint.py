"""Whole-or-absent checkpoints: written beside, synced, renamed into place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from instapipe.errors import OutputError, TrainingError

NAME = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """`state` (tensors, numbers, strings, lists and dicts of them) as the checkpoint of the run in `folder`."""
    scratch = folder / f".{NAME}.{os.getpid()}"
    try:
        with scratch.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, folder / NAME)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"cannot write the checkpoint in {str(folder)!r}: {error}") from error
    finally:
        scratch.unlink(missing_ok=True)


def restore(folder: Path) -> dict[str, Any]:
    """The checkpoint of the run in `folder`; raises TrainingError."""
    path = folder / NAME
    if not path.is_file():
        raise TrainingError(f"nothing to resume: no {str(path)!r}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise TrainingError(f"cannot read {str(path)!r}: {' '.join(str(error).split())[:300]}") from error
    return state
