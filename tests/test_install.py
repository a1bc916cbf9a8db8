"""The wheel: built, installed into an environment of its own, and run from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image

CHECKOUT = Path(__file__).parent.parent
DEMO = CHECKOUT / "tests" / "data" / "demo" / "sheep.jpg"


def run(*words: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed, run without anything of this process's Python environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV_"))}
    env |= {"INSTAPIPE_CACHE": str(cwd / "cache"), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built: building in the checkout would leave files there, or pick up old ones."""
    place = tmp_path_factory.mktemp("source")
    for name in ("instapipe", "weights", "configs"):
        shutil.copytree(CHECKOUT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, place / name)
    return place


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", place, source, cwd=place)
    [built] = place.glob("*.whl")
    return built


PIP = (sys.executable, "-m", "pip")


def environment(place: Path) -> Path:
    """The Python of a new environment that sees this one's packages, but not an instapipe installed as editable."""
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    python = place / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip())
    # The finder of an editable install is a .pth file of its own, which this line does not run.
    (own / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return python


def install(python: Path, *what: str | Path) -> None:
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
    run(*PIP, "--python", python, "install", *options, *what, cwd=python.parent)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = environment(tmp_path_factory.mktemp("installed"))
    install(python, wheel)
    return python


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(CHECKOUT).parts)


def test_the_wheel_carries_weights_and_configs_and_no_photos(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = {info.filename: info.file_size for info in content.infolist()}
    for folder in ("weights", "configs"):
        files = [p for p in (CHECKOUT / folder).rglob("*") if p.is_file() and not _hidden(p)]
        assert files
        for path in files:
            assert names[f"instapipe/_bundled/{path.relative_to(CHECKOUT).as_posix()}"] == path.stat().st_size
    assert "instapipe/py.typed" in names
    assert not [name for name in names if name.lower().endswith((".jpg", ".jpeg", ".webp"))], "the demo photos are GPL"
    assert {name.split("/")[0].split("-")[0] for name in names} == {"instapipe"}
    assert sum(size for name, size in names.items() if "/weights/" in name) < 70_000_000


def test_installed_it_translates_from_another_folder(installed: Path, tmp_path: Path) -> None:
    shutil.copy(DEMO, tmp_path / "photo.jpg")
    command = installed.with_name("instapipe.exe" if os.name == "nt" else "instapipe")
    doctor = json.loads(run(command, "doctor", "--json", "--no-measure", cwd=tmp_path))
    assert Path(doctor["instapipe"]["package"]).is_relative_to(installed.parent.parent.resolve())
    assert Path(doctor["weights"]["folder"]).is_relative_to(installed.parent.parent.resolve())
    run(command, "translate", "photo.jpg", "--source", "sheep", "--target", "giraffe", cwd=tmp_path)
    with Image.open(tmp_path / "photo_giraffe.png") as made, Image.open(DEMO) as given:
        assert made.size == given.size
        assert made.convert("RGB").tobytes() != given.convert("RGB").tobytes()


def test_an_editable_install_reads_the_checkout(source: Path, tmp_path: Path) -> None:
    python = environment(tmp_path)
    install(python, "--editable", source)
    code = "from instapipe import resources as r; print(r.weights_root()); print(r.configs_root())"
    found = run(python, "-c", code, cwd=tmp_path).splitlines()
    assert found == [str(source.resolve() / "weights"), str(source.resolve() / "configs")]
