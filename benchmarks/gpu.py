"""Translation and training on a GPU against the plain reading of the original there: `python benchmarks/gpu.py`.

All ways of a subject take turns within a round, so that a ratio is of two times that lie side by side; the clock is the
wall's, with the GPU's queue empty at both ends. The original runs with what torch has by default: TF32 in convolutions.
Errors are against the original without TF32. A way that fails leaves its reason in the table, not a hole in the run.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import speed
import torch
import training
from baseline import PlainGenerator, as_original, loop

from instapipe.data.samples import Batch
from instapipe.networks.blocks import initialise
from instapipe.networks.projected import FrozenBackbone
from instapipe.training.config import DataSettings, TrainConfig
from instapipe.training.step import InstaGAN, TrainingStep
from instapipe.translation.engines.artefacts import Artefacts
from instapipe.translation.engines.gpu import Steps, without_tf32
from instapipe.translation.engines.probes import probe_window
from instapipe.translation.engines.run import WholeEngine, build

RESULTS = Path(__file__).resolve().parent / "results"
INSTANCES, PER_STEP, BATCH = 4, 2, 16
TRAINING = {"small-data": (32, 128), "paper": (64, 200)}  # width, side
TRAINING_WAYS: dict[str, tuple[bool, bool, int]] = {  # as the original, bfloat16, batch
    "original, float32": (True, False, 1),
    "float32": (False, False, 1),
    "bfloat16": (False, True, 1),
    "bfloat16, batch 8": (False, True, 8),
    "bfloat16, batch 16": (False, True, 16),
}
SECONDS = {"translate": 8.0, "train": 12.0}
"""Of rounds for one subject; the round in progress is finished."""

Array = Any


@dataclass(slots=True)
class Way:
    """One way to do a subject's work. call: `items` windows or samples.  note: what there is to say, a failure too."""

    call: Callable[[], object] | None = None
    items: int = 1
    seconds: list[float] = field(default_factory=list)
    """Per item, by round."""
    errors: dict[str, float] = field(default_factory=dict)
    held: int = 0
    peak: int = 0
    note: str = ""


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument(
        "--size", type=int, default=None, help="side of all windows and samples, pixels; for trying out"
    )
    parser.add_argument("--only", choices=("translate", "train"), default=None)
    parser.add_argument("--device", default="cuda", help="cpu: only to try this program out")
    asked = parser.parse_args()
    if asked.device != "cpu" and not torch.cuda.is_available():
        print("no GPU that torch can use: nothing to measure", file=sys.stderr)
        return 2
    start = time.perf_counter()
    result: dict[str, Any] = {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "gpu": torch.cuda.get_device_name(0) if asked.device != "cpu" else "none",
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "tf32": {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "matrix products": torch.backends.cuda.matmul.allow_tf32,
        },
        "rounds": asked.rounds,
        "instances": INSTANCES,
        "per_step": PER_STEP,
        "translate": [],
        "train": [],
        "failed": [],
    }

    def keep() -> None:
        result["seconds"] = round(time.perf_counter() - start)
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        asked.output.with_suffix(".md").write_text(table(result) + "\n", encoding="utf-8")

    for subject in _subjects(result["failed"]) if asked.only != "train" else ():
        _attempt(subject.name, result["translate"], result["failed"], lambda s=subject: translation(s, asked))
        keep()
    for form in TRAINING if asked.only != "translate" else ():
        _attempt(form, result["train"], result["failed"], lambda f=form: train(f, asked))
        keep()
    keep()
    print(table(result))
    _say(f"{asked.output} ({result['seconds']} s)")
    return 0


def _subjects(failed: list[str]) -> Iterator[speed.Subject]:
    """Those of speed.py, as far as they can be loaded here."""
    found = speed.subjects()
    while True:
        try:
            one = next(found)
        except StopIteration:
            return
        except Exception as error:  # what cannot be loaded is said, and the rest goes on
            failed.append(f"bundled weights: {_line(error)}")
            return
        yield replace(one, instances=INSTANCES, per_step=PER_STEP)


