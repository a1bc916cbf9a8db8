"""Masks that the user has, in any of the field's formats, as :class:`~instapipe.structures.Instances`.

A mask without a class has the label '': it counts as the source class that was asked for. The formats are imported when
they are first used: a run that finds everything in the cache needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instapipe.later import later
from instapipe.masks.names import JSON_NAME, find

if TYPE_CHECKING:
    from instapipe.masks.detect import digest, load, open_source, record
    from instapipe.masks.folder import folder_files
    from instapipe.masks.records import Entry, MaskSource, Record

__all__ = [
    "JSON_NAME", "Entry", "MaskSource", "Record", "digest", "find", "folder_files", "load", "open_source", "record",
]  # fmt: skip

__getattr__ = later(
    __name__,
    {
        "Entry": "instapipe.masks.records",
        "MaskSource": "instapipe.masks.records",
        "Record": "instapipe.masks.records",
        "digest": "instapipe.masks.detect",
        "folder_files": "instapipe.masks.folder",
        "load": "instapipe.masks.detect",
        "open_source": "instapipe.masks.detect",
        "record": "instapipe.masks.detect",
    },
)
