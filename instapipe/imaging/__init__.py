"""Photos in and out: decoding whatever people have, encoding, writing files whole or not at all, drawing."""

from __future__ import annotations

from instapipe.imaging.decode import MAX_PIXELS, PHOTO_SUFFIXES, decode_photo, read_bytes, read_photo
from instapipe.imaging.draw import Outline, filmstrip, frame_side, outlines, overlay, thumbnail
from instapipe.imaging.encode import encode_image, file_name, picture_suffixes, sweep, write_atomically

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
