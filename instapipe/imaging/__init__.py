"""Photos in and out: decoding whatever people have, encoding, writing files whole or not at all, drawing.

What needs OpenCV or Pillow is imported when it is first used: a run that finds everything in the cache needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from instapipe.imaging.files import (
    MAX_PIXELS,
    PHOTO_SUFFIXES,
    file_name,
    picture_suffixes,
    read_bytes,
    sweep,
    write_atomically,
)

if TYPE_CHECKING:
    from instapipe.imaging.decode import decode_photo, read_photo
    from instapipe.imaging.draw import Outline, filmstrip, frame_side, outlines, overlay, thumbnail
    from instapipe.imaging.encode import encode_image

__all__ = [
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "Outline",
    "decode_photo",
    "encode_image",
    "file_name",
    "filmstrip",
    "frame_side",
    "outlines",
    "overlay",
    "picture_suffixes",
    "read_bytes",
    "read_photo",
    "sweep",
    "thumbnail",
    "write_atomically",
]

_LATER = {
    "Outline": "draw",
    "decode_photo": "decode",
    "encode_image": "encode",
    "filmstrip": "draw",
    "frame_side": "draw",
    "outlines": "draw",
    "overlay": "draw",
    "read_photo": "decode",
    "thumbnail": "draw",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
