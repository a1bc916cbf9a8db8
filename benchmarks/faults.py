"""A folder run killed 200 times at random moments must end with the bytes of a quiet one.

`python benchmarks/faults.py [KILLS]`: the fault test of the test suite, with more kills (200 unless told).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Exit code of the test."""
    kills = sys.argv[1] if len(sys.argv) > 1 else "200"
    tests = Path(__file__).resolve().parent.parent / "tests" / "test_pipeline_folders.py"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tests), "-k", "killed_again_and_again"],
        env={**os.environ, "INSTAPIPE_KILLS": kills},
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
