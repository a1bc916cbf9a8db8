"""From scored cases to figures: each with its N and an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instapipe.evaluation.distribution import diversity, fid, kid, nearest
from instapipe.evaluation.features import FeatureNetwork
from instapipe.evaluation.scoring import ScoredCase, ScoredInstance
from instapipe.structures import Pixels
from instapipe.verdict.intervals import Share, bootstrap, half_sample_interval
from instapipe.verdict.matching import KINDS

Record = dict[str, Any]
SLICES: dict[str, list[tuple[str, Callable[[ScoredInstance], bool]]]] = {
    "instances in the photo": [
        ("1", lambda row: row.count == 1),
        ("2", lambda row: row.count == 2),
        ("3 to 4", lambda row: 3 <= row.count <= 4),
        ("5 and more", lambda row: row.count >= 5),
    ],
    "longer side": [
        ("48 to 95 px", lambda row: row.side < 96),
        ("96 to 191 px", lambda row: 96 <= row.side < 192),
        ("192 px and more", lambda row: row.side >= 192),
    ],
    "overlap of boxes": [
        ("none", lambda row: row.overlap == 0),
        ("under 0.2", lambda row: 0 < row.overlap < 0.2),
        ("0.2 and more", lambda row: row.overlap >= 0.2),
    ],
    "mask drawn by": [
        ("a human", lambda row: row.made_by == "human"),
        ("a model", lambda row: row.made_by == "model"),
    ],
}


def summarise(cases: Sequence[ScoredCase], target: str, *, seed: int = 0, draws: int = 1000) -> Record:
    """The figures of one arm, ready for JSON. Counted are the source instances that verdicts mark as such."""
    rng = np.random.default_rng(seed)
    rows = counted(cases)
    per_photo = [[row for row in case.instances if row.counted] for case in cases]
    per_photo = [group for group in per_photo if group]
    verdicts: Record = {}
    for kind in KINDS[:-1]:
        share = Share(sum(row.kind == kind for row in rows), len(rows))
        low, high = bootstrap(per_photo, partial(_share_of, kind=kind), rng=rng, draws=draws)
        verdicts[kind] = {**share.record(), "bootstrap": [_clean(low), _clean(high)]}
    hallucinated = sum(row.kind == "hallucinated" for case in cases for row in case.instances)
    touched = [row for row in rows if row.touched]
    translated = [row.iou for row in rows if row.kind == "translated"]
    return {
        "photos": len(cases),
        "instances": len(rows),
        "verdicts": verdicts,
        "hallucinated": {"per_photo": _clean(hallucinated / len(cases) if cases else math.nan), "n": hallucinated},
        "missed_by_the_pipeline": Share(len(rows) - len(touched), len(rows)).record(),
        "count_kept": Share(sum(case.seen == case.wanted for case in cases), len(cases)).record(),
        "seen_per_wanted": _clean(_ratio(sum(c.seen for c in cases), sum(c.wanted for c in cases))),
        "mask_iou": {**_spread(translated), "what": "judge's outline with the returned mask, translated instances"},
        "classification": {
            "crops": Share(sum(row.called == target for row in rows), len(rows)).record(),
            "crops_of_the_touched": Share(sum(row.called == target for row in touched), len(touched)).record(),
            "whole_photos": Share(sum(case.whole == target for case in cases), len(cases)).record(),
            "crops_called": _tally(row.called or "untouched" for row in rows),
        },
        "background": {
            "l1": _spread([case.background.l1 for case in cases]),
            "ssim": _spread([case.background.ssim for case in cases]),
            "identical": _spread([case.background.identical for case in cases]),
            "perceptual": _spread([case.perceptual for case in cases]),
            "photos_changed_outside_the_declared_region": sum(case.outside_changed > 0 for case in cases),
        },
        "foreign_colours_where_vacated": _spread([row.foreign for row in touched]),
        "slices": {
            name: {label: _slice([row for row in rows if inside(row)]) for label, inside in parts}
            for name, parts in SLICES.items()
        },
    }


def counted(cases: Sequence[ScoredCase]) -> list[ScoredInstance]:
    """The rows that make the denominator."""
    return [row for case in cases for row in case.instances if row.counted]


def distances(
    outputs: Sequence[Sequence[Pixels]],
    real: Sequence[Pixels],
    untouched: Sequence[Sequence[Pixels]],
    known: Sequence[Pixels],
    network: FeatureNetwork,
    *,
    seed: int = 0,
) -> Record:
    """KID, FID, nearest known crop and diversity of output crops, grouped by photo, in the features of `network`.

    real: held-out crops of the target.  untouched: crops of the source animals, what a copy would score.  known:
    training crops of the target, for the question whether outputs are copies of them.
    """
    rng = np.random.default_rng(seed)
    made, were = ([network(list(group)) for group in groups if group] for groups in (outputs, untouched))
    truth, seen = network(list(real)), network(list(known))
    flat, source = _join(made, truth), _join(were, truth)
    own, theirs = kid(flat, truth), kid(source, truth)
    low, high = half_sample_interval(made, lambda drawn: kid(np.concatenate(drawn), truth), rng=rng)
    return {
        "features": network.name,
        "crops": len(flat),
        "real": len(truth),
        f"kid_{network.name}": {"value": _clean(own), "interval": [_clean(low), _clean(high)]},
        f"kid_{network.name}_of_untouched_sources": _clean(theirs),
        "kid_ratio": _clean(_ratio(own, theirs)),
        f"fid_{network.name}": _clean(fid(flat, truth)),
        f"fid_{network.name}_of_untouched_sources": _clean(fid(source, truth)),
        "nearest_training_crop": {
            "training_crops": len(seen),
            "outputs": _spread(nearest(flat, seen).tolist()),
            "real_held_out": _spread(nearest(truth, seen).tolist()),
        },
        "diversity": {"outputs": _clean(diversity(flat)), "real": _clean(diversity(truth))},
    }


def _join(groups: Sequence[NDArray[np.float32]], like: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate(groups) if groups else like[:0]


def _share_of(groups: list[list[ScoredInstance]], kind: str) -> float:
    total = sum(len(group) for group in groups)
    return _ratio(sum(row.kind == kind for group in groups for row in group), total)


def _slice(rows: Sequence[ScoredInstance]) -> Record:
    return {
        "n": len(rows),
        "translated": Share(sum(row.kind == "translated" for row in rows), len(rows)).record(),
        "residual": Share(sum(row.kind == "residual" for row in rows), len(rows)).record(),
    }


def _spread(values: Sequence[float]) -> Record:
    known = np.array([value for value in values if not math.isnan(value)])
    if not known.size:
        return {"n": 0, "mean": None, "median": None, "p10": None, "p90": None}
    low, middle, high = np.percentile(known, [10, 50, 90])
    return {
        "n": int(known.size),
        "mean": _clean(float(known.mean())),
        "median": _clean(float(middle)),
        "p10": _clean(float(low)),
        "p90": _clean(float(high)),
    }


def _tally(values: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _clean(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 6)
