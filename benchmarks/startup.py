"""How long a person waits: `instapipe --help`, and a run that finds everything in the cache. Whole processes."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RUNS = 7
PHOTO = (900, 1400)


def help_seconds() -> dict[str, float]:
    """Of `instapipe --help`."""
    return _timed(["--help"], dict(os.environ))


def warm_seconds() -> dict[str, float]:
    """Of a translation whose every stage is in the cache, on a photo of 1400x900."""
    import cv2
    import torch

    from instapipe.config import GeneratorConfig, TranslatorCard
    from instapipe.networks.generator import SetGenerator
    from instapipe.networks.weights import save_translator

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = GeneratorConfig(form="resize", width=4, encoder_blocks=1, decoder_blocks=1)
        torch.manual_seed(0)
        card = TranslatorCard(
            name="weights", source="sheep", target="giraffe", generator=config, size=(32, 32), directions={}
        )
        states = {"source_to_target": SetGenerator(config).state_dict()}
        save_translator(folder / "weights", card, states)  # type: ignore[arg-type]
        rng = np.random.default_rng(0)
        smooth = cv2.resize(rng.integers(0, 255, (45, 70, 3), dtype=np.uint8), (PHOTO[1], PHOTO[0]))
        cv2.imwrite(str(folder / "photo.png"), smooth)
        labels = np.zeros(PHOTO, np.uint8)
        labels[200:500, 300:700], labels[300:600, 900:1200] = 1, 2
        (folder / "masks").mkdir()
        cv2.imwrite(str(folder / "masks" / "photo.png"), labels)
        environment = {**os.environ, "INSTAPIPE_CACHE": str(folder / "cache")}
        return _timed(
            ["translate", str(folder / "photo.png"), "--source", "sheep", "--target", "giraffe", "--weights",
             str(folder / "weights"), "--masks", str(folder / "masks"), "-o", str(folder / "out.png")],
            environment,
        )  # fmt: skip


def _timed(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Medians of the wall clock and of the processor's time; the first run, which fills caches, is not counted."""
    wall, cpu = [], []
    command = [sys.executable, "-m", "instapipe", *arguments]
    with tempfile.TemporaryDirectory() as compiled:
        # As installed: modules are compiled once, whatever the shell that measures says about that.
        environment = {**environment, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
        _run(command, environment, wall, cpu)
    return {"wall": round(statistics.median(wall[1:]), 3), "cpu": round(statistics.median(cpu[1:]), 3)}


def _run(command: list[str], environment: dict[str, str], wall: list[float], cpu: list[float]) -> None:
    for _ in range(RUNS + 1):
        start, before = time.perf_counter(), _children()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        wall.append(time.perf_counter() - start)
        cpu.append(_children() - before)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
