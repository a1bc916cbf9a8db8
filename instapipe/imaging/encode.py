"""Pixels -> encoded bytes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from instapipe.errors import OutputError, UsageError
from instapipe.imaging.files import LOSSLESS, LOSSY, picture_suffixes
from instapipe.structures import Pixels

_WITH_ALPHA = {".png", ".webp", ".tif", ".tiff"}


def encode_image(pixels: Pixels, suffix: str, *, alpha: Pixels | None = None, flat: bool = False) -> bytes:
    """uint8 (H, W, 3) RGB or (H, W) grey, with `alpha` uint8 (H, W) where the format has one, encoded without loss.

    flat: of few values in large areas, such as masks. JPEG is the exception (quality 95, no alpha). The bytes depend
    on the pixels alone; no metadata is written.
    Raises UsageError for an ending that cannot be written, OutputError where the format cannot hold the image.
    """
    suffix = suffix.lower()
    if suffix not in LOSSLESS | LOSSY:
        raise UsageError(f"cannot write pictures as {suffix!r}; one of {', '.join(picture_suffixes())}")
    image: Any
    if pixels.ndim == 2:
        image = pixels
    elif alpha is not None and suffix in _WITH_ALPHA:
        image = cv2.cvtColor(np.dstack([pixels, alpha]), cv2.COLOR_RGBA2BGRA)
    else:
        image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options: list[int] = []
    if suffix == ".png" and flat:
        # Of a mask at 20 megapixels a quarter of the bytes that the options below give, in 0.8x of their time.
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # from OpenCV 4.12 on
            options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    elif suffix == ".png":
        # On photos as small as level 3 with all filters tried on each line, in 0.4x of its time.
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # from OpenCV 4.12 on
            options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    elif suffix in LOSSY:
        options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    elif suffix == ".webp":
        options = [cv2.IMWRITE_WEBP_QUALITY, 101]
    try:
        done, encoded = cv2.imencode(suffix, image, options)
    except cv2.error:
        done = False
    if not done:
        raise OutputError(f"{image.shape[1]}x{image.shape[0]} pixels do not fit into a {suffix} file; write .png")
    return encoded.tobytes()
