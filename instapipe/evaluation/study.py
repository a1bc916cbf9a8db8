"""An evaluation: arms of translated photos, scored by one judge, summed up, written down."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instapipe.evaluation.cases import Case
from instapipe.evaluation.features import FeatureNetwork, cut_out
from instapipe.evaluation.masks import large
from instapipe.evaluation.report import render
from instapipe.evaluation.scoring import ScoredCase, ScoredInstance, score_case
from instapipe.evaluation.summary import Record, distances, summarise
from instapipe.imaging import write_atomically
from instapipe.structures import Instances, Mask, Pixels
from instapipe.verdict.dataset import LabelledPhoto
from instapipe.verdict.detector import Judge
from instapipe.verdict.intervals import Share
from instapipe.verdict.validation import Validity, validate

MakeCase = Callable[[LabelledPhoto], Case]
"""How an arm translates one photo."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far, of how many."""


@dataclass(frozen=True, slots=True)
class Study:
    """metrics: for `metrics.json`, all but the arms' provenance, which the caller knows.  scored: by arm."""

    metrics: Record
    scored: Mapping[str, Sequence[ScoredCase]]


@dataclass(frozen=True, slots=True)
class Reference:
    """Crops on grey that outputs are compared with.

    real: held-out crops of the target.  known: training crops of the target, which outputs should not be copies of.
    """

    real: Sequence[Pixels]
    known: Sequence[Pixels] = ()


def crops_of(
    photos: Sequence[LabelledPhoto], label: str, shown: Callable[[Pixels, Mask], Pixels] = cut_out
) -> list[list[Pixels]]:
    """The instances of class `label` as `shown`, cut out on grey, grouped by photo; small ones left out."""
    return [
        [
            shown(pixels, mask)
            for name, mask in zip(photo.instances.labels, photo.instances.masks, strict=True)
            if name == label and large(mask)
        ]
        for photo in photos
        if label in photo.instances.labels
        for pixels in [photo.pixels()]
    ]


def flat(groups: Sequence[Sequence[Pixels]]) -> list[Pixels]:
    """All crops of all photos."""
    return [crop for group in groups for crop in group]


def judge_the_judge(photos: Sequence[LabelledPhoto], witness: Judge, target: str, progress: Progress) -> Record:
    """Its validity on untouched photos, and the accuracy of its classifier on real crops and whole photos."""
    seen: list[tuple[Instances, Instances]] = []
    right = crops = whole_right = whole = 0
    names = ("background", *witness.classes)
    for number, photo in enumerate(photos):
        pixels = photo.pixels()
        seen.append((photo.instances, witness.detect(pixels).instances))
        boxes = [mask.box for mask in photo.instances.masks if large(mask)]
        labels = [n for n, mask in zip(photo.instances.labels, photo.instances.masks, strict=True) if large(mask)]
        said = witness.classify(pixels, boxes)
        right += sum(names[int(row.argmax())] == label for row, label in zip(said, labels, strict=True))
        crops += len(labels)
        if len(set(photo.instances.labels)) == 1:
            height, width = photo.instances.size
            said = witness.classify(pixels, [(0, 0, width, height)])
            whole_right += names[int(said[0].argmax())] == photo.instances.labels[0]
            whole += 1
        progress("judging the judge", number + 1, len(photos))
    validity: Validity = validate(seen, target)
    return {
        "name": witness.name,
        "sha256": witness.card.sha256,
        "threshold": witness.card.threshold,
        "validity": validity.record(),
        "accuracy_on_real_crops": Share(right, crops).record(),
        "accuracy_on_real_photos_of_one_class": Share(whole_right, whole).record(),
    }


def trust_of(witness: Judge, data_sha256: str, target: str) -> Record | None:
    """What the judge's card says of these very photos, in the form of :func:`judge_the_judge`.

    None where the card was measured on others: `data_sha256` is the digest of the COCO file.
    """
    quality = witness.card.quality
    if quality.get("data_sha256") != data_sha256 or target not in quality["by_class"]:
        return None
    return {
        "name": witness.name,
        "sha256": witness.card.sha256,
        "threshold": witness.card.threshold,
        "validity": quality["by_class"][target],
        "accuracy_on_real_crops": quality["crop_accuracy"],
        "accuracy_on_real_photos_of_one_class": quality.get("photo_accuracy"),
        "measured": "on these photos, when these weights were released",
    }


def run_arms(
    arms: Mapping[str, MakeCase],
    photos: Sequence[LabelledPhoto],
    witness: Judge,
    networks: Sequence[FeatureNetwork],
    reference: Reference,
    *,
    source: str,
    target: str,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Study:
    """Translate `photos` by every arm and score what comes out. Cases are dropped as soon as they are scored."""
    untouched = crops_of(photos, source)
    summaries: Record = {}
    scored: dict[str, list[ScoredCase]] = {}
    for name, make in arms.items():
        cases: list[ScoredCase] = []
        wanted = target
        for number, photo in enumerate(photos):
            case = make(photo)
            wanted = case.wanted or target
            cases.append(score_case(case, witness, source=source, target=target))
            progress(name, number + 1, len(photos))
        outputs = [_counted_crops(case) for case in cases]
        summaries[name] = {
            **summarise(cases, wanted, seed=seed),
            "distances": [
                distances(outputs, reference.real, untouched, reference.known, network, seed=seed)
                for network in networks
            ],
        }
        scored[name] = cases
    return Study({"arms": summaries}, scored)


def _counted_crops(case: ScoredCase) -> list[Pixels]:
    return [crop for crop, row in zip(case.crops, case.rows, strict=True) if case.instances[row].counted]


def write_study(study: Study, folder: Path) -> dict[str, Path]:
    """Write `metrics.json`, `instances.csv` and `report.html`; returns where. Raises OutputError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in ("metrics.json", "instances.csv", "report.html")}
    text = json.dumps(study.metrics, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(paths["metrics.json"], (text + "\n").encode())
    write_atomically(paths["instances.csv"], table(study.scored).encode())
    write_atomically(paths["report.html"], render(study.metrics, study.scored).encode())
    return paths


def table(scored: Mapping[str, Sequence[ScoredCase]]) -> str:
    """One row an instance, as CSV; the columns are those of ScoredInstance, after the arm."""
    names = [field.name for field in dataclasses.fields(ScoredInstance)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", *names])
    for arm, cases in scored.items():
        for case in cases:
            for row in case.instances:
                writer.writerow([arm, *(_cell(getattr(row, name)) for name in names)])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else round(value, 4)
    return value
