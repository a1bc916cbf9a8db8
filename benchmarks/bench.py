"""`make bench`: the goals and what this machine reaches, as a table and as a file in `benchmarks/results/`.

Everything is a ratio against the plain reading of the original (baseline.py) in the same run. Two clocks: the wall's,
and the processor time of this process, which other programs on the machine disturb less (its ratios mean something only
where both sides run on one thread).

`--rounds N`: side-by-side rounds (median and spread are over them). `--quick`: the networks only, fewer rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hardware
import memory
import speed
import startup

RESULTS = Path(__file__).resolve().parent / "results"
NOT_HERE = (
    "training step and its memory",
    "segment one 1-megapixel photo",
    "folder of 100 photos: time outside the models",
)


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--weights", action="append", default=[], help="more weights to measure: a name or a folder")
    parser.add_argument("--skip", action="append", default=[], help="an engine and precision to leave out, as printed")
    parser.add_argument("--only", default=None, help="measure this network alone, as printed")
    asked = parser.parse_args()
    start = time.perf_counter()
    result: dict[str, Any] = {"taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "hardware": hardware.facts()}
    _say(json.dumps(result["hardware"]))
    result["translate"] = []
    for subject in speed.subjects(asked.weights):
        if asked.only not in (None, subject.name):
            continue
        _say(f"{subject.name}: {subject.instances} instances at {subject.size}")
        result["translate"].append(speed.measure(subject, 2 if asked.quick else asked.rounds, _say, skip=asked.skip))
    if not asked.quick:
        _say("start-up")
        result["startup"] = {"help": startup.help_seconds(), "warm": startup.warm_seconds()}
        if sys.platform == "linux":
            _say("memory")
            result["memory"] = {
                f"{h}x{w}": {str(n): memory.peak_above_model((h, w), n) for n in (2, 64)}
                for h, w in ((200, 200), (3648, 5472))
            }
    result["load_after"] = hardware.facts()["load_before"]
    result["seconds"] = round(time.perf_counter() - start)
    text = table(result)
    print(text)
    path = asked.output or RESULTS / f"{result['hardware']['kind']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    _say(f"{path} ({result['seconds']} s)")
    return 0


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    machine = result["hardware"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{result['taken']} UTC; {machine['processor']}, {machine['cores']} cores, features: "
        f"{', '.join(machine['features'])}; {machine['threads']} thread(s); load {machine['load_before']} before and "
        f"{result['load_after']} after",
        f"{versions}",
    ]
    for one in result["translate"]:
        lines += ["", *_translate_table(one, machine["kind"])]
    lines += ["", "| what | goal | reached |", "|---|---|---|"]
    if "startup" in result:
        for name, goal in (("help", 0.2), ("warm", 0.3)):
            value = result["startup"][name]
            what = "`instapipe --help`" if name == "help" else "a run that hits the cache everywhere, 1400x900"
            lines.append(f"| {what} | <= {goal} s | {value['wall']} s on the wall, {value['cpu']} s of processor |")
    for size, peaks in result.get("memory", {}).items():
        ratio = peaks["64"] / max(1, peaks["2"])
        lines.append(
            f"| peak memory above the model, 64 against 2 instances, {size} | <= 1.10 | {ratio:.2f} "
            f"({peaks['64'] / 1e6:.0f} against {peaks['2'] / 1e6:.0f} MB) |"
        )
    lines += [f"| {what} | | not measured by this command |" for what in NOT_HERE]
    return "\n".join(lines)


def _translate_table(one: dict[str, Any], kind: str) -> list[str]:
    """One network's engines."""
    height, width = one["size"]
    fast, tested = ("7x", "28x") if kind == "amx" else ("1.5x", "6x")
    lines = [
        f"**{one['subject']}**, {height}x{width}, {one['instances']} instances, {one['per_step']} a step"
        f"{'' if one['trained'] else ' (random weights: errors and IoU say little)'}. `auto` takes "
        f"{one['auto']['engine']}: {one['auto']['reason']}. "
        f"Goals: float32 1.2x; the default {fast}, {tested} as tested.",
        "",
        "| engine | wall: s, ratio (spread) | processor: s, ratio (spread) | as tested | mean error, max | least IoU |",
        "|---|---|---|---|---|---|",
    ]
    for label, value in one["engines"].items():
        error = value["errors"]
        cells = [
            f"{value[clock]['seconds']:.3f}, {value[clock]['ratio']:.2f}x "
            f"({value[clock]['spread'][0]:.2f}-{value[clock]['spread'][1]:.2f})"
            for clock in ("wall", "cpu")
        ]
        tested_ratio = value["cpu" if one["threads"] == 1 else "wall"]["ratio"] * one["passes_as_tested"]
        worst = (
            [f"{max(error[f'{m} {k}'] for m in ('binary', 'soft')):.1e}" for k in ("mean", "max")]
            if error
            else ["0", "0"]
        )
        overlap = f"{min(error[f'{m} least IoU'] for m in ('binary', 'soft')):.3f}" if error else "1"
        lines.append(f"| {label} | {cells[0]} | {cells[1]} | {tested_ratio:.1f}x | {', '.join(worst)} | {overlap} |")
    return lines


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
