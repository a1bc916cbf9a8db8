"""TensorBoard event files beside the log, where tensorboard is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MISSING = "no TensorBoard files: tensorboard is not installed (pip install 'instapipe[metrics]'); log.jsonl has all"


class Board:
    """Writes what the log's lines say. `step`: where the run goes on; later entries of before are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # seconds

        self._writer: SummaryWriter = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One point a name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Everything on disk."""
        self._writer.close()


def installed() -> bool:
    """Whether tensorboard is there."""
    return importlib.util.find_spec("tensorboard") is not None
