"""Which predicted masks are good enough to learn from, and why the others are not.

Stricter than the filter of translation: a bad mask in translation costs one picture, in training it teaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from instapipe.config import Strict
from instapipe.data.geometry import outline_on_border
from instapipe.structures import Instances, Mask

SAME = 0.8
"""Masks of a higher IoU are of one animal."""


class Gate(Strict):
    """What a predicted mask must keep to."""

    score: float = Field(0.7, ge=0, le=1, description="lowest score")
    min_area: float = Field(0.005, ge=0, le=1, description="least share of the photo")
    max_area: float = Field(0.9, ge=0, le=1, description="largest share of the photo")
    border: float = Field(0.3, ge=0, le=1, description="share of the box's outline that may lie on the photo's border")
    overlap: float = Field(0.3, ge=0, le=1, description="share of the mask that another instance may cover too")
    rival: float = Field(0.5, ge=0, le=1, description="others of a lower score do not count as overlapping")
    seen: float = Field(0.3, ge=0, le=1, description="what scores less is taken as not there")


@dataclass(frozen=True, slots=True)
class Judged:
    """index: of the instance.  reason: why it is refused, None where it is not.

    counts: refused, but there: windows around others must not show it unnoticed.
    """

    index: int
    reason: str | None
    counts: bool = False


def judge(instances: Instances, label: str, gate: Gate) -> list[Judged]:
    """Judge the instances of `label` in unfiltered `instances`, best first; below `gate.seen` they are none."""
    ranked = sorted(range(len(instances)), key=lambda i: (-instances.scores[i], instances.numbers[i]))
    judged: list[Judged] = []
    for index in (i for i in ranked if instances.labels[i] == label and instances.scores[i] >= gate.seen):
        mask, score = instances.masks[index], instances.scores[index]
        reason = _refuse(instances, index, mask, score, gate)
        # What repeats a better mask is no other animal.
        counts = reason is not None and not reason.startswith("repeats")
        judged.append(Judged(index, reason, counts))
    return judged


def _refuse(instances: Instances, index: int, mask: Mask, score: float, gate: Gate) -> str | None:
    height, width = instances.size
    share = mask.area / max(1, height * width)
    border = outline_on_border(mask)
    if score < gate.score:
        return f"score {score:.2f} below {gate.score:g}"
    if share < gate.min_area or mask.area == 0:
        return f"covers {share:.2%} of the photo, less than {gate.min_area:.2%}"
    if share > gate.max_area:
        return f"covers {share:.0%} of the photo, more than {gate.max_area:.0%}"
    if border > gate.border:
        return f"{border:.0%} of its outline on the photo's border, more than {gate.border:.0%}"
    for other in range(len(instances)):
        if other == index or instances.scores[other] < gate.rival:
            continue
        shared = int(np.count_nonzero(mask.crop & instances.masks[other].window(mask.box)))
        if shared <= gate.overlap * mask.area:
            continue
        name = f"{instances.labels[other]} {instances.scores[other]:.2f} (no. {instances.numbers[other]})"
        if mask.iou(instances.masks[other]) > SAME:
            if (instances.scores[other], -other) < (score, -index):
                continue  # the worse of two that are the same is the one to go, whatever it is called
            if instances.labels[other] == instances.labels[index]:
                return f"repeats {name}"
        return f"{shared / mask.area:.0%} is also {name}"
    return None
