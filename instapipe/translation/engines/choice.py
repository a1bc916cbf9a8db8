"""What `auto` means: the fastest engine on this machine among those that do not change the result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from instapipe.errors import EngineError
from instapipe.networks import devices
from instapipe.networks.generator import SetGenerator
from instapipe.translation.engines.artefacts import Artefacts
from instapipe.translation.engines.backends import PRECISIONS, why_not
from instapipe.translation.engines.parts import Array
from instapipe.translation.engines.probes import probe_window
from instapipe.translation.engines.run import Engine, build

MEAN_ERROR = 0.01
"""A lower precision may move the image by this much on average, of [-1, 1], to be a default."""
MASK_AGREEMENT = 0.98
"""And every mask, at 0.5, must have at least this IoU with the exact one."""
GAIN = 1.1
"""What is nearer to plain torch in float32 stays unless something else is faster by this factor."""
SMALL = 2e8
"""Multiplications in a step below which no engine can win anything that a person would notice."""
_EXACT = ("torch", "float32")
_ORDER = ("float32", "bfloat16", "int8")
_USUAL_SIZE = (200, 200)
_PROBES = 3
_ROUNDS = 3
HOPELESS = 3.0
"""What takes so many times as long as the fastest yet is measured no further: torch's bfloat16 takes ten times as long
as float32 where the processor has none."""
_SECONDS = 6.0
"""Of measuring, setting up not counted; the round in progress is finished."""

Window = tuple[Array, Array]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen. reason: one line for people.  seconds: of one step, by candidate.  dropped: why others were not
    taken."""

    engine: str
    precision: str
    reason: str
    seconds: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def choose_engine(
    generator: SetGenerator,
    weights: str,
    size: tuple[int, int] | None,
    instances: int,
    device: str,
    engine: str,
    precision: str,
    artefacts: Artefacts,
) -> Choice:
    """Measure the candidates on windows of the network's own size.

    A precision below float32 that nobody asked for must keep to MEAN_ERROR and MASK_AGREEMENT. Raises EngineError where
    nothing that was asked for runs here.
    """
    # Exact ones first: a lower precision has to be clearly faster than all of them.
    candidates = sorted(_candidates(engine, precision, device), key=lambda pair: _ORDER.index(pair[1]))
    size = size or _USUAL_SIZE
    if not candidates:
        raise EngineError(_nothing(engine, precision, device))
    if len(candidates) == 1:
        return Choice(*candidates[0], reason="the only one there is")
    if _EXACT in candidates and multiplications(generator, size, instances) < SMALL:
        return Choice("torch", "float32", reason="so small a network has nothing to gain")
    windows = [probe_window(size, instances, seed) for seed in range(_PROBES)]
    plain = build(generator, weights, device, *_EXACT, Artefacts(None))
    exact = [plain.run(*window) for window in windows]
    ready: dict[tuple[str, str], Engine] = {}
    dropped: dict[str, str] = {}
    fastest = float("inf")
    for candidate in candidates:
        name = " ".join(candidate)
        if candidate == ("torch", "bfloat16") and precision == "auto":
            handicap = devices.bfloat16_handicap(torch.device(device))
            if handicap > devices.HOPELESS:
                dropped[name] = f"a convolution takes {handicap:.0f} times as long"
                continue
        try:
            made = plain if candidate == _EXACT else build(generator, weights, device, *candidate, artefacts)
            results = [made.run(*windows[0])]  # compiles, and warms up
            start = time.perf_counter()
            results.append(made.run(*windows[1]))
            once = time.perf_counter() - start
            if once > HOPELESS * fastest:
                dropped[name] = f"takes {once / fastest:.0f} times as long"
                continue
            fastest = min(fastest, once)
            results += [made.run(*window) for window in windows[2:]]
        except Exception as error:  # whatever a vendor's compiler throws: there are other engines
            dropped[name] = " ".join(str(error).split())[:200] or type(error).__name__
            continue
        change = _change(exact, results) if precision == "auto" and candidate[1] != "float32" else None
        if change is not None:
            dropped[name] = change
        else:
            ready[candidate] = made
    if not ready:
        raise EngineError(f"{_nothing(engine, precision, device)}: {'; '.join(dropped.values())}")
    seconds = _measured(ready, windows[0])
    best = _best(seconds)
    return Choice(
        *best,
        reason=_reason(best, seconds, dropped),
        seconds={" ".join(key): round(value, 5) for key, value in seconds.items()},
        dropped=dropped,
    )


