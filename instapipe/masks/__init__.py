"""Masks that the user has, in any of the field's formats, as :class:`~instapipe.structures.Instances`.

A mask without a class has the label '': it counts as the source class that was asked for. The formats are imported when
they are first used: a run that finds everything in the cache needs none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from instapipe.masks.names import JSON_NAME, find

if TYPE_CHECKING:
    from instapipe.masks.detect import digest, load, open_source, record
    from instapipe.masks.folder import files as folder_files
    from instapipe.masks.records import Entry, MaskSource, Record

__all__ = [
    "JSON_NAME", "Entry", "MaskSource", "Record", "digest", "find", "folder_files", "load", "open_source", "record",
]  # fmt: skip

_LATER = {
    "Entry": ("records", "Entry"),
    "MaskSource": ("records", "MaskSource"),
    "Record": ("records", "Record"),
    "digest": ("detect", "digest"),
    "folder_files": ("folder", "files"),
    "load": ("detect", "load"),
    "open_source": ("detect", "open_source"),
    "record": ("detect", "record"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LATER[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
