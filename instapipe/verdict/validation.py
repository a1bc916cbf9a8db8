"""Whether the judge can be believed: what it says of untouched photos whose animals are known.

Valid means: at most :data:`MOST_FALSE` of the source animals are called the target, and at least :data:`LEAST_FOUND` of
the real targets are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from instapipe.structures import Instances
from instapipe.verdict.intervals import Share
from instapipe.verdict.matching import FOUND_IOU, LEAST_SIDE, ious

MOST_FALSE = 0.02
LEAST_FOUND = 0.85


@dataclass(frozen=True, slots=True)
class Validity:
    """called_target: source animals that the best matching detection calls the target.  found: real targets that are
    seen as such.  recognised: source animals seen as what they are.  phantom: photos without a target in which one is
    seen somewhere."""

    target: str
    called_target: Share
    found: Share
    recognised: Share
    phantom: Share

    @property
    def valid(self) -> bool:
        """Whether both bars are met (by the point estimates; the intervals are printed beside them)."""
        return self.called_target.value <= MOST_FALSE and self.found.value >= LEAST_FOUND

    def record(self) -> dict[str, Any]:
        """For JSON."""
        names = ("called_target", "found", "recognised", "phantom")
        return {"target": self.target, "valid": self.valid, **{n: getattr(self, n).record() for n in names}}


def validate(seen: Sequence[tuple[Instances, Instances]], target: str, least: float = 0.0) -> Validity:
    """Judge the judge on (listed, detected) instances of untouched photos; detections under `least` are ignored.

    Counted are listed instances with a side of at least LEAST_SIDE pixels.
    """
    calls = {"called": 0, "found": 0, "recognised": 0}
    sources = targets = phantoms = clear = 0
    for listed, detected in seen:
        kept = detected.select(i for i, score in enumerate(detected.scores) if score >= least)
        table = ious(listed.masks, kept.masks)
        for row, (label, mask) in enumerate(zip(listed.labels, listed.masks, strict=True)):
            if max(mask.box[2] - mask.box[0], mask.box[3] - mask.box[1]) < LEAST_SIDE:
                continue
            best = int(table[row].argmax()) if len(kept) else -1
            said = kept.labels[best] if best >= 0 and table[row, best] >= FOUND_IOU else None
            if label == target:
                targets += 1
                calls["found"] += said == target
            else:
                sources += 1
                calls["called"] += said == target
                calls["recognised"] += said == label
        if target not in listed.labels:
            clear += 1
            phantoms += target in kept.labels
    return Validity(
        target,
        Share(calls["called"], sources),
        Share(calls["found"], targets),
        Share(calls["recognised"], sources),
        Share(phantoms, clear),
    )
