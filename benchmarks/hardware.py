"""What a measurement was taken on, and the memory that this process holds."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "sve")
PACKAGES = ("instapipe", "torch", "openvino", "nncf", "onnx", "onnxruntime", "numpy", "opencv-python-headless")


def facts() -> dict[str, Any]:
    """Processor, its features, cores, how busy they were, threads and versions."""
    import torch

    lines = _cpuinfo()
    flags = set(lines.get("flags", lines.get("Features", "")).split())
    return {
        "processor": lines.get("model name", platform.processor()),
        "features": [flag for flag in FLAGS if flag in flags],
        "kind": kind(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def kind() -> str:
    """Results of one kind of machine go into one file."""
    flags = set(_cpuinfo().get("flags", "").split())
    if "amx_bf16" in flags:
        return "amx"
    if "avx512_vnni" in flags:
        return "avx512-vnni"
    if "avx512f" in flags:
        return "avx512"
    return "avx2" if "avx2" in flags else platform.machine()


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {a.strip(): b.strip() for a, _, b in (line.partition(":") for line in reversed(lines)) if b}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def reset_peak() -> int:
    """Make the kernel forget this process's peak of memory; returns what is held now, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(field: str) -> int:
    """A size out of /proc/self/status, bytes: `VmRSS` (held now), `VmHWM` (the peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
