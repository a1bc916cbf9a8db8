"""The content-addressed store: entries that are whole or absent, found by key, the least recently used dropped first.

::

    <root>/instapipe-cache.json                     marks the folder as ours
    <root>/stages/<stage>/<ab>/<abcd...>/meta.json  inputs of the key in clear, size and digest of every file
    <root>/stages/<stage>/<ab>/<abcd...>/<files>    PNG, NPZ, JSON
    <root>/records/<kind>/<digest of name>.json     small things worth remembering (cards, engines)
    <root>/artefacts/                               compiled networks (translation.engines)
    <root>/scratch/                                 entries being written, or being thrown away

An entry is written to scratch, synced and renamed into place; thrown away by renaming it out first. No locks: whoever
comes second finds the entry there, and both made the same bytes. An entry's age is the time stamp of its `meta.json`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instapipe.errors import CacheError
from instapipe.pipeline.keys import Json, canonical, encoded, key_of

FORMAT = 1
DEFAULT_CAP = 10_000_000_000
"""Bytes."""
_MARK = "instapipe-cache.json"
_META = "meta.json"
_STALE = 3600.0
"""Seconds after which what lies in scratch belongs to nobody any more."""
_PRUNE_TO = 0.9


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored result. `fresh`: made in this run, its files still at hand."""

    stage: str
    key: str
    inputs: Json
    files: Mapping[str, bytes] = field(repr=False)
    fresh: bool = False

    def json(self, name: str) -> Any:
        """A JSON file of the entry."""
        return json.loads(self.files[name])


@dataclass(frozen=True, slots=True)
class Listed:
    """One stored entry as a list shows it. used: seconds since the epoch."""

    stage: str
    key: str
    folder: Path
    bytes: int
    used: float


def default_root() -> Path:
    """$INSTAPIPE_CACHE, or the user's cache folder."""
    given = os.environ.get("INSTAPIPE_CACHE")
    if given:
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("instapipe", appauthor=False))


