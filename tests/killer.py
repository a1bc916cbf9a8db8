"""Kill a run of the command line at random moments: `python killer.py KILLS ARGUMENTS...`.

Everything is imported once; each round forks, runs the command in the child and kills it with SIGKILL after a random
time, until KILLS children have died that way; then the run is let finish. Prints kills and rounds that finished.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time


def run(arguments: list[str]) -> None:
    """The command in this process, silent; ends it."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    try:
        from instapipe.cli import main

        main(arguments)
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 1)
    finally:
        os._exit(70)


def fork(arguments: list[str]) -> int:
    child = os.fork()
    if child == 0:
        run(arguments)
    return child


def main() -> None:
    """See the module."""
    kills, arguments = int(sys.argv[1]), sys.argv[2:]
    import torch

    import instapipe.cli.translate
    import instapipe.translation.engine  # noqa: F401

    torch.set_num_threads(1)
    rng = random.Random(0)
    killed = finished = 0
    longest = 0.5
    while killed < kills:
        start = time.monotonic()
        child = fork(arguments)
        deadline = start + rng.uniform(0, longest)
        code = None
        while code is None and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        if code is None:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL:
            killed += 1
        else:
            finished += 1
            # Done before its time was up: take all away again, and aim at the time that it took.
            longest = max(0.05, (time.monotonic() - start) * 0.9)
            if code not in (0, 3):
                sys.exit(f"the run ended with {code}")
            if killed < kills:
                forget(arguments)
    child = fork(arguments)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):
        sys.exit(f"the last run ended with {os.waitstatus_to_exitcode(status)}")
    sys.stdout.write(f"{killed} {finished + 1}\n")


def forget(arguments: list[str]) -> None:
    """Outputs and cache of a run that came through: the next kills shall fall into work again."""
    import shutil

    for option in ("--output", "--cache"):
        shutil.rmtree(arguments[arguments.index(option) + 1], ignore_errors=True)


main()
