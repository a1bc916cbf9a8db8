"""Photos in and out: decoding whatever people have, encoding, writing files whole or not at all, drawing.

What needs OpenCV or Pillow is imported when it is first used: a run that finds everything in the cache needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instapipe.imaging.files import (
    LOSSY,
    MAX_PIXELS,
    PHOTO_SUFFIXES,
    file_name,
    picture_suffixes,
    read_bytes,
    sweep,
    write_atomically,
)
from instapipe.later import later

if TYPE_CHECKING:
    from instapipe.imaging.decode import decode_photo, read_photo
    from instapipe.imaging.draw import Outline, filmstrip, frame_side, outlines, overlay, thumbnail
    from instapipe.imaging.encode import encode_image

__all__ = [
    "LOSSY",
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

__getattr__ = later(
    __name__,
    {
        "Outline": "instapipe.imaging.draw",
        "decode_photo": "instapipe.imaging.decode",
        "encode_image": "instapipe.imaging.encode",
        "filmstrip": "instapipe.imaging.draw",
        "frame_side": "instapipe.imaging.draw",
        "outlines": "instapipe.imaging.draw",
        "overlay": "instapipe.imaging.draw",
        "read_photo": "instapipe.imaging.decode",
        "thumbnail": "instapipe.imaging.draw",
    },
)
