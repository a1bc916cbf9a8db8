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

RUNS = 7
PHOTO = (900, 1400)
SHEEP = Path(__file__).parents[1] / "tests" / "data" / "demo" / "sheep.jpg"


def help_seconds() -> dict[str, float]:
    """Of `instapipe --help`."""
    return _timed(["--help"], dict(os.environ))


def warm_seconds() -> dict[str, dict[str, float]]:
    """Of `translate` with the bundled weights, on the demo's photo of sheep at 1400x900, every stage in the cache: by
    the segmenter's masks, and by masks that the user has."""
    import cv2

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = folder / "photo.png"
        cv2.imwrite(str(photo), cv2.resize(cv2.imread(str(SHEEP)), (PHOTO[1], PHOTO[0])))
        environment = {**os.environ, "INSTAPIPE_CACHE": str(folder / "cache")}
        asked = [str(photo), "--source", "sheep", "--target", "giraffe", "-o", str(folder / "out.png")]
        predicted = _timed(["translate", *asked], environment)
        own = ["segment", str(photo), "--output", str(folder / "own")]
        subprocess.run([sys.executable, "-m", "instapipe", *own], env=environment, check=True, capture_output=True)
        given = _timed(["translate", *asked, "--masks", str(folder / "own")], environment)
        return {"predicted": predicted, "given": given}


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
