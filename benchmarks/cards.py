"""Writes `weights/README.md`, a card for each set of weights, from the card files: `python benchmarks/cards.py`."""

from __future__ import annotations

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


if __name__ == "__main__":
    (WEIGHTS / "README.md").write_text(text(), encoding="utf-8")
