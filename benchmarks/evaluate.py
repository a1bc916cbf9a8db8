"""The full evaluation of bundled translators: `python benchmarks/evaluate.py --data FOLDER [--suite all]`.

Runs `instapipe evaluate` for every pair on the held-out photos of FOLDER (COCO JSON `instances_val.json`, photos in
`images/`, the training photos in `instances_train.json`) and keeps the figures, without any picture, in
`benchmarks/results/evaluate-<weights>.json`. The report with the pictures stays in the folder given by --output.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder with instances_val.json and images/")
    options.add_argument("--output", type=Path, default=Path("out/evaluate"), help="where the reports go")
    options.add_argument("--suite", default="all")
    options.add_argument("--pairs", nargs="*", default=["sheep:giraffe"], help="source:target")
    options.add_argument("rest", nargs="*", help="after --: further options of instapipe evaluate")
    asked = options.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for pair in asked.pairs:
        source, _, target = pair.partition(":")
        folder = asked.output / f"{source}-{target}"
        command = [
            sys.executable, "-m", "instapipe", "evaluate", "--data", str(asked.data), "--source", source,
            "--target", target, "--suite", asked.suite, "--reference", str(asked.data / "instances_train.json"),
            "--output", str(folder), *asked.rest,
        ]  # fmt: skip
        started = time.monotonic()
        subprocess.run(command, check=True)
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["run"] = {
            "seconds": round(time.monotonic() - started),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "photos_of": "a data set that is not redistributed",
        }
        path = RESULTS / f"evaluate-{metrics['weights']['name']}-{source}.json"
        path.write_text(json.dumps(metrics, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main()
