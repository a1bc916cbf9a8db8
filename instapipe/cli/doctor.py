"""`instapipe doctor`: what is installed, what this machine can do, where things lie. Nothing missing makes it fail."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from instapipe import __version__, resources

Facts = dict[str, str]

REQUIRED = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pycocotools",
    "timm",
    "lightning-fabric",
    "safetensors",
    "pydantic",
    "typer",
)
OPTIONAL = {
    "openvino": "a faster engine on CPUs: pip install 'instapipe[fast]'",
    "onnx": "export: pip install 'instapipe[fast]'",
    "torchmetrics": "some metrics: pip install 'instapipe[metrics]'",
    "tensorboard": "training curves in a browser: pip install 'instapipe[metrics]'",
    "detectron2": "its segmenters: built from source, see the README",
}
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    measure: Annotated[
        bool, typer.Option(help="Find out which engine `auto` takes by running the bundled weights (some seconds).")
    ] = True,
) -> None:
    """Say what is installed, which CPU and GPU features and engines are there, and where cache and weights live.

    Nothing that is missing makes this fail: the exit code is 0.
    """
    sections: dict[str, Facts] = {}
    parts: list[tuple[str, Callable[[], Facts]]] = [
        ("instapipe", _itself),
        ("machine", _machine),
        ("packages", _packages),
        ("devices", _devices),
        ("segmenters", _segmenters),
        ("weights", _weights),
        ("cache", _cache),
    ]
    if measure:
        parts.append(("engine that `auto` takes", _engines))
    for title, probe in parts:
        sections[title] = _guarded(probe)
        if not as_json:
            _show(title, sections[title])
    if as_json:
        typer.echo(json.dumps(sections, indent=2))


def _guarded(probe: Callable[[], Facts]) -> Facts:
    """What `probe` found; a broken installation, which is what doctors are called for, must not stop the rest."""
    try:
        return probe()
    except Exception as error:
        return {"cannot tell": _reason(error)}


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _show(title: str, facts: Facts) -> None:
    typer.echo(f"{title}:")
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        typer.echo(f"  {name:<{width}}  {value}")


def _itself() -> Facts:
    return {
        "version": __version__,
        "package": str(resources.PACKAGE),
        "Python": f"{platform.python_version()} ({sys.executable})",
    }


def _machine() -> Facts:
    facts = {"system": platform.platform(), "processor": platform.machine(), "cores": str(_cores())}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        facts["CPU features"] = "cannot be told on this system"
        return facts
    named = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {name.strip(): value.strip() for name, value in named.items()}
    facts["processor"] += f", {fields['model name']}" if "model name" in fields else ""
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    facts["CPU features"] = ", ".join(flag for flag in CPU_FLAGS if flag in flags) or "none of " + ", ".join(CPU_FLAGS)
    return facts


def _cores() -> int:
    """Those that this process may use, where the system can say it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _packages() -> Facts:
    facts = {name: _version(name) or "MISSING: install instapipe again" for name in REQUIRED}
    for name, use in OPTIONAL.items():
        facts[name] = _version(name) or f"not installed ({use})"
    if _version("detectron2"):
        facts["detectron2"] += _imports("detectron2")
    return facts


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _imports(module: str) -> str:
    """Packages built from source are often built against another torch: say so here rather than at first use."""
    try:
        import_module(module)
    except Exception as error:
        return f", but it cannot be imported: {_reason(error)}"
    return ", imports"


def _devices() -> Facts:
    import torch

    threads = torch.get_num_threads()
    facts = {"cpu": f"{torch.backends.cpu.get_cpu_capability()}, {threads} thread{'s' if threads > 1 else ''}"}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(index)
        bfloat16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        facts[f"cuda:{index}"] = (
            f"{found.name}, {found.total_memory / 2**30:.0f} GiB, {found.major}.{found.minor}, {bfloat16}"
        )
    if torch.backends.mps.is_available():
        facts["mps"] = "Apple GPU (untested)"
    if len(facts) == 1:
        built = torch.version.cuda
        facts["gpu"] = f"none that torch can use ({f'built for CUDA {built}' if built else 'a CPU build'})"
    return facts


def _segmenters() -> Facts:
    from instapipe.segmentation import registry

    facts = {name: "built in" if name in registry.BUILT_IN else "by entry point" for name in registry.adapters()}
    if _version("detectron2") is None:
        facts["detectron2"] = "built in, needs detectron2"
    return facts


def _weights() -> Facts:
    """Every kind of card, read as plain JSON: what is wrong with one must not hide the others."""
    facts = {"folder": str(resources.weights_root())}
    for path in sorted(resources.weights_root().glob("*/card.json")):
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            facts[path.parent.name] = f"{card['kind']}, {_what(card)}, {_state(card, path.parent)}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            facts[path.parent.name] = f"DAMAGED card.json: {_reason(error)}"
    if len(facts) == 1:
        facts["bundled"] = "none"
    return facts


def _what(card: Any) -> str:
    if card["kind"] != "translator":
        return ", ".join(card["classes"])
    return f"{card['source']} {'<->' if len(card['directions']) == 2 else '->'} {card['target']}"


def _state(card: Any, folder: Path) -> str:
    """Whether the files are what the card says, and how large they are."""
    from instapipe.networks.cards import digest

    size = 0
    files = [card]
    if card["kind"] == "translator":
        files = [*card["directions"].values(), *filter(None, (card.get("grader"), card.get("upscaler")))]
    for file in files:
        path = folder / file["file"]
        if not path.is_file():
            return f"MISSING {file['file']}"
        if digest(path) != file["sha256"]:
            return f"DAMAGED {file['file']}: not what its card says"
        size += path.stat().st_size
    return f"{size / 1e6:.1f} MB, intact"


def _cache() -> Facts:
    from instapipe.pipeline.store import default_root

    root = default_root()
    facts = {"folder": str(root)}
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    facts["writable"] = "yes" if os.access(there, os.W_OK) else "NO: name another folder in INSTAPIPE_CACHE"
    facts["free"] = f"{shutil.disk_usage(there).free / 1e9:.1f} GB"
    if root.exists():
        used = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        facts["used"] = f"{used / 1e6:.1f} MB"
    else:
        facts["used"] = "nothing yet"
    return facts


def _engines() -> Facts:
    """Of each bundled translator: as remembered from a run on this machine, or measured now."""
    from instapipe.networks.cards import bundled

    facts = {}
    for card, _ in bundled():
        if card.kind == "translator":
            try:
                facts[card.name] = _engine_of(card)
            except Exception as error:
                facts[card.name] = f"cannot tell: {_reason(error)}"
    return facts or {"none": "there are no bundled weights to choose for"}


def _engine_of(card: Any) -> str:
    from instapipe.pipeline.models import Models
    from instapipe.pipeline.resolve import resolve_engine, resolve_weights
    from instapipe.pipeline.settings import TranslateSettings
    from instapipe.pipeline.store import Store, default_root

    reverse = "source_to_target" not in card.directions
    source, target = (card.target, card.source) if reverse else (card.source, card.target)
    settings = TranslateSettings(source=source, target=target, weights=card.name)
    store = Store(default_root())
    weights = resolve_weights(settings, store)
    measured: Facts = {}

    with Models(settings.device, store.artefacts) as models:

        def measure() -> Facts:
            measured.update(models.choose_engine(weights, "auto", "auto"))
            return measured

        chosen = resolve_engine(settings, weights, store, measure)
    return f"{chosen['engine']}, {chosen['precision']} ({measured.get('reason', 'as measured before')})"