def _attempt(name: str, into: list[Any], failed: list[str], measure: Callable[[], dict[str, Any]]) -> None:
    _say(name)
    try:
        into.append(measure())
    except Exception as error:  # one subject less is better than no result
        failed.append(f"{name}: {_line(error)}")
        _say(failed[-1])
    _clear()


def translation(subject: speed.Subject, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a window of INSTANCES instances, way by way."""
    device = asked.device
    size = (asked.size, asked.size) if asked.size else subject.size
    generator = subject.generator.to(device)
    windows = [probe_window(size, subject.instances, seed) for seed in range(BATCH)]
    image, masks = windows[0]
    soft = (masks * np.random.default_rng(0).uniform(0.3, 1, masks.shape)).astype(np.float32)
    images, sets = (np.stack(part) for part in zip(*windows, strict=True))
    plain = PlainGenerator(generator)

    def original(pixels: Array, some: Array) -> tuple[Array, Array]:
        painted, mattes = plain.step(*(torch.from_numpy(x)[None].to(device) for x in (pixels, some)))
        return painted[0].cpu().numpy(), mattes[0].cpu().numpy()

    def exact(pixels: Array, some: Array) -> tuple[Array, Array]:
        with without_tf32():
            return original(pixels, some)

    per_step = subject.per_step
    expected = {
        "binary": loop(exact, image, masks, per_step),
        "soft": loop(exact, image, soft, per_step),
    }
    runs: dict[str, Callable[[], tuple[Any, Any]]] = {
        "original, float32": lambda: (original, None),
        "original, float32 without TF32": lambda: (exact, None),
        "float32": lambda: _engine(generator, subject.weights, device, "float32", graphs=True),
        "float32, no graph": lambda: _engine(generator, subject.weights, device, "float32", graphs=False),
        "bfloat16": lambda: _engine(generator, subject.weights, device, "bfloat16", graphs=True),
        "bfloat16, no graph": lambda: _engine(generator, subject.weights, device, "bfloat16", graphs=False),
        "bfloat16, cudnn.benchmark": lambda: _engine(generator, subject.weights, device, "bfloat16", graphs=True),
    }
    ways: dict[str, Way] = {}
    for label, make in runs.items():
        ways[label] = way = Way()
        try:
            chosen = _chosen_by_trial() if label.endswith("cudnn.benchmark") else contextlib.nullcontext()
            with chosen:
                run, steps = make()
                for kind, given in (("binary", masks), ("soft", soft)):
                    found = speed.errors(expected[kind], loop(run, image, given, per_step))
                    way.errors.update({f"{kind} {name}": value for name, value in found.items()})
            way.note = _graph_note(steps, torch.empty(1, per_step, *size))
            way.call = lambda run=run: loop(run, image, masks, per_step)
        except Exception as error:
            way.note = f"FAILED: {_line(error)}"
            _clear()
    label = f"bfloat16, {BATCH} windows at once"
    ways[label] = way = Way(items=BATCH)
    try:
        steps = Steps(generator, device, "bfloat16")
        got = _batch_loop(steps, images, sets, per_step)
        found = speed.errors(expected["binary"], [got[0][0], got[1][0]])
        way.errors.update({f"binary {name}": value for name, value in found.items()})
        way.note = _graph_note(steps, torch.empty(BATCH, per_step, *size))
        way.call = lambda: _batch_loop(steps, images, sets, per_step)
    except Exception as error:
        way.note = f"FAILED: {_line(error)}"
        _clear()
    take_turns(ways, asked.rounds, SECONDS["translate"], device)
    return {
        "subject": subject.name,
        "size": list(size),
        "trained": subject.trained,
        "rounds": len(ways["original, float32"].seconds),
        "ways": {name: _summary(ways["original, float32"], one) for name, one in ways.items()},
    }


def _engine(generator: Any, weights: str, device: str, precision: str, *, graphs: bool) -> tuple[Any, Steps | None]:
    if device == "cpu" or not graphs:
        engine: Any = WholeEngine(generator, device, precision, graphs=graphs)
    else:
        engine = build(generator, weights, device, "torch", precision, Artefacts(None))
    return engine.run, engine.steps


def _graph_note(steps: Steps | None, masks: torch.Tensor) -> str:
    if steps is None:
        return ""
    if steps.failures:
        return "no graph: " + "; ".join(f"{shape}: {why}" for shape, why in steps.failures.items())
    return "graph" if steps.recorded(masks) else ""


def _batch_loop(steps: Steps, images: Array, sets: Array, per_step: int) -> tuple[Array, Array]:
    """baseline.loop for many windows at once, (B, 3, H, W) and (B, N, H, W)."""
    current, mattes = torch.from_numpy(images), []
    for first in range(0, sets.shape[1], per_step):
        current, some = steps(current, torch.from_numpy(np.ascontiguousarray(sets[:, first : first + per_step])))
        mattes.append(some)
    return current.numpy(), torch.cat(mattes, dim=1).numpy()


def train(form: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a training step per sample, and the memory that it takes, way by way."""
    width, side = TRAINING[form]
    side = asked.size or side
    config = training.FORMS[form]
    generator = config.generator.model_copy(update={"width": width})
    data = DataSettings(size=side, load_size=side, max_instances=INSTANCES, instances_per_step=PER_STEP)
    config = config.model_copy(update={"generator": generator, "discriminator_width": width, "data": data})
    backbone, channels, told = _backbone(config, asked.device)
    ways: dict[str, Way] = {}
    for label, (original, bfloat16, batch) in TRAINING_WAYS.items():
        ways[label] = way = Way(items=batch)
        before = _allocated(asked.device)
        try:
            call = _training_call(config, channels, backbone, asked.device, (original, bfloat16, batch))
            call()  # allocates the optimisers' state, and warms up
            way.held = _allocated(asked.device) - before
            way.call = call
        except Exception as error:
            way.note = f"FAILED: {_line(error)}"
            call = None
            _clear()
    take_turns(ways, asked.rounds, SECONDS["train"], asked.device)
    return {
        "form": form,
        "width": width,
        "size": side,
        "backbone": told,
        "rounds": len(ways["original, float32"].seconds),
        "ways": {name: _summary(ways["original, float32"], one) for name, one in ways.items()},
    }


def _training_call(
    config: TrainConfig, channels: list[int], backbone: FrozenBackbone | None, device: str, way: tuple[bool, bool, int]
) -> Callable[[], object]:
    original, bfloat16, batch = way
    rng = torch.Generator().manual_seed(0)
    networks = InstaGAN(config, channels, rng)
    initialise(networks.source_to_target, rng)
    initialise(networks.target_to_source, rng)
    if original:
        as_original(networks)
    networks.to(device)
    step = TrainingStep(config, networks, *training.optimizers(config, networks), training.pools(), backbone, bfloat16)
    source, target = (_samples(seed, batch, config.data.size) for seed in range(2))
    return lambda: step(source, target, 0, torch.Generator().manual_seed(0))


def _samples(seed: int, batch: int, side: int) -> Batch:
    made = [training.batch_of_noise(1000 * seed + number, INSTANCES, side) for number in range(batch)]
    image, masks, valid = (torch.cat([getattr(one, name) for one in made]) for name in ("image", "masks", "valid"))
    return Batch(image, masks, valid)


def _backbone(config: TrainConfig, device: str) -> tuple[FrozenBackbone | None, list[int], str]:
    """Where its weights are not installed, random ones: they take as long."""
    if config.projected is None:
        return None, [], "none"
    from instapipe.errors import WeightsError
    from instapipe.networks.backbone import Features, pretrained_features

    try:
        features, told = pretrained_features(config.projected.backbone), "pretrained"
    except WeightsError:
        features, told = Features(config.projected.backbone).eval(), "random weights"
    return FrozenBackbone(features, config.projected.min_side).to(device), list(features.channels), told


def take_turns(ways: dict[str, Way], rounds: int, limit: float, device: str) -> None:
    """Each way once a round, after one round that does not count."""
    start = time.perf_counter()
    for number in range(rounds + 1):
        for way in ways.values():
            if way.call is None:
                continue
            try:
                seconds, peak = _timed(way.call, device)
            except Exception as error:
                way.note, way.call = f"FAILED: {_line(error)}", None
                _clear()
                continue
            if number:
                way.seconds.append(seconds / way.items)
                way.peak = max(way.peak, way.held + peak)
        if number and time.perf_counter() - start > limit:
            return


def _timed(call: Callable[[], object], device: str) -> tuple[float, int]:
    """Seconds, and bytes above what was allocated before."""
    if device == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start, 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return seconds, torch.cuda.max_memory_allocated() - before


def _allocated(device: str) -> int:
    return 0 if device == "cpu" else torch.cuda.memory_allocated()


def _clear() -> None:
    gc.collect()
    if torch.cuda.is_available():
        with contextlib.suppress(Exception):
            torch.cuda.empty_cache()


def _chosen_by_trial() -> contextlib.AbstractContextManager[None]:
    """cuDNN tries its kernels and takes the fastest; a graph that is recorded inside keeps them."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)


def _summary(base: Way, one: Way) -> dict[str, Any]:
    """Medians, and ratios round by round with their spread; nothing where it failed."""
    out: dict[str, Any] = {"note": one.note, "errors": one.errors}
    if not one.seconds:
        return out
    out |= {"seconds": statistics.median(one.seconds), "rounds": len(one.seconds), "peak_bytes": one.peak}
    ratios = [b / a for a, b in zip(one.seconds, base.seconds, strict=False)]
    if ratios:
        out |= {"ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)]}
    return out


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    tf32 = ", ".join(f"{name} {'on' if value else 'off'}" for name, value in result["tf32"].items())
    lines = [
        f"{result['taken']} UTC; {result['gpu']}; torch {result['torch']}, cuDNN {result['cudnn']}, Python "
        f"{result['python']}; {result['instances']} instances, {result['per_step']} a step; TF32 as torch has it by "
        f"default: {tf32} (that is what the original runs with; our float32 of translation runs without); "
        f"{result['seconds']} s in all",
    ]
    for one in result["translate"]:
        lines += [
            "",
            f"**{one['subject']}**, {one['size'][0]}x{one['size'][1]}, {one['rounds']} rounds"
            f"{'' if one['trained'] else ' (random weights: errors and IoU say little)'}",
            "",
            "| translation | ms a window | times as fast (spread) | mean error, max | least IoU | |",
            "|---|---|---|---|---|---|",
        ]
        for name, way in one["ways"].items():
            found = way["errors"]
            mean, most = (
                f"{max(v for k, v in found.items() if k.endswith(kind)):.1e}" if found else "-"
                for kind in (" mean", " max")
            )
            overlap = f"{min(v for k, v in found.items() if k.endswith('IoU')):.4f}" if found else "-"
            lines.append(f"| {name} | {_speed(way)} | {mean}, {most} | {overlap} | {way['note']} |")
    for one in result["train"]:
        lines += [
            "",
            f"**training, {one['form']}**, width {one['width']}, {one['size']} px, {one['rounds']} rounds; backbone: "
            f"{one['backbone']}",
            "",
            "| training step | ms a sample | times as fast (spread) | peak memory, MB | |",
            "|---|---|---|---|---|",
        ]
        for name, way in one["ways"].items():
            peak = f"{way['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in way else "-"
            lines.append(f"| {name} | {_speed(way)} | {peak} | {way['note']} |")
    if result["failed"]:
        lines += ["", *(f"- FAILED: {each}" for each in result["failed"])]
    return "\n".join(lines)


def _speed(way: dict[str, Any]) -> str:
    """Two cells."""
    if "seconds" not in way:
        return "- | -"
    if "ratio" not in way:
        return f"{1000 * way['seconds']:.2f} | -"
    return f"{1000 * way['seconds']:.2f} | {way['ratio']:.2f}x ({way['spread'][0]:.2f}-{way['spread'][1]:.2f})"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".replace("|", "/")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
