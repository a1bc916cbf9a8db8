"""One evaluation, end to end: photos, judge, arms and figures, with everything that they depend on written beside."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instapipe import __version__
from instapipe.errors import DataError, UsageError
from instapipe.evaluation.arms import Arm, Translating
from instapipe.evaluation.features import FeatureNetwork, InceptionFeatures, JudgeFeatures
from instapipe.evaluation.masks import MaskQuality, mask_quality
from instapipe.evaluation.study import (
    Progress,
    Reference,
    Study,
    crops_of,
    flat,
    judge_the_judge,
    run_arms,
    trust_of,
)
from instapipe.networks.cards import digest
from instapipe.pipeline.models import Models
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store
from instapipe.verdict.card import DEFAULT
from instapipe.verdict.dataset import LabelledPhoto, read_coco
from instapipe.verdict.detector import Judge, load_judge

ANNOTATIONS = ("instances_val.json", "instances_test.json", "instances.json", "annotations.json")
"""What is looked for in a folder of data, the first that is there."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is evaluated on what.

    annotations: COCO JSON of held-out photos in `images`.  settings: of the translation, before an arm's own.
    command: how it can be done again.  reference: COCO JSON of the training photos (in `images` too).  judge: name or
    folder.  inception: weights file of Inception for the usual FID and KID.  limit: only the first photos.
    """

    annotations: Path
    images: Path
    settings: TranslateSettings
    arms: tuple[Arm, ...]
    command: str
    reference: Path | None = None
    judge: str = DEFAULT
    inception: Path | None = None
    limit: int | None = None
    seed: int = 0


def find_data(data: Path, images: Path | None) -> tuple[Path, Path]:
    """(annotations, folder of the photos) for a COCO file or a folder that holds one. Raises DataError."""
    if data.is_dir():
        found = [data / name for name in ANNOTATIONS if (data / name).is_file()]
        if not found:
            raise DataError(f"no {', '.join(ANNOTATIONS)} in {str(data)!r}; name the COCO JSON itself")
        data = found[0]
    folder = images or data.parent / "images"
    if not folder.is_dir():
        raise DataError(f"no folder of photos at {str(folder)!r}; give --images")
    return data, folder


def evaluate(request: Request, store: Store, progress: Progress) -> Study:
    """Do it. Raises DataError, MaskError, UsageError, WeightsError."""
    source, target = request.settings.source, request.settings.target
    listed = read_coco(request.annotations, request.images)
    photos = _with(listed, source)[: request.limit]
    if not photos:
        raise DataError(f"no photo of {str(request.annotations)!r} has a {source!r}")
    judge = load_judge(request.judge)
    _check_classes(judge, source, target)
    known = _with(read_coco(request.reference, request.images), target) if request.reference else []
    networks: list[FeatureNetwork] = [JudgeFeatures(judge)]
    if request.inception is not None:
        networks.append(InceptionFeatures(request.inception))
    crops = Reference(flat(crops_of(_with(listed, target), target)), flat(crops_of(known, target)))
    with (
        Models(request.settings.device, store.artefacts) as models,
        tempfile.TemporaryDirectory(prefix="instapipe-") as scratch,
    ):
        ways = {
            arm.name: Translating(arm, request.settings, photos, store, models, Path(scratch), request.seed)
            for arm in request.arms
        }
        trust = trust_of(judge, digest(request.annotations), target) or judge_the_judge(listed, judge, target, progress)
        study = run_arms(
            ways, photos, judge, networks, crops, source=source, target=target, seed=request.seed, progress=progress
        )
        metrics = _described(request, photos, ways, trust, study)
    return Study(metrics, study.scored)


def _described(
    request: Request, photos: list[LabelledPhoto], ways: dict[str, Translating], trust: dict[str, Any], study: Study
) -> dict[str, Any]:
    """`metrics.json`: the figures and all that they depend on."""
    arms = study.metrics["arms"]
    formats = sorted({photo.path.suffix.lstrip(".").lower() for photo in photos})
    return {
        "format": 1,
        "task": {"source": request.settings.source, "target": request.settings.target},
        "command": request.command,
        "versions": {"instapipe": __version__},
        "data": {
            "file": request.annotations.name,
            "split": request.annotations.stem.rpartition("_")[2],
            "photos": len(photos),
            "instances": next(iter(arms.values()))["instances"],
            "format": f"{', '.join(formats)} in, png out",
        },
        "weights": next((way.weights() for way in ways.values() if way.arm.masks != "none"), None),
        "judge": trust,
        "seed": request.seed,
        "arms": {name: {"made": ways[name].provenance(), **arm} for name, arm in arms.items()},
        "masks": {
            name: _record(mask_quality(way.selected, request.settings.source))
            for name, way in ways.items()
            if way.arm.masks == "predicted" or way.arm.fault != "none"
        },
    }


def _with(photos: list[LabelledPhoto], label: str) -> list[LabelledPhoto]:
    return [photo for photo in photos if label in photo.instances.labels]


def _check_classes(judge: Judge, *labels: str) -> None:
    for label in labels:
        if label not in judge.classes:
            raise UsageError(f"judge {judge.name!r} does not know {label!r}; it knows {', '.join(judge.classes)}")


def _record(quality: MaskQuality) -> dict[str, float | None]:
    values: dict[str, float] = dataclasses.asdict(quality)
    return {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}