class Store:
    """The cache in the folder `root`, made (private) where it is not there, of at most `cap` bytes.

    Threads and processes may share it. Raises CacheError where the folder cannot be used or is something else.
    A disk that gets full does not end a run: `trouble` then says why results are no longer kept.
    """

    def __init__(self, root: Path, *, cap: int = DEFAULT_CAP) -> None:
        self.root = root
        self.cap = cap
        self.trouble: str | None = None
        self._stages, self._scratch = root / "stages", root / "scratch"
        self._lock = threading.Lock()
        self._bytes: int | None = None
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark = root / _MARK
            if not mark.exists():
                # Asked once more: another process may have made it a cache since.
                if any(root.iterdir()) and not mark.exists():
                    raise CacheError(f"{str(root)!r} is not empty and no instapipe cache; give another --cache")
                root.chmod(0o700)
                self._mark()
        except OSError as error:
            raise CacheError(
                f"cache folder {str(root)!r} cannot be used: {error.strerror}; give --cache or set INSTAPIPE_CACHE"
            ) from error

    @property
    def artefacts(self) -> Path:
        """Where engines keep what they compiled; looked after by them, thrown away by `clear`."""
        return self.root / "artefacts"

    def _mark(self) -> None:
        """Make the folder, where it is gone, and say that it is a cache, where it does not say so yet."""
        if not (self.root / _MARK).exists():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                _write(self.root / _MARK, canonical({"format": FORMAT}))

    # Entries

    def get(self, stage: str, inputs: Json) -> Entry | None:
        """The entry of these inputs; None where there is none. A damaged one is thrown away."""
        key = key_of(inputs)
        folder = self._folder(stage, key)
        there = folder.is_dir()
        try:
            meta = json.loads((folder / _META).read_bytes())
            files = {name: (folder / name).read_bytes() for name in meta["files"]}
            sound = all(_digest(data) == meta["files"][name]["sha256"] for name, data in files.items())
        except OSError:
            # Absent, or thrown away by another process while it was read; or a file of it is gone, maybe that one.
            # An entry that another process has made since is whole.
            if there:
                self._discard(folder)
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            sound, files = False, {}
        if not sound:
            self._discard(folder)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / _META)
        return Entry(stage, key, inputs, files)

    def has(self, stage: str, inputs: Json) -> bool:
        """Whether there is an entry, without reading it."""
        return (self._folder(stage, key_of(inputs)) / _META).is_file()

    def put(self, stage: str, inputs: Json, files: Mapping[str, bytes]) -> Entry:
        """Store `files` under the key of `inputs`; where another process was first, its entry stays."""
        key = key_of(inputs)
        meta = {
            "format": FORMAT,
            "stage": stage,
            "key": key,
            "inputs": inputs,
            "files": {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in files.items()},
        }
        scratch = self._scratch / uuid.uuid4().hex
        target = self._folder(stage, key)
        try:
            self._mark()  # before anything else is there: a process that starts now is to find a cache
            scratch.mkdir(mode=0o700, parents=True)
            for name, data in files.items():
                _write(scratch / name, data)
            _write(scratch / _META, encoded(json.dumps(meta, indent=1, ensure_ascii=False)))
            _sync_folder(scratch)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not target.exists():
                os.rename(scratch, target)
                _sync_folder(target.parent)
            self._mark()  # and once more: it may be while this was written that the folder is removed
        except OSError as error:
            # Lost the race for the same key, or the disk is full: the run goes on either way.
            if not (target / _META).exists():
                self.trouble = f"results are not kept in the cache: {error.strerror or error}"
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._grown(sum(map(len, files.values())))
        return Entry(stage, key, inputs, files, fresh=True)

    # Small records

    def remember(self, kind: str, name: str, content: Json) -> None:
        """Keep a small JSON record under a name; it is never pruned."""
        path = self._record(kind, name)
        data = canonical({"name": name, "content": content})
        try:
            if path.exists() and path.read_bytes() == data:
                return
            self._mark()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch = path.with_name(uuid.uuid4().hex)
            _write(scratch, data)
            os.replace(scratch, path)
        except OSError as error:
            self.trouble = f"results are not kept in the cache: {error.strerror or error}"

    def recall(self, kind: str, name: str) -> Any | None:
        """The record, or None."""
        try:
            return json.loads(self._record(kind, name).read_bytes())["content"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # Care

    def entries(self) -> Iterator[Listed]:
        """Every entry, in no order. Folders without `meta.json` are no entries."""
        for folder in self._stages.glob("*/??/*"):
            try:
                used = (folder / _META).stat().st_mtime
                size = sum(file.stat().st_size for file in folder.iterdir())
            except OSError:
                continue
            yield Listed(folder.parent.parent.name, folder.name, folder, size, used)

    def inputs_of(self, entry: Listed) -> Json | None:
        """The inputs of an entry's key, in clear."""
        try:
            inputs = json.loads((entry.folder / _META).read_bytes())["inputs"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return inputs if isinstance(inputs, dict) else None

    def prune(self, cap: int | None = None, *, older_than: float | None = None) -> tuple[int, int]:
        """Throw away what was not used for `older_than` seconds, then the least recently used, down to `cap` bytes.

        Returns (entries thrown away, their bytes).
        """
        self._sweep_scratch()
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        total = sum(entry.bytes for entry in entries)
        limit = self.cap if cap is None else cap
        before = time.time() - older_than if older_than is not None else float("-inf")
        gone, freed = 0, 0
        for entry in entries:
            if total - freed <= limit and entry.used >= before:
                break
            self._discard(entry.folder)
            gone, freed = gone + 1, freed + entry.bytes
        return gone, freed

    def verify(self) -> tuple[int, list[Listed]]:
        """Read everything; throw away what is damaged. Returns (sound entries, the damaged ones)."""
        sound, damaged = 0, []
        for entry in list(self.entries()):
            try:
                meta = json.loads((entry.folder / _META).read_bytes())
                good = meta["key"] == entry.key == key_of(meta["inputs"])
                good = good and {file.name for file in entry.folder.iterdir()} == {_META, *meta["files"]}
                for name, facts in meta["files"].items():
                    good = good and _digest((entry.folder / name).read_bytes()) == facts["sha256"]
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                good = False
            if good:
                sound += 1
            else:
                damaged.append(entry)
                self._discard(entry.folder)
        return sound, damaged

    def clear(self) -> None:
        """Throw everything away but the folder itself."""
        for part in ("stages", "records", "scratch", "artefacts", "inductor"):
            shutil.rmtree(self.root / part, ignore_errors=True)
        self._bytes = None

    def _folder(self, stage: str, key: str) -> Path:
        return self._stages / stage / key[:2] / key

    def _record(self, kind: str, name: str) -> Path:
        return self.root / "records" / kind / f"{_digest(encoded(name))[:32]}.json"

    def _discard(self, folder: Path) -> None:
        """Out of place in one rename, then away: no reader meets half an entry."""
        grave = self._scratch / uuid.uuid4().hex
        with contextlib.suppress(OSError):
            self._scratch.mkdir(mode=0o700, exist_ok=True)
            os.rename(folder, grave)
        shutil.rmtree(grave, ignore_errors=True)

    def _sweep_scratch(self) -> None:
        """What a killed process left behind."""
        with contextlib.suppress(OSError):
            for left in self._scratch.iterdir():
                with contextlib.suppress(OSError):
                    if time.time() - left.stat().st_mtime > _STALE:
                        shutil.rmtree(left, ignore_errors=True)

    def _grown(self, size: int) -> None:
        """Count what was added; prune when the cap is passed."""
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(entry.bytes for entry in self.entries())
            else:
                self._bytes += size
            if self._bytes > self.cap:
                self.prune(int(self.cap * _PRUNE_TO))
                self._bytes = sum(entry.bytes for entry in self.entries())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Write and sync one new file, readable by its owner alone."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename last; where folders cannot be opened (Windows) the file system does it in its own time."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
