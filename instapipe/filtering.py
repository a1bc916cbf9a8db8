"""Which instances are translated, and in which order: pure, with a reason for each one that is not.

Numbers are an instance's 0-based place in the unfiltered segment order: what people see in file names and overlays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from instapipe.config import Strict
from instapipe.errors import ConfigError, MaskError

if TYPE_CHECKING:
    from instapipe.structures import Instances

Order = Literal["size", "size-ascending", "score", "left-to-right", "random", "given"]


class FilterSettings(Strict):
    """What is kept. `keep` names instances by number and overrules class, score, area, duplicates and the cap."""

    label: str = Field(description="the class that is translated")
    score: float = Field(0.5, ge=0.0, le=1.0, description="lowest score")
    min_area: str = Field("0", description="smallest mask: pixels (400) or a share of the photo (0.5%)")
    duplicates: float = Field(0.8, gt=0.0, le=1.0, description="of two masks with more IoU than this, the better stays")
    order: Order = Field("size", description="what is translated first")
    seed: int = Field(0, ge=0, description="of the random order")
    max_instances: int = Field(20, ge=0, description="at most this many, the first in the order")
    keep: tuple[int, ...] | None = Field(None, description="only these numbers")
    drop: tuple[int, ...] = Field((), description="not these numbers")

    @field_validator("min_area")
    @classmethod
    def _area_is_one(cls, value: str) -> str:
        area_in_pixels(value, (1, 1))
        return value

    @field_validator("keep", "drop")
    @classmethod
    def _numbers(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and any(number < 0 for number in value):
            raise ValueError("instances are numbered from 0")
        return None if value is None else tuple(sorted(set(value)))


@dataclass(frozen=True, slots=True)
class Dropped:
    """One instance that is not translated, and why."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """numbers: what is translated, in this order.  dropped: everything else, by number."""

    numbers: tuple[int, ...]
    dropped: tuple[Dropped, ...]


def area_in_pixels(text: str, size: tuple[int, int]) -> float:
    """ "400" -> 400 pixels; "0.5%" -> that share of a photo of `size` (H, W). Raises ConfigError."""
    number = text.strip()
    try:
        value = float(number.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or (number.endswith("%") and value > 100):
        raise ConfigError(f"minimum area must be pixels (400) or a share of the photo (0.5%), got {text!r}")
    return value / 100 * size[0] * size[1] if number.endswith("%") else value


def choose(instances: Instances, settings: FilterSettings) -> Selection:
    """Apply `settings` to unfiltered `instances`.

    In turn: class, `drop` and `keep`, empty masks, score, area, duplicates, order, cap. Raises MaskError where `keep`
    or `drop` name a number that the photo does not have.
    """
    known = set(instances.numbers)
    for option, numbers in (("keep", settings.keep or ()), ("drop", settings.drop)):
        unknown = [number for number in numbers if number not in known]
        if unknown:
            has = f"instances 0 to {max(known)}" if known else "no instances"
            raise MaskError(f"--{option} {unknown[0]}: the photo has {has}")
    kept_by_name = set(settings.keep or ())
    smallest = area_in_pixels(settings.min_area, instances.size)
    areas = instances.areas
    dropped: dict[int, str] = {}
    candidates: list[int] = []
    for index, (number, label, score) in enumerate(
        zip(instances.numbers, instances.labels, instances.scores, strict=True)
    ):
        reason = None
        if number not in kept_by_name and label != settings.label:
            reason = f"class {label}"
        elif number in settings.drop:
            reason = "dropped by number"
        elif settings.keep is not None and number not in kept_by_name:
            reason = "not among those kept by number"
        elif areas[index] == 0:
            reason = "empty mask"
        elif number not in kept_by_name and score < settings.score:
            reason = f"score {score:.3f} below {settings.score:g}"
        elif number not in kept_by_name and areas[index] < smallest:
            reason = f"area {areas[index]} px below {smallest:g}"
        if reason is None:
            candidates.append(index)
        else:
            dropped[number] = reason
    candidates = _without_duplicates(instances, candidates, settings, dropped)
    ordered = [candidates[i] for i in _order(instances.select(candidates), settings)]
    if settings.keep is None:
        for place, index in enumerate(ordered[settings.max_instances :], settings.max_instances):
            number = instances.numbers[index]
            dropped[number] = f"number {place + 1} in the order, over the cap of {settings.max_instances}"
        ordered = ordered[: settings.max_instances]
    return Selection(
        tuple(instances.numbers[index] for index in ordered),
        tuple(Dropped(number, dropped[number]) for number in sorted(dropped)),
    )


def _without_duplicates(
    instances: Instances, candidates: list[int], settings: FilterSettings, dropped: dict[int, str]
) -> list[int]:
    """`candidates` less those that repeat a better one; best first: named by the user, then score, then number."""
    named = set(settings.keep or ())
    ranked = sorted(
        candidates, key=lambda i: (instances.numbers[i] not in named, -instances.scores[i], instances.numbers[i])
    )
    better: list[int] = []
    for index in ranked:
        number, mask = instances.numbers[index], instances.masks[index]
        rivals = () if number in named else better
        twin = next((other for other in rivals if instances.masks[other].iou(mask) > settings.duplicates), None)
        if twin is None:
            better.append(index)
        else:
            iou = instances.masks[twin].iou(mask)
            dropped[number] = f"duplicate of {instances.numbers[twin]} (mask IoU {iou:.2f})"
    return sorted(better)


def _order(instances: Instances, settings: FilterSettings) -> list[int]:
    """Indices of `instances` in the order of translation; ties go by number."""
    n = len(instances)
    if settings.order == "random":
        import numpy as np  # nothing else here needs it, nor does a run that finds everything in the cache

        return [int(i) for i in np.random.default_rng(settings.seed).permutation(n)]
    keys: dict[str, list[float]] = {
        "size": [-float(area) for area in instances.areas],
        "size-ascending": [float(area) for area in instances.areas],
        "score": [-score for score in instances.scores],
        "left-to-right": [(mask.box[0] + mask.box[2]) / 2 for mask in instances.masks],
        "given": [0.0] * n,
    }
    key = keys[settings.order]
    return sorted(range(n), key=lambda i: (key[i], instances.numbers[i]))