def multiplications(generator: SetGenerator, size: tuple[int, int], instances: int) -> float:
    """About how many a step takes: parameters of each part times the pixels at a quarter of the scale, which is where
    nearly all of them work."""
    pixels = size[0] * size[1] / 16
    image, mask = (
        sum(p.numel() for module in modules for p in module.parameters())
        for modules in (
            (generator.encoder_image, generator.decoder_image),
            (generator.encoder_mask, generator.decoder_mask),
        )
    )
    return float(pixels * (image + instances * mask))


def _candidates(engine: str, precision: str, device: str) -> Iterator[tuple[str, str]]:
    """What can run, plainest first. `compile` only by name: it takes half a minute to find out what it is worth; onnx
    only where openvino is missing, which does the same faster; int8 only by name: however near its pictures are, the
    judge calls some of them otherwise (benchmarks/README.md)."""
    on_cpu = device.startswith("cpu")
    for name in ("torch", "onnx", "openvino") if engine == "auto" else (engine,):
        if name != "torch" and not on_cpu:
            continue
        if engine == "auto" and name == "onnx" and why_not("openvino", "float32") is None:
            continue
        for kind in PRECISIONS.get(name, ("float32",)) if precision == "auto" else (precision,):
            if why_not(name, kind) is None and (kind != "int8" or precision == "int8"):
                yield name, kind


def _nothing(engine: str, precision: str, device: str) -> str:
    if engine != "auto" and precision != "auto":
        reason = why_not(engine, precision)
    elif engine != "auto":
        reason = why_not(engine, PRECISIONS.get(engine, ("float32",))[0])
    else:
        reason = None
    return reason or f"no engine for --engine {engine} --precision {precision} on {device}"


def _change(exact: list[Window], results: list[Window]) -> str | None:
    """Why `results` are not the `exact` ones; None where they are as good as those."""
    error = float(np.mean([np.abs(a[0] - b[0]).mean() for a, b in zip(exact, results, strict=True)]))
    if not error <= MEAN_ERROR:
        return f"changes the image by {error:.4f} on average, more than {MEAN_ERROR}"
    pairs = [pair for a, b in zip(exact, results, strict=True) for pair in zip(a[1], b[1], strict=True)]
    agreement = min(mask_agreement(one, other) for one, other in pairs)
    if not agreement >= MASK_AGREEMENT:
        return f"changes a mask to an IoU of {agreement:.3f}, less than {MASK_AGREEMENT}"
    return None


def mask_agreement(one: Array, other: Array) -> float:
    """IoU of two masks in [-1, 1] where they are above 0; 1 where both are empty."""
    a, b = one > 0, other > 0
    union = int((a | b).sum())
    return float((a & b).sum()) / union if union else 1.0


def _measured(ready: dict[tuple[str, str], Engine], window: Window) -> dict[tuple[str, str], float]:
    """Seconds of one step, the least of some rounds in which everybody has a turn: the least is what disturbs least."""
    seconds = dict.fromkeys(ready, float("inf"))
    start = time.perf_counter()
    for _ in range(_ROUNDS):
        for candidate, made in ready.items():
            seconds[candidate] = min(seconds[candidate], _time(made, window))
        if time.perf_counter() - start > _SECONDS:
            break
    return seconds


def _time(made: Engine, window: Window) -> float:
    start = time.perf_counter()
    made.run(*window)
    return time.perf_counter() - start


def _best(seconds: dict[tuple[str, str], float]) -> tuple[str, str]:
    """The fastest; the plainer one where the gain is small."""
    best = next(iter(seconds))
    for candidate, value in seconds.items():
        if value * GAIN < seconds[best]:
            best = candidate
    return best


def _reason(best: tuple[str, str], seconds: dict[tuple[str, str], float], dropped: dict[str, str]) -> str:
    ranked = sorted(seconds.items(), key=lambda item: item[1])
    times = ", ".join(f"{' '.join(key)} {value * 1000:.1f} ms" for key, value in ranked)
    others = "".join(f"; {name} {why}" for name, why in dropped.items())
    return f"measured a step: {times}{others}" if len(seconds) > 1 or others else f"{' '.join(best)} alone runs here"
