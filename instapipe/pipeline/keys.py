"""Keys from content: the same inputs give the same key on every machine, whatever their paths are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from instapipe.structures import Instances, Mask

Json = Mapping[str, Any]

# A stage's version is raised whenever the same inputs give other bytes.
DECODE_VERSION = 1
SEGMENT_VERSION = 2
FILTER_VERSION = 2
TRANSLATE_VERSION = 18
OUTPUT_VERSION = 5


def canonical(content: Any) -> bytes:
    """JSON in one form: sorted, no spaces, UTF-8; NaN refused."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def key_of(inputs: Json) -> str:
    """sha256 (hex) of the canonical form."""
    return hashlib.sha256(canonical(inputs)).hexdigest()


def mask_digest(mask: Mask) -> str:
    """sha256 (hex) of a mask: photo size, box and pixels."""
    head = canonical([list(mask.size), list(mask.box)])
    return hashlib.sha256(head + np.packbits(mask.crop).tobytes()).hexdigest()


def instance_records(instances: Instances) -> list[dict[str, Any]]:
    """What keys, plans and reports need to know of each instance, without its pixels."""
    return [
        {
            "number": number,
            "label": label,
            "score": round(float(score), 6),
            "box": list(mask.box),
            "area": mask.area,
            "digest": mask_digest(mask),
        }
        for number, label, score, mask in zip(
            instances.numbers, instances.labels, instances.scores, instances.masks, strict=True
        )
    ]


def differences(wanted: Json, stored: Json, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted field -> (wanted, stored), for every field in which two sets of key inputs differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*wanted, *stored}):
        a, b = wanted.get(name), stored.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found.update(differences(a, b, f"{prefix}{name}."))
        elif a != b:
            found[f"{prefix}{name}"] = (a, b)
    return found
