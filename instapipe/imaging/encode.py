"""Pixels -> bytes -> files that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import time
import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instapipe.errors import OutputError, UsageError
from instapipe.structures import Pixels

_LOSSLESS = {".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm"}
_LOSSY = {".jpg", ".jpeg"}
_WITH_ALPHA = {".png", ".webp", ".tif", ".tiff"}
_MAX_NAME = 255
_STALE = 86400.0
"""Seconds after which a scratch file belongs to nobody any more."""
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "it is a folder",
}


def picture_suffixes() -> tuple[str, ...]:
    """The endings that a picture can be written as."""
    return tuple(sorted(_LOSSLESS | _LOSSY))


def encode_image(pixels: Pixels, suffix: str, *, alpha: Pixels | None = None) -> bytes:
    """uint8 (H, W, 3) RGB or (H, W) grey, with `alpha` uint8 (H, W) where the format has one, encoded without loss.

    JPEG is the exception (quality 95, no alpha). The bytes depend on the pixels alone; no metadata is written.
    Raises UsageError for an ending that cannot be written, OutputError where the format cannot hold the image.
    """
    suffix = suffix.lower()
    if suffix not in _LOSSLESS | _LOSSY:
        raise UsageError(f"cannot write pictures as {suffix!r}; one of {', '.join(picture_suffixes())}")
    image: Any
    if pixels.ndim == 2:
        image = pixels
    elif alpha is not None and suffix in _WITH_ALPHA:
        image = cv2.cvtColor(np.dstack([pixels, alpha]), cv2.COLOR_RGBA2BGRA)
    else:
        image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options: list[int] = []
    if suffix == ".png":
        # Level 3: within some percent of the default's size, at half of its time on large photos.
        options = [cv2.IMWRITE_PNG_COMPRESSION, 3]
    elif suffix in _LOSSY:
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


def file_name(stem: str, ending: str) -> str:
    """`stem` + `ending`, shortened to what file systems take (255 bytes); a digest keeps shortened names apart."""
    name = stem + ending
    if len(os.fsencode(name)) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    room = _MAX_NAME - len(os.fsencode(ending)) - 9
    head = os.fsencode(stem)[:room].decode("utf-8", "ignore")
    return f"{head}-{digest}{ending}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`: after a crash there is the old file or the new one, never a part. Raises OutputError."""
    scratch = path.parent / f".instapipe-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"cannot write {str(path)!r}: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def sweep(folder: Path) -> None:
    """Remove the scratch files that killed processes of this machine left below `folder`."""
    for left in folder.rglob(".instapipe-*-*-*.tmp"):
        host, process = left.name.split("-")[1:3]
        with contextlib.suppress(OSError):
            old = time.time() - left.stat().st_mtime > _STALE
            if old or (host == _host() and process.isdecimal() and not _alive(int(process))):
                left.unlink()


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    if os.name != "posix":
        # Windows has no signal that only asks.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
