"""Other machines: nothing that only POSIX has is needed, and no file names a host to install from."""

from __future__ import annotations

import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import instapipe

PACKAGE = Path(instapipe.__file__).parent
CHECKOUT = PACKAGE.parent
# In halves, so that this file does not name them.
HOSTS = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "download.py" + "torch.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "deb.deb" + "ian.org",
    "conda" + ".anaconda.org",
    "proxy.go" + "lang.org",
    "ghcr" + ".io",
    "docker" + ".io",
    "nvcr" + ".io",
]


def test_every_module_imports_without_posix_only_modules() -> None:
    # The last is imported for a network of detectron2 alone, which is not everywhere, and itself needs fcntl.
    left_out = {"instapipe.__main__", "instapipe.segmentation.detectron2_model"}
    names = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "instapipe.") if m.name not in left_out]
    assert len(names) > 40
    code = f"""
import importlib, sys
sys.modules["fcntl"] = sys.modules["resource"] = None  # importing them raises ModuleNotFoundError
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    return [CHECKOUT / name for name in listed.split("\0") if name]


def test_no_tracked_file_names_a_host_to_install_from() -> None:
    pattern = re.compile("|".join(map(re.escape, HOSTS)).encode())
    files = tracked()
    assert len(files) > 20
    named = [path for path in files if path.is_file() and pattern.search(path.read_bytes())]
    assert not named


def test_pins_name_versions_and_nothing_else() -> None:
    lines = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 40
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_every_direct_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [name for names in project["optional-dependencies"].values() for name in names]
    text = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    names = [re.split(r"[<>=!~\[; ]", name)[0].lower().replace("_", "-") for name in wanted]
    assert [name for name in names if f"\n{name}==" not in text] == []
