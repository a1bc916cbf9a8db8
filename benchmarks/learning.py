"""What is learnt in the world of bars (tests/bar_world.py), by which variant of the method: docs/learning.md.

    OMP_NUM_THREADS=1 python benchmarks/learning.py                 # what is still missing of the table, run by run
    OMP_NUM_THREADS=1 python benchmarks/learning.py --next 1        # the next missing run only
    python benchmarks/learning.py --table                           # the table of what there is

Each run is kept as soon as it is done, so that an interrupted benchmark goes on where it stopped. Runs come seed by
seed, the variants of a seed one after the other.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

RESULTS = HERE / "results" / "learning.json"
BASE, PREDICTED = "sequential", "predicted masks"
ALL_AT_ONCE = {"data__instances_per_step": 5, "steps": 213}
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    PREDICTED: {"predicted": 600},
    "predicted, mask noise": {"predicted": 600, "noise": True},
    "one step": ALL_AT_ONCE,
    "mean": {"generator__aggregation": "mean"},
    "attention": {"generator__aggregation": "attention"},
    "one step, mean": {**ALL_AT_ONCE, "generator__aggregation": "mean"},
    "one step, attention": {**ALL_AT_ONCE, "generator__aggregation": "attention"},
    "smallest first": {"data__order": "smallest"},
    "random order": {"data__order": "random"},
    "no context": {"losses__context": 0},
    "union mask": {"data__masks": "union", "data__max_instances": 1, "data__instances_per_step": 1, "steps": 213},
    "plain CycleGAN": {
        "data__masks": "none",
        "data__max_instances": 1,
        "data__instances_per_step": 1,
        "compositing__mode": "whole",
        "losses__context": 0,
        "losses__cycle_masks": 0,
        "steps": 213,
    },
}
AGAINST = {"one step, mean": "one step", "one step, attention": "one step", "predicted, mask noise": PREDICTED}
"""What a variant is compared with; the others with the base."""
SEEDS = {BASE: 5}
"""Others have three."""
MEASURES = ("masks", "pixels", "kept", "miscounted", "background")
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t, two-sided 95 %, by the number of seeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--next", type=int, help="at most so many runs")
    parser.add_argument("--only", action="append", help="only this variant (repeatable)")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    records = json.loads(options.results.read_text()) if options.results.is_file() else []
    if not options.table:
        done = {(each["variant"], each["seed"]) for each in records}
        missing = [
            (variant, seed)
            for seed in range(max([3, *SEEDS.values()]))
            for variant in VARIANTS
            if seed < SEEDS.get(variant, 3) and (variant, seed) not in done and variant in (options.only or VARIANTS)
        ]
        for variant, seed in missing[: options.next]:
            records.append(run(variant, seed))
            write(options.results, json.dumps(records, indent=1) + "\n")
            print(json.dumps(records[-1]), flush=True)
    write(options.results.with_suffix(".md"), table(records))


def run(variant: str, seed: int) -> dict[str, Any]:
    """Learn, and score on photos that nobody has seen."""
    import bar_learning as learning
    import torch

    torch.set_num_threads(1)
    changes = dict(VARIANTS[variant])
    predicted = changes.pop("predicted", 0)  # steps that the segmenters learn for
    noisy = changes.pop("noise", False)
    config = learning.settings(seed=seed, **changes)
    begun, wall = time.process_time(), time.monotonic()
    scenes = learning.unseen(seed)
    segments = noise = None
    facts: dict[str, Any] = {}
    if predicted:
        from bar_segmenter import cross_fitted, measured, quality

        segments = cross_fitted(seed, predicted)
        facts["segmenter"] = quality(segments[0], scenes)
        if noisy:
            noise = measured(segments, seed)
            facts["noise"] = noise.model_dump()
    with tempfile.TemporaryDirectory() as folder:
        generator = learning.learn(config, learning.domains(config, seed, segments, noise), Path(folder))
    seconds = time.process_time() - begun
    segment = None if segments is None else segments[0]
    scores = learning.score(scenes, learning.translated(generator, config, scenes, segment))
    if segments is not None:  # what is lost in learning, and what in reading the photo to be translated
        right = learning.score(scenes, learning.translated(generator, config, scenes))
        facts["shown_given_masks"] = {name: round(value, 4) for name, value in asdict(right).items()}
    baselines = {
        "copy": asdict(learning.score(scenes, learning.copied(scenes))),
        "texture only": asdict(learning.score(scenes, learning.recoloured(scenes))),
    }
    return {
        "variant": variant,
        "seed": seed,
        "steps": config.steps,
        "scores": {name: round(value, 4) for name, value in asdict(scores).items()},
        "learnt": scores.learnt(),
        "cpu_seconds": round(seconds, 1),
        "wall_seconds": round(time.monotonic() - wall, 1),
        "baselines": {k: {name: round(value, 4) for name, value in v.items()} for k, v in baselines.items()},
        **facts,
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Means with 95 % intervals over seeds, and differences from the base, seed by seed."""
    lines = [
        "# Learning in the world of bars",
        "",
        "Made by `benchmarks/learning.py`; what the measures are: docs/learning.md. Means over seeds with 95 %",
        "intervals (Student's t), none where there is one seed. Differences: pixels IoU, seed by seed, of the other",
        "two that translate in one step from `one step`, with mask noise from `predicted masks`, else from",
        "`sequential`; in bold where the interval does not hold 0.",
        "",
        "| variant | seeds | masks IoU | pixels IoU | kept | miscounted a photo | background L1 | pixels, difference "
        "| CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("copy", "texture only"):
        scores = [each["baselines"][name] for each in records if each["variant"] == BASE]
        if scores:
            lines.append(f"| *{name}* | {len(scores)} | {_cells(scores)} | | 0 |")
    for variant in VARIANTS:
        runs = [each for each in records if each["variant"] == variant]
        if not runs:
            continue
        against = AGAINST.get(variant, BASE)
        base = {each["seed"]: each["scores"] for each in records if each["variant"] == against}
        apart = [r["scores"]["pixels"] - base[r["seed"]]["pixels"] for r in runs if r["seed"] in base]
        shown = "" if variant == BASE else _difference(apart)
        cpu = sum(each["cpu_seconds"] for each in runs) / len(runs)
        lines.append(f"| {variant} | {len(runs)} | {_cells([r['scores'] for r in runs])} | {shown} | {cpu:.0f} |")
    whole = sum(each["cpu_seconds"] for each in records) / 60
    lines += ["", f"{len(records)} runs, {whole:.0f} minutes of one CPU core."]
    lines += [_predicted(records)] if any("segmenter" in each for each in records) else []
    passed = [each for each in records if each["variant"] == BASE]
    if passed:
        lines.append(f"`sequential` passes (masks and pixels >= 0.7, kept >= 95 %, background <= 0.02) with "
                     f"{sum(each['learnt'] for each in passed)} of {len(passed)} seeds.")  # fmt: skip
    return "\n".join(lines) + "\n"


def _predicted(records: Sequence[dict[str, Any]]) -> str:
    """How good the predicted masks are, and what networks that learnt from them make of the given ones."""
    runs = [each for each in records if each["variant"] == PREDICTED]
    iou, found, extra = (_interval([r["segmenter"][name] for r in runs], 3) for name in ("iou", "found", "extra"))
    masks, pixels = (_interval([r["shown_given_masks"][name] for r in runs], 3) for name in ("masks", "pixels"))
    return (
        f"`{PREDICTED}`: the segmenter's IoU is {iou}, it finds {found} of the bars and {extra} too many a photo.\n"
        f"Networks that learnt from predicted masks, shown the given ones: {masks} masks IoU, {pixels} pixels IoU."
    )


def _cells(scores: Sequence[dict[str, float]]) -> str:
    return " | ".join(_interval([each[name] for each in scores], 3) for name in MEASURES)


def _difference(values: Sequence[float]) -> str:
    if len(values) < 2:
        return _interval(values, 3, sign=True)
    middle, reach = _mean(values)
    text = _interval(values, 3, sign=True)
    return f"**{text}**" if abs(middle) > reach else text


def _interval(values: Sequence[float], digits: int, *, sign: bool = False) -> str:
    middle, reach = _mean(values)
    text = f"{middle:+.{digits}f}" if sign else f"{middle:.{digits}f}"
    return text if math.isnan(reach) else f"{text} ± {reach:.{digits}f}"


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and how far its 95 % interval reaches; NaN for a single value."""
    if not values:
        return math.nan, math.nan
    middle = sum(values) / len(values)
    if len(values) < 2:
        return middle, math.nan
    spread = math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))
    return middle, T95[len(values)] * spread / math.sqrt(len(values))


def write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text)
    scratch.replace(path)


if __name__ == "__main__":
    main()
