"""Kill a training run with SIGKILL at chosen points: `python train_killer.py ARGUMENTS...` (of `instapipe train`).

Everything is imported once; each round forks and goes on with the run until it reaches the next point, where the child
kills itself. At last the run is let finish.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

import instapipe.cli.train  # noqa: F401
from instapipe.training import loop
from instapipe.training.run import LOG, Run


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def between_optimizers(step: int) -> None:
    """In the middle of a step: the generators have moved, the discriminators not."""
    advance, calls = torch.optim.Adam.step, []

    def hooked(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        return die() if len(calls) == step else advance(self, *arguments)

    torch.optim.Adam.step = hooked  # type: ignore[method-assign]


def while_writing(_: int) -> None:
    """Half of a checkpoint has reached the disk."""

    def half(state: object, stream: BinaryIO) -> None:
        stream.write(b"PK" + bytes(10_000))
        stream.flush()
        die()

    torch.save = half


def around_rename(after: bool) -> Callable[[int], None]:
    """A checkpoint is written but does not have its name yet, or has just got it."""

    def install(_: int) -> None:
        rename = os.replace

        def hooked(source: Any, target: Any) -> None:
            if str(target).endswith(".pt"):
                if after:
                    rename(source, target)
                die()
            rename(source, target)

        os.replace = hooked  # type: ignore[assignment]

    return install


def in_the_log(step: int) -> None:
    """Half a line of the log is written."""

    def hooked(run: Run, metrics: object) -> None:
        with (run.folder / LOG).open("a") as log:
            log.write('{"step": 3, "sec' if run.step == step else f'{{"step": {run.step}}}\n')
        if run.step == step:
            die()

    loop._log = hooked


POINTS: tuple[tuple[Callable[[int], None], int], ...] = (
    (between_optimizers, 2),  # before there is any checkpoint
    (while_writing, 0),
    (around_rename(after=True), 0),
    (in_the_log, 3),
    (between_optimizers, 4),
    (around_rename(after=False), 0),
)


def fork(arguments: list[str], install: Callable[[int], None] | None = None, where: int = 0) -> int:
    """How the run in the child ended."""
    child = os.fork()
    if child == 0:
        try:
            from instapipe.cli import main

            if install is not None:
                install(where)
            main(arguments)
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        finally:
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """See the module."""
    torch.set_num_threads(1)
    arguments = sys.argv[1:]
    for number, (install, where) in enumerate(POINTS):
        code = fork(arguments + (["--resume"] if number else []), install, where)
        if code != -signal.SIGKILL:
            sys.exit(f"round {number} ended with {code}")
    sys.exit(fork([*arguments, "--resume"]))


if __name__ == "__main__":
    main()
