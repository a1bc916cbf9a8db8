"""Writes `weights/README.md`, a card for each set of weights, from the card files: `python benchmarks/cards.py`.

With `--measured WEIGHTS METRICS.json`, what `instapipe evaluate` found of them goes into their card first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
HEAD = """# Bundled weights

One folder for each set of weights, named with its version and never overwritten: `card.json` (what it is, what it was
trained on, how, what it measured, its limits, its licence) beside the safetensors files that the card names with their
digests. `instapipe weights list | show NAME | verify` read them. Together they stay below 70 MB, and the wheel carries
them. The sections below are made from the cards by `python benchmarks/cards.py`; a test holds them together.
"""
FIELDS = ("data", "provenance", "recipe", "steps", "hardware", "time", "limits", "licence")


SKIPPED = ("target", "bootstrap", "classes")
"""Said elsewhere in the card, or too long for a page."""


def share(value: dict[str, Any]) -> str:
    """`59 of 83 (71 %, 95 % interval 61 to 80)`"""
    low, high = (100 * bound for bound in value["interval"])
    return f"{value['hits']} of {value['n']} ({100 * value['value']:.0f} %, 95 % interval {low:.0f} to {high:.0f})"


def quality(facts: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines for what was measured; of deep records the shares and the plain figures only."""
    lines = []
    for name, value in facts.items():
        where = f"{prefix}{name}".replace("_", " ")
        if name in SKIPPED or (isinstance(value, dict) and value.get("n") == 0):
            continue
        if isinstance(value, dict) and {"hits", "n", "interval"} <= value.keys():
            lines.append(f"- {where}: {share(value)}")
        elif isinstance(value, dict):
            lines += quality(value, f"{where}, ")
        elif isinstance(value, str) and not name.endswith("sha256"):
            lines.append(f"- {where}: {value}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            lines.append(f"- {where}: {value:.4g}")
    return lines


def section(card: dict[str, Any], folder: Path) -> str:
    """One card as Markdown."""
    lines = [f"## {card['name']}", ""]
    files = card.get("directions") or {card["kind"]: {"file": card["file"], "sha256": card["sha256"]}}
    files = {**files, **{what: card[what] for what in ("grader", "upscaler") if card.get(what)}}
    for direction, entry in files.items():
        size = (folder / entry["file"]).stat().st_size / 1e6
        lines.append(f"- **{direction}**: `{entry['file']}`, {size:.1f} MB, sha256 `{entry['sha256']}`")
    lines += [f"- **{field}**: {card[field]}" for field in FIELDS if card.get(field)]
    return "\n".join([*lines, "", "Measured:", "", *quality(card["quality"]), ""])


def text() -> str:
    """The whole README."""
    cards = [
        (json.loads(path.read_text(encoding="utf-8")), path.parent) for path in sorted(WEIGHTS.glob("*/card.json"))
    ]
    return "\n".join([HEAD, *(section(card, folder) for card, folder in cards)]).rstrip() + "\n"


def measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a translator's card says of the figures of one evaluation."""
    source = metrics["task"]["source"]
    judge, arms = metrics["judge"], metrics["arms"]
    kept = {
        "judge": judge["name"],
        "judge_validity": {name: judge["validity"][name] for name in ("called_target", "found")},
        "data": f"{metrics['data']['file']}: all instances of the source with a side of at least 48 px",
    }
    for arm in ("given masks", "predicted masks"):
        if arm in arms:
            kept[f"{source}, {arm}"] = _arm(arms[arm]) | _crops(arms[arm])
    kept[f"the real {source}, seen as {source} by the same rules"] = _arm(arms["untouched, as they are"])
    return kept


def _arm(arm: dict[str, Any]) -> dict[str, Any]:
    return {name: arm[name] for name in ("photos", "instances", "verdicts", "count_kept")}


def _crops(arm: dict[str, Any]) -> dict[str, Any]:
    return {
        "mask_iou_median": round(arm["mask_iou"]["median"], 3),
        "crops_called_target": arm["classification"]["crops"],
        "distances": arm["distances"][0],
    }


def main() -> None:
    """Card first, if asked; then the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", nargs=2, metavar=("WEIGHTS", "METRICS"))
    asked = parser.parse_args()
    if asked.measured:
        path = WEIGHTS / asked.measured[0] / "card.json"
        card, metrics = json.loads(path.read_text()), json.loads(Path(asked.measured[1]).read_text())
        known = {entry["sha256"] for entry in card["directions"].values()}
        if metrics["weights"]["sha256"] not in known:
            raise SystemExit(f"{asked.measured[1]}: of {metrics['weights']['name']}, not of {card['name']}")
        card["quality"] = {"selection": card["quality"].get("selection", "")} | measured(metrics)
        path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (WEIGHTS / "README.md").write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
