"""`make bench`: the goals and what this machine reaches, as a table and as a file in `benchmarks/results/`.

Everything is a ratio against the plain reading of the original (baseline.py) in the same run. Two clocks: the wall's,
and the processor time of this process, which other programs on the machine disturb less (its ratios mean something only
where both sides run on one thread).

`--rounds N`: side-by-side rounds (median and spread are over them). `--quick`: the networks only, fewer rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import folder
import hardware
import memory
import segment
import speed
import startup

RESULTS = Path(__file__).resolve().parent / "results"
SECTIONS = ("translate", "segment", "folder", "startup", "memory")
PHOTOS = 100


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--photos", type=int, default=PHOTOS, help="in the folder")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--weights", action="append", default=[], help="more weights to measure: a name or a folder")
    parser.add_argument("--skip", action="append", default=[], help="an engine and precision to leave out, as printed")
    parser.add_argument("--only", default=None, help="measure this network alone, as printed")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    asked = parser.parse_args()
    sections = ["translate"] if asked.quick else asked.sections
    rounds = 2 if asked.quick else asked.rounds
    path = asked.output or RESULTS / f"{hardware.kind()}.json"
    result: dict[str, Any] = {"taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "hardware": hardware.facts()}
    _say(json.dumps(result["hardware"]))
    for section in sections:
        _say(section)
        start = time.perf_counter()
        result[section] = _measured(section, rounds, asked)
        result.setdefault("seconds", {})[section] = round(time.perf_counter() - start)
        result["load_after"] = hardware.facts()["load_before"]
        # After each section: a run that is stopped has not been for nothing.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(table(result) + "\n", encoding="utf-8")
    print(table(result))
    _say(f"{path} ({sum(result['seconds'].values())} s)")
    return 0


def _measured(section: str, rounds: int, asked: argparse.Namespace) -> Any:
    """One section of the result; None where there is nothing to measure."""
    if section == "translate":
        subjects = [one for one in speed.subjects(asked.weights) if asked.only in (None, one.name)]
        return [speed.measure(one, rounds, _say, skip=asked.skip) for one in subjects]
    if section == "segment":
        return segment.measure(max(3, rounds))
    if section == "folder":
        return folder.measure(asked.photos)
    if section == "startup":
        return {"help": startup.help_seconds(), **startup.warm_seconds()}
    if sys.platform != "linux":
        return None
    return {
        f"{h}x{w}": {str(n): memory.peak_above_model((h, w), n) for n in (2, 64)} for h, w in ((200, 200), (3648, 5472))
    }


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
    for one in result.get("translate", []):
        lines += ["", *_translate_table(one, machine["kind"])]
    if not any(result.get(name) for name in SECTIONS[1:]):
        return "\n".join(lines)
    lines += ["", "| what | goal | reached |", "|---|---|---|"]
    if result.get("segment"):
        lines.append(_segment_row(result["segment"]))
    if result.get("folder"):
        lines.append(_folder_row(result["folder"]))
    if result.get("startup"):
        warm = "a run that hits the cache everywhere, 1400x900, masks"
        for name, what, goal in (
            ("help", "`instapipe --help`", 0.2),
            ("predicted", f"{warm} predicted", 0.3),
            ("given", f"{warm} given", 0.3),
        ):
            value = result["startup"][name]
            lines.append(f"| {what} | <= {goal} s | {value['wall']} s on the wall, {value['cpu']} s of processor |")
    for size, peaks in (result.get("memory") or {}).items():
        ratio = peaks["64"] / max(1, peaks["2"])
        lines.append(
            f"| peak memory above the model, 64 against 2 instances, {size} | <= 1.10 | {ratio:.2f} "
            f"({peaks['64'] / 1e6:.0f} against {peaks['2'] / 1e6:.0f} MB) |"
        )
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


def _segment_row(one: dict[str, Any]) -> str:
    own, other = one["seconds"].values()
    clock = "cpu" if one["threads"] == 1 else "wall"
    ratios = [b / a for a, b in zip(own[clock], other[clock], strict=True)]
    return (
        f"| segment one 1-megapixel photo ({next(iter(one['seconds']))}), against torchvision's maskrcnn_resnet50_fpn "
        f"| 4x | {statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f}); "
        f"{statistics.median(own[clock]):.2f} s against {statistics.median(other[clock]):.2f} s, {clock} |"
    )


def _folder_row(one: dict[str, Any]) -> str:
    failed = f"{one['failed']} FAILED, " if one["failed"] else ""
    busy = one["cpu"] / one["wall"] / (os.cpu_count() or 1)
    return (
        f"| folder of {one['photos']} photos of 1024x768: time outside the networks | <= 5 % "
        f"| {failed}{100 * one['share_outside']:.1f} % of {one['wall']:.0f} s, the processors {100 * busy:.0f} % busy; "
        f"{one['instances']} instances, {one['engine']['engine']} {one['engine']['precision']} |"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
