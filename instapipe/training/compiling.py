"""torch.compile for the generators' parts, where it works."""

from __future__ import annotations

import torch
from torch import nn

from instapipe.networks.generator import SetGenerator


def compile_parts(generators: list[SetGenerator], size: int, *, backend: str = "inductor") -> str:
    """Compile encoders and decoders in place (what lies between them depends on the number of masks); says what came of
    it. Without a working compiler they stay as they were.  backend: one of torch.compile's."""
    parts: list[nn.Module] = []
    for generator in generators:
        parts += [
            generator.encoder_image, generator.encoder_mask, generator.decoder_image, generator.decoder_mask,
        ]  # fmt: skip
    for part in parts:
        part.compile(backend=backend)
    try:
        # One part, forward and backward: it tells whether there is a compiler; the others follow as they are needed.
        device = next(generators[0].parameters()).device
        generators[0].encoder_mask(torch.zeros(1, 1, size, size, device=device)).sum().backward()
    except Exception as error:  # torch raises many kinds where no compiler works
        for part in parts:
            part._compiled_call_impl = None
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        return f"not compiled, as no compiler works here: {reason}"
    finally:
        for generator in generators:
            generator.zero_grad(set_to_none=True)
    return "the generators are compiled"
