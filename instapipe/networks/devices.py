"""What computes: a device by its name."""

from __future__ import annotations

import torch

from instapipe.errors import EngineError


def resolve_device(name: str) -> str:
    """`auto` is a GPU where there is one. Raises EngineError where torch cannot use `name`."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(f"device {name!r} cannot be used: {' '.join(str(error).split())[:160]}") from error
    return name
