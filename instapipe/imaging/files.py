"""Files of photos: names, limits, reading bytes, and writing that leaves a whole file or none. No image library."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import stat
import time
import uuid
from pathlib import Path

from instapipe.errors import OutputError, PhotoError

MAX_PIXELS = 150_000_000
"""The largest photo that is decoded unless asked otherwise (Pillow itself refuses more than 178 million)."""

MAX_BYTES = 1 << 30
"""The largest file that is read."""

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif"}
)
"""Endings by which folders are searched; a photo named on its own may be called anything."""

LOSSLESS = {".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm"}
LOSSY = {".jpg", ".jpeg"}
"""Endings that pictures can be written with."""

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
    return tuple(sorted(LOSSLESS | LOSSY))


def read_bytes(path: Path) -> bytes:
    """The bytes of the file `path`; raises PhotoError for what is missing, unreadable, no file, empty or huge."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise PhotoError(f"photo {str(path)!r} is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise PhotoError(f"photo {str(path)!r} is no ordinary file")
        if status.st_size > MAX_BYTES:
            raise PhotoError(f"photo {str(path)!r} has {status.st_size >> 20} MB; at most {MAX_BYTES >> 20} are read")
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError(f"cannot read photo {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        raise PhotoError(f"cannot read photo {str(path)!r}: {error}") from error
    if not data:
        raise PhotoError(f"photo {str(path)!r} is an empty file")
    return data


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
