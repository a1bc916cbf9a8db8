"""Compiled networks on disk: a folder under a key made from all that went into it, whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

KEPT = 8
"""So many compiled networks stay, the most recently used ones: they are made again in seconds."""


class Artefacts:
    """Compiled networks in the folder `root`; without one nothing is kept."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    @property
    def root(self) -> Path | None:
        """Where they lie."""
        return self._root

    def folder(
        self, inputs: Mapping[str, object], make: Callable[[Path], None]
    ) -> contextlib.AbstractContextManager[Path]:
        """A folder of what `make` writes into it; kept under the key of `inputs`, which is written beside it."""
        return self._kept(inputs, make, self._root) if self._root is not None else _passing(make)

    def discard(self, inputs: Mapping[str, object]) -> None:
        """Throw away what turned out to be damaged."""
        if self._root is not None:
            shutil.rmtree(self._root / _key(inputs), ignore_errors=True)

    @contextlib.contextmanager
    def _kept(self, inputs: Mapping[str, object], make: Callable[[Path], None], root: Path) -> Iterator[Path]:
        place = root / _key(inputs)
        if place.is_dir():
            with contextlib.suppress(OSError):
                os.utime(place)
            yield place
            return
        scratch = root / f".{uuid.uuid4().hex}"
        try:
            scratch.mkdir(mode=0o700, parents=True)
        except OSError:
            # A cache that cannot be written costs time, not the result.
            with _passing(make) as folder:
                yield folder
            return
        try:
            make(scratch)
            (scratch / "inputs.json").write_text(json.dumps(inputs, indent=1, sort_keys=True), encoding="utf-8")
            try:
                os.rename(scratch, place)
                _prune(root)
            except OSError:
                # Another process was first; its folder may be pruned at any time, this one is ours.
                place = scratch
            yield place
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _passing(make: Callable[[Path], None]) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="instapipe-") as name:
        make(Path(name))
        yield Path(name)


def _key(inputs: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _prune(root: Path) -> None:
    """Down to the KEPT newest; what killed processes left behind goes by the same rule."""
    folders = sorted(root.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in folders[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
