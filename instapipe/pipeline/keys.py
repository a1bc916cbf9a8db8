"""Keys from content: the same inputs give the same key on every machine, whatever their paths are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

# A stage's version is raised whenever the same inputs give other bytes.
DECODE_VERSION = 1
SEGMENT_VERSION = 2
FILTER_VERSION = 2
TRANSLATE_VERSION = 21
OUTPUT_VERSION = 6


def canonical(content: Any) -> bytes:
    """JSON in one form: sorted, no spaces, UTF-8; NaN refused."""
    return encoded(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def json_bytes(content: Any) -> bytes:
    """Readable JSON, the same bytes for the same content."""
    return encoded(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def json_line(content: Any) -> bytes:
    """JSON on one line, in the order of `content`, for people's programs."""
    return encoded(json.dumps(content, ensure_ascii=False))


def encoded(text: str) -> bytes:
    """JSON as UTF-8. What file names in another encoding hold instead of characters is escaped, as JSON does it too."""
    return text.encode("utf-8", "backslashreplace")


def key_of(inputs: Json) -> str:
    """sha256 (hex) of the canonical form."""
    return hashlib.sha256(canonical(inputs)).hexdigest()


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
