"""What may be imported where: the direction between the layers is import-linter's (`make layers`), the rest is here."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import instapipe

PACKAGE = Path(instapipe.__file__).parent
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "lightning",
    "openvino",
    "onnx",
    "onnxruntime",
    "detectron2",
}
LIGHT = ("cli", "pipeline", "imaging", "filtering", "masks", "structures", "config", "errors", "resources")
"""Parts whose import must cost no torch: `--help` and a run that finds everything in the cache import nothing else."""
VENDORS = {"detectron2": {"segmentation/detectron2_model.py"}}
"""Each with the only modules that import it."""


def modules() -> list[str]:
    return ["instapipe", *(m.name for m in pkgutil.walk_packages([str(PACKAGE)], "instapipe."))]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_light_modules_import_no_torch() -> None:
    wanted = [m for m in modules() if m == "instapipe" or m.split(".")[1] in LIGHT]
    assert len(wanted) > 20
    code = f"""
import importlib, sys
heavy = {sorted(HEAVY)!r}
for name in {wanted!r}:
    importlib.import_module(name)
    loaded = [package for package in heavy if package in sys.modules]
    if loaded:
        print(name, loaded)
        break
"""
    assert python(code) == ""


def test_registry_and_cards_import_no_torch() -> None:
    """A warm run describes segmenter and translator by their cards."""
    code = "import sys, instapipe.segmentation.registry, instapipe.networks.cards; print('torch' in sys.modules)"
    assert python(code).strip() == "False"


@pytest.mark.parametrize("words", [["--help"], ["translate", "--help"], ["masks", "convert", "--help"], ["--version"]])
def test_help_imports_no_torch(words: list[str]) -> None:
    code = f"""
import sys
from instapipe.cli import main
try:
    main({words!r})
except SystemExit as ended:
    assert not ended.code, ended.code
print('torch' in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1] == "False", done.stderr


def imports(path: Path) -> Iterator[str]:
    """The top packages that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_a_vendor_is_imported_by_its_adapter_alone(vendor: str) -> None:
    importing = {str(path.relative_to(PACKAGE).as_posix()) for path in PACKAGE.rglob("*.py") if vendor in imports(path)}
    assert importing <= VENDORS[vendor]


def test_modules_fit_in_one_reading() -> None:
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > 330
    }
    assert not long
