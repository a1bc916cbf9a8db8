"""Peak memory of a translation above the loaded model, with few and with many instances; run as a process of its own.

`python benchmarks/memory.py HEIGHT WIDTH INSTANCES` prints bytes. Linux only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import hardware
import numpy as np


def peak_above_model(size: tuple[int, int], instances: int) -> int:
    """Bytes, measured in a fresh process whose allocator gives back at once what is free.

    Left to itself it keeps what it may need again: of a photo of 200 px up to a third of the peak, by chance.
    """
    command = [sys.executable, __file__, *map(str, (*size, instances))]
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "100000"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout.split()[-1])


def main() -> None:
    """Translate one photo twice, the first time small, to have everything loaded."""
    height, width, instances = map(int, sys.argv[1:])
    import torch

    from instapipe.config import GeneratorConfig, TranslatorCard
    from instapipe.networks.generator import SetGenerator
    from instapipe.networks.weights import save_translator
    from instapipe.pipeline.api import Pipeline

    torch.manual_seed(0)
    config = GeneratorConfig(form="paper", width=16, encoder_blocks=2)
    states = {"source_to_target": SetGenerator(config).state_dict()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        card = TranslatorCard(
            name="weights", source="sheep", target="giraffe", generator=config, size=(200, 200), directions={}
        )
        save_translator(folder / "weights", card, states)  # type: ignore[arg-type]
        for stem, size, count in (("first", (256, 256), 2), ("second", (height, width), instances)):
            _write(folder, stem, size, count)
            with Pipeline(
                "sheep", "giraffe", weights=str(folder / "weights"), masks=folder / "masks", cache=folder / "cache",
                max_instances=64, region="whole", engine="torch", precision="float32",
            ) as pipeline:  # fmt: skip
                before = hardware.reset_peak()
                pipeline(folder / f"{stem}.png")
        print(hardware.status("VmHWM") - before)


def _write(folder: Path, stem: str, size: tuple[int, int], count: int) -> None:
    """A noisy photo and a label map of `count` squares on a grid."""
    import cv2

    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / f"{stem}.png"), rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    (folder / "masks").mkdir(exist_ok=True)
    labels = np.zeros(size, np.uint8)
    cell = min(size) // 8
    for number in range(count):
        y, x = divmod(number, 8)
        labels[y * cell + 2 : (y + 1) * cell - 2, x * cell + 2 : (x + 1) * cell - 2] = number + 1
    cv2.imwrite(str(folder / "masks" / f"{stem}.png"), labels)


if __name__ == "__main__":
    main()
