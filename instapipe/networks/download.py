"""Weights from elsewhere: a card by its URL, then the files that it names, each checked by its digest."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from instapipe.config import SegmenterCard, TranslatorCard, plain_name
from instapipe.errors import OutputError, WeightsError
from instapipe.networks.cards import CARD, read_card

TIMEOUT = 30.0
"""Seconds without a byte after which a transfer is given up."""
LARGEST = 1 << 31
"""Bytes; no file of weights is larger."""
Report = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that have come and those expected (0: unknown)."""


def pull(url: str, root: Path, report: Report = lambda name, done, total: None) -> TranslatorCard | SegmenterCard:
    """Bring the weights whose card lies at `url` into `root`/<name>, whole or not at all.

    Raises WeightsError where the transfer fails or a digest differs, OutputError where they are there already or
    cannot be written.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise WeightsError(f"cannot pull {url!r}: expected the http(s) address of a {CARD}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".pull-", dir=root))
    except OSError as error:
        raise OutputError(f"cannot write to {str(root)!r}: {error.strerror}") from error
    try:
        _fetch(url, scratch / CARD, report)
        card = read_card(scratch)
        if card is None:
            raise WeightsError(f"{url!r} is the card of neither a translator nor a segmenter")
        try:
            folder = root / plain_name(card.name)
        except ValueError as error:
            raise WeightsError(f"the card at {url!r} names {card.name!r}, which is no plain file name") from error
        if folder.exists():
            raise OutputError(f"weights {card.name!r} are there already: {folder}")
        for file, expected in files_of(card):
            found = _fetch(urllib.parse.urljoin(url, urllib.parse.quote(file)), scratch / file, report)
            if found != expected:
                raise WeightsError(
                    f"{file} from {url!r} is not what its card says: sha256 {found[:12]}, expected {expected[:12]}"
                )
        scratch.chmod(0o755)
        os.replace(scratch, folder)
    except OSError as error:
        raise OutputError(f"cannot write to {str(root)!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return card


def files_of(card: TranslatorCard | SegmenterCard) -> list[tuple[str, str]]:
    """The files that a card names, with their sha256."""
    if isinstance(card, TranslatorCard):
        return [(entry.file, entry.sha256) for entry in card.files]
    return [(card.file, card.sha256)]


def _fetch(url: str, path: Path, report: Report) -> str:
    """Download to `path`; gives the sha256. Raises WeightsError."""
    hasher = hashlib.sha256()
    done = 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as stream:
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(1 << 18):
                hasher.update(chunk)
                stream.write(chunk)
                done += len(chunk)
                if done > LARGEST:
                    raise WeightsError(f"{url!r} sends more than {LARGEST >> 20} MiB")
                report(path.name, done, total)
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"cannot pull {url!r}: {reason}; bring the folder from another machine and give its path"
        ) from error
    if total and done != total:
        raise WeightsError(f"cannot pull {url!r}: cut off after {done} of {total} bytes; try again")
    return hasher.hexdigest()
