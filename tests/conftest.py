"""What tests through the command line share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import worlds

if TYPE_CHECKING:
    from instapipe.networks.grader import Grader

GROUND = {"placement": "ground", "window_scale": 1.35, "window_height_scale": 1.8, "least_aspect": 1.2}
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ran:
    """One call of the command line."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        """The objects on stdout, of `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Ran]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`cli("translate", photo, ...)` in this process, in a folder and with a cache of its own."""
    from instapipe.cli import main

    monkeypatch.setenv("INSTAPIPE_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = caught.value.code
        return Ran(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    return run


@pytest.fixture
def shell(tmp_path: Path) -> Cli:
    """The same in a process of its own; `before`: Python that runs first, `env`: more environment."""

    def run(*arguments: object, before: str = "", env: dict[str, str] | None = None, cwd: Path = tmp_path) -> Ran:
        paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "INSTAPIPE_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            **(env or {}),
        }
        script = f"{before}\nfrom instapipe.cli import main\nmain()"
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True, text=True, errors="surrogateescape", env=environment, cwd=cwd, timeout=300,
            check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def matte_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sheep2giraffe of random weights that blends by its mattes, one instance a step, at 32x32."""
    return worlds.write_weights(tmp_path_factory.mktemp("weights") / "matte")


@pytest.fixture(scope="session")
def grader() -> Grader:
    """Has learnt from those of graded_worlds."""
    from graded_worlds import graded

    from instapipe.training.grading import fit_grader

    return fit_grader([graded()])


@pytest.fixture(scope="session")
def grader_file(grader: Grader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file."""
    path = tmp_path_factory.mktemp("grader") / "grader.safetensors"
    grader.write(path)
    return path


@pytest.fixture
def ground_weights(matte_weights: Path, tmp_path: Path) -> Path:
    """The tiny translator, its windows on the ground."""
    return worlds.copy_weights(matte_weights, tmp_path / "ground", **GROUND)


@pytest.fixture(scope="session")
def whole_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in the paper's form: the generated image replaces the window."""
    return worlds.write_weights(tmp_path_factory.mktemp("weights") / "whole", mode="whole")


@pytest.fixture(scope="session")
def sizeless_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's form without a size of its own."""
    return worlds.write_weights(tmp_path_factory.mktemp("weights") / "sizeless", mode="whole", size=None)


@pytest.fixture
def colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the small world's segmenter, installed as a package would install it: by an entry point."""
    package = tmp_path / "site" / "colour-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: colour\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[instapipe.segmenters]\ncolour = colour_segmenter\n")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return "colour"
