"""Weights in 8 bits, on disk alone: a quarter of a file, for networks that bear it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_SCALE = ":scale"


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions' weights as int8, with a scale for each output channel; what is smaller in half precision."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.detach().cpu()
        if value.dim() < 4:
            out[name] = value.half().contiguous()
            continue
        scale = (value.abs().amax(dim=(1, 2, 3), keepdim=True) / 127).clamp(min=1e-8)
        out[name] = (value / scale).round().to(torch.int8).contiguous()
        out[name + _SCALE] = scale.contiguous()
    return out


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round, all in float32."""
    whole = {name: value.float() for name, value in tensors.items() if not name.endswith(_SCALE)}
    for name in whole:
        if name + _SCALE in tensors:
            whole[name] = whole[name] * tensors[name + _SCALE]
    return whole
