"""A trained judge becomes weights with a card: settings chosen on photos kept back, quality measured on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instapipe.structures import Instances
from instapipe.verdict.card import JudgeCard
from instapipe.verdict.dataset import LabelledPhoto
from instapipe.verdict.detector import Judge, save_judge
from instapipe.verdict.intervals import Share
from instapipe.verdict.matching import FOUND_IOU, ious
from instapipe.verdict.network import JudgeNetwork
from instapipe.verdict.training import JudgeRecipe
from instapipe.verdict.validation import validate

SIDES = (320,)
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
Seen = list[tuple[Instances, Instances]]
Progress = Callable[[str, int, int], None]


def release(
    network: JudgeNetwork,
    recipe: JudgeRecipe,
    calibration: Sequence[LabelledPhoto],
    held_out: Sequence[LabelledPhoto],
    folder: Path,
    target: str,
    facts: dict[str, Any],
    data_sha256: str,
    progress: Progress = lambda what, done, total: None,
) -> JudgeCard:
    """Write `network` to `folder`; its side and threshold are chosen on `calibration`, its card's quality is measured
    on `held_out`. `facts`: further fields of the card (data, licence, ...). `data_sha256`: of the COCO file of these:
    an evaluation on the same photos need not measure again."""
    bare = JudgeCard(
        name=folder.name, classes=recipe.classes, file=f"{folder.name}.safetensors", sha256="", dtype="float16",
        crop_side=recipe.crop_side, steps=recipe.steps, **facts,
    )  # fmt: skip
    ranked = []
    for side in SIDES:
        card = bare.model_copy(update={"side": side, "threshold": THRESHOLDS[0]})
        seen = look(Judge(card, network), calibration, progress)
        threshold = choose(seen)
        ranked.append((correctness(seen, threshold), -side, threshold))
    _, side, threshold = max(ranked)
    card = bare.model_copy(update={"side": -side, "threshold": threshold})
    # Half precision is what users get: what is measured is what is written.
    card = save_judge(network, card, folder)
    network.load_state_dict(
        {k: v.half().float() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    )
    judge = Judge(card, network)
    seen = look(judge, held_out, progress)
    quality = {
        "photos": len(held_out),
        "data_sha256": data_sha256,
        "target": target,
        "by_class": {name: validate(seen, name).record() for name in recipe.classes},
        "median_iou_of_the_found": round(float(np.median(matched(seen))), 4),
        "crop_accuracy": accuracy(judge, held_out).record(),
    }
    return save_judge(network, card.model_copy(update={"quality": quality}), folder)


def look(judge: Judge, photos: Sequence[LabelledPhoto], progress: Progress) -> Seen:
    """(listed, detected) of each photo, at the card's threshold."""
    seen = []
    for number, photo in enumerate(photos):
        seen.append((photo.instances, judge.detect(photo.pixels()).instances))
        progress(f"{len(photos)} photos at {judge.card.side}", number + 1, len(photos))
    return seen


def correctness(seen: Seen, threshold: float) -> float:
    """What is recognised less what is invented, as a share of what is listed."""
    right = wrong = listed = 0
    for given, detected in seen:
        kept = detected.select(i for i, score in enumerate(detected.scores) if score >= threshold)
        table = ious(given.masks, kept.masks)
        listed += len(given)
        for column, label in enumerate(kept.labels):
            row = int(table[:, column].argmax()) if len(given) else -1
            hit = row >= 0 and table[row, column] >= FOUND_IOU and given.labels[row] == label
            right += hit
            wrong += not hit
    return (right - wrong) / max(1, listed)


def choose(seen: Seen) -> float:
    """The threshold of THRESHOLDS at which :func:`correctness` is best; the lowest of equals, because a detection that
    is dropped makes a translated animal look lost."""
    scores = [correctness(seen, threshold) for threshold in THRESHOLDS]
    return THRESHOLDS[scores.index(max(scores))]


def matched(seen: Seen) -> list[float]:
    """The IoU of every listed instance that was found at all."""
    best = [row.max() for given, detected in seen for row in ious(given.masks, detected.masks) if row.size]
    return [float(value) for value in best if value >= FOUND_IOU]


def accuracy(judge: Judge, photos: Sequence[LabelledPhoto]) -> Share:
    """Of the crop classifier, on every listed instance's box."""
    names = ("background", *judge.classes)
    hits = n = 0
    for photo in photos:
        said = judge.classify(photo.pixels(), [mask.box for mask in photo.instances.masks])
        hits += sum(names[int(row.argmax())] == label for row, label in zip(said, photo.instances.labels, strict=True))
        n += len(photo.instances)
    return Share(hits, n)
