"""Time and memory of a training step against the number of instances: `python benchmarks/training.py`. Linux only.

Sequential (two instances an optimiser step) and one step for all, with and without checkpointing, in the paper's form
and in the form for little data (projected discriminators, matte compositing), both at a small size; as ratios against a
plain reading of the original (baseline.py): batch 1, float32, sequential, masks one after the other.

Every cell is measured in a fork of its own: seconds of processor time for a training step (all its optimiser steps,
least of `--rounds` after one that warms up; they mean something on one thread only, which is what is set here) and the
peak of memory above what was there before the networks.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hardware
import torch
from baseline import as_original

from instapipe.config import CompositingConfig, GeneratorConfig
from instapipe.data.samples import Batch
from instapipe.networks.blocks import initialise, set_recompute
from instapipe.networks.projected import FrozenBackbone
from instapipe.training.config import DataSettings, LossWeights, ProjectedSettings, TrainConfig
from instapipe.training.pool import FakePool
from instapipe.training.step import InstaGAN, TrainingStep

RESULTS = Path(__file__).resolve().parent / "results"
INSTANCES = (2, 4, 8, 16)
PER_STEP = 2
FORMS: dict[str, TrainConfig] = {
    "paper": TrainConfig(
        generator=GeneratorConfig(form="paper", width=16, encoder_blocks=3),
        discriminator_width=16,
        data=DataSettings(size=48, load_size=48),
        pool_size=0,
        precision="float32",
    ),
    "small-data": TrainConfig(
        generator=GeneratorConfig(
            form="resize", width=16, encoder_blocks=2, decoder_blocks=4, image_decoder_width=96, mask_decoder_width=64
        ),
        compositing=CompositingConfig(mode="matte"),
        discriminator_width=16,
        data=DataSettings(size=48, load_size=48),
        projected=ProjectedSettings(),
        losses=LossWeights(cycle=5, cycle_masks=0.5, identity=1, context=2, detach_context=True),
        pool_size=0,
        augment=True,
        recomposite_reals=0.5,
        precision="float32",
    ),
}
WAYS: dict[str, tuple[bool, bool, bool, bool]] = {  # sequential, checkpointing, as the original, bfloat16
    "original": (True, False, True, False),
    "sequential": (True, False, False, False),
    "sequential, bfloat16": (True, False, False, True),
    "sequential, checkpointing": (True, True, False, False),
    "one step": (False, False, False, False),
    "one step, checkpointing": (False, True, False, False),
}


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, nargs="+", default=list(INSTANCES))
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="with the original")
    parser.add_argument("--width", type=int, default=None, help="of the generator and the discriminator; 16 without")
    parser.add_argument("--size", type=int, default=None, help="side of a sample, pixels; 48 without")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    facts = hardware.facts()
    cells: list[dict[str, Any]] = []
    for form in asked.forms:
        if asked.width is not None:
            generator = FORMS[form].generator.model_copy(update={"width": asked.width})
            wider = {"generator": generator, "discriminator_width": asked.width}
            FORMS[form] = FORMS[form].model_copy(update=wider)
        backbone = _backbone(FORMS[form])
        cell(form, 1, "one step", 32, 1, backbone)  # what libraries load at their first use is not the step's
        for count in asked.instances:
            for way in (each for each in WAYS if each in ("original", *asked.ways)):
                found = in_a_fork(lambda f=form, c=count, w=way, b=backbone: cell(f, c, w, asked.size, asked.rounds, b))
                cells.append({"form": form, "instances": count, "way": way, **found})
                print(f"{form} {count} {way}: {found}", file=sys.stderr, flush=True)
    result = {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "hardware": facts,
        "size": asked.size or 48,
        "width": asked.width or 16,
        "load_after": hardware.facts()["load_before"],
        "seconds": round(time.perf_counter() - start),
        "cells": cells,
    }
    text = table(result)
    print(text)
    path = asked.output or RESULTS / f"{facts['kind']}-training.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    return 0


def in_a_fork(measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `measure` finds in a process that is thrown away: nothing of the cell before is in its memory."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(write, json.dumps(measure()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as stream:
        told = stream.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("a measurement failed")
    found: dict[str, float] = json.loads(told)
    return found


def cell(
    form: str, count: int, way: str, size: int | None, rounds: int, backbone: tuple[FrozenBackbone | None, list[int]]
) -> dict[str, float]:
    """Seconds of processor time of one training step, and bytes above what was there before."""
    sequential, checkpointing, original, bfloat16 = WAYS[way]
    before = hardware.reset_peak()
    config = FORMS[form]
    side = size or config.data.size
    data = DataSettings(
        size=side, load_size=side, max_instances=count, instances_per_step=PER_STEP if sequential else count
    )
    config = config.model_copy(update={"data": data})
    network, channels = backbone
    rng = torch.Generator().manual_seed(0)
    networks = InstaGAN(config, channels, rng)
    initialise(networks.source_to_target, rng)
    initialise(networks.target_to_source, rng)
    for module in (networks, network):
        if module is not None:
            set_recompute(module, checkpointing)
    if original:
        as_original(networks)
    step = TrainingStep(config, networks, *optimizers(config, networks), pools(), network, bfloat16)
    source, target = (batch_of_noise(seed, count, side) for seed in range(2))
    seconds = []
    for number in range(rounds + 1):
        begun = time.process_time()
        step(source, target, 0, torch.Generator().manual_seed(number))
        seconds.append(time.process_time() - begun)
    return {"seconds": min(seconds[1:]), "bytes": hardware.status("VmHWM") - before}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown: seconds and megabytes, each with its ratio to the original."""
    machine = result["hardware"]
    lines = [
        f"{result['taken']} UTC; {machine['processor']}, one thread; load {machine['load_before']} before and "
        f"{result['load_after']} after; torch {machine['versions'].get('torch')}; {result['size']} px, "
        f"width {result['width']}, batch 1, float32 unless it says otherwise, {PER_STEP} instances a sequential step; "
        f"{result['seconds']} s in all",
    ]
    for form in dict.fromkeys(cell["form"] for cell in result["cells"]):
        ours = [cell for cell in result["cells"] if cell["form"] == form]
        counts = list(dict.fromkeys(cell["instances"] for cell in ours))
        found = {(cell["way"], cell["instances"]): cell for cell in ours}
        lines += [
            "",
            f"**{form}**: seconds of a step, MB above the process without networks (ratio to the original)",
            "",
        ]
        lines += ["| way | " + " | ".join(f"{count} instances" for count in counts) + " |"]
        lines += ["|---|" + "---|" * len(counts)]
        for way in dict.fromkeys(cell["way"] for cell in ours):
            row = []
            for count in counts:
                one, base = found[way, count], found["original", count]
                row.append(
                    f"{one['seconds']:.2f} s ({one['seconds'] / base['seconds']:.2f}), "
                    f"{one['bytes'] / 1e6:.0f} MB ({one['bytes'] / base['bytes']:.2f})"
                )
            lines.append(f"| {way} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _backbone(config: TrainConfig) -> tuple[FrozenBackbone | None, list[int]]:
    if config.projected is None:
        return None, []
    from instapipe.networks.backbone import pretrained_features

    features = pretrained_features(config.projected.backbone)
    return FrozenBackbone(features, config.projected.min_side), list(features.channels)


def optimizers(config: TrainConfig, networks: InstaGAN) -> tuple[torch.optim.Adam, torch.optim.Adam]:
    generators = [*networks.source_to_target.parameters(), *networks.target_to_source.parameters()]
    critics = [*networks.critic_source.parameters(), *networks.critic_target.parameters()]
    return (
        torch.optim.Adam(generators, lr=config.learning_rate, fused=True),
        torch.optim.Adam([p for p in critics if p.requires_grad], lr=config.learning_rate, fused=True),
    )


def pools() -> dict[str, FakePool]:
    return {"source": FakePool(0), "target": FakePool(0)}


def batch_of_noise(seed: int, count: int, side: int) -> Batch:
    """One photo of noise with `count` masks, stripes one beside the other."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 3, side, side, generator=rng) * 2 - 1
    masks = -torch.ones(1, count, side, side)
    for index in range(count):
        masks[:, index, :, index * side // count : (index + 1) * side // count] = 1
    return Batch(image, masks, torch.ones(1, count, dtype=torch.bool))


if __name__ == "__main__":
    sys.exit(main())
