"""The ledger of a folder run: one JSON object a line, appended as things happen, so that a killed run can go on.

Lines: `run` (what was asked, and the engine that was resolved), `job` (which picture a photo becomes), `done` (its
outcome). A line cut off by a crash is ignored. At the end of a run the file is rewritten without what was superseded.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instapipe import imaging
from instapipe.errors import OutputError
from instapipe.pipeline.keys import canonical

NAME = "instapipe.ledger.jsonl"


class Ledger:
    """The ledger in the output folder `folder`. Raises OutputError where it cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.run: dict[str, Any] = {}
        self.pictures: dict[str, str] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._torn = False
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        except OSError as error:
            raise OutputError(f"cannot read {str(self.path)!r}: {error.strerror}") from error
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.split("\n"):  # alone: names may hold what else ends a line (U+0085, U+2028)
            self._read(line)

    def begin(self, run: Mapping[str, Any], pictures: Mapping[str, str]) -> None:
        """Write down what is asked for, and the picture of every photo, before the first is made.

        What a killed run left half written is swept away.
        """
        imaging.sweep(self.path.parent)
        self.run = dict(run)
        lines: list[Mapping[str, Any]] = [{"run": self.run}]
        lines += [{"job": name, "picture": path} for name, path in pictures.items() if self.pictures.get(name) != path]
        self.pictures.update(pictures)
        self._append(lines)

    def finish(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Write down one photo's outcome, for good."""
        with self._lock:
            self.done[name] = dict(outcome)
        self._append([{"done": name, **outcome}])

    def compact(self) -> None:
        """Rewrite the file: one line per thing, by name."""
        lines: list[Mapping[str, Any]] = [{"run": self.run}]
        lines += [{"job": name, "picture": self.pictures[name]} for name in sorted(self.pictures)]
        lines += [{"done": name, **self.done[name]} for name in sorted(self.done)]
        imaging.write_atomically(self.path, b"".join(canonical(line) + b"\n" for line in lines))

    def _read(self, line: str) -> None:
        try:
            content = json.loads(line)
            if "run" in content:
                self.run = dict(content["run"])
            elif "job" in content:
                self.pictures[str(content["job"])] = str(content["picture"])
            elif "done" in content:
                name = str(content.pop("done"))
                self.done[name] = content
        except (ValueError, TypeError, KeyError, AttributeError):
            # Cut off by a crash, or not ours: the photo is simply done again.
            return

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        data = b"".join(canonical(line) + b"\n" for line in lines)
        with self._lock:
            if self._torn:
                data, self._torn = b"\n" + data, False
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise OutputError(f"cannot write {str(self.path)!r}: {error.strerror}") from error
