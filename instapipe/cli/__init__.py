"""The command line: a table of commands, each imported only when it is the one that was typed.

Every command is a module of this package that exposes `command`: a function with typer annotations, or a `typer.Typer`
for a group of subcommands. To add one, add its module and a line in :data:`COMMANDS`.

Errors raised on purpose (:class:`InstapipeError`) become one line on stderr and the error's exit code; an interruption
ends with 130 (typer's doing); `--traceback` before the command shows the whole stack instead.
"""

from __future__ import annotations

import gc
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from instapipe import __version__
from instapipe.errors import InstapipeError

__all__ = ["COMMANDS", "application", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "translate": ("instapipe.cli.translate", "Translate the instances in a photo, a folder or a glob of photos."),
    "segment": ("instapipe.cli.segment", "Find the instances in photos; write masks, COCO JSON and numbered overlays."),
    "masks": ("instapipe.cli.masks", "Convert masks between PNG, label map, COCO, YOLO-seg and labelme."),
    "train": ("instapipe.cli.train", "Train a translator on photos with instance masks."),
    "train-back": ("instapipe.cli.train_back", "Let the way back learn from what the way there makes."),
    "train-coats": ("instapipe.cli.train_coats", "Let what weights make get the coats of real instances."),
    "train-texture": ("instapipe.cli.train_texture", "Let coats that weights make go on evenly over the animal."),
    "train-upscaler": ("instapipe.cli.train_upscaler", "Give what weights make detail where it is shown larger."),
    "train-segmenter": ("instapipe.cli.train_segmenter", "Train the compact Mask R-CNN that makes the masks."),
    "evaluate": ("instapipe.cli.evaluate", "Measure translations by an independent judge: metrics, table, report."),
    "train-judge": ("instapipe.cli.train_judge", "Train the independent judge, and measure how far to believe it."),
    "grade": ("instapipe.cli.grade", "Grade outputs; a grader that learns from it chooses among several tries."),
    "data": ("instapipe.cli.data", "Training sets: check them, pack them to carry them elsewhere."),
    "weights": ("instapipe.cli.weights", "Weights: list, show, verify, export from a run, import the authors'."),
    "export": ("instapipe.cli.export", "A translator as ONNX or OpenVINO, any size, any number of instances."),
    "cache": ("instapipe.cli.cache", "Where results are kept: path, ls, explain, prune, verify, clear."),
    "doctor": ("instapipe.cli.doctor", "What is installed, what this machine can do, where cache and weights live."),
}

SETTINGS: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
HELP = "Translate the instances in photos from one class to another, and keep the background."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends with SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A photo's name may be in another encoding than the terminal's: it is said as it is.
            stream.reconfigure(errors="surrogateescape")
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Before the command there can be options, but none that takes a value: the first word is the command.
    command = next((word for word in given if not word.startswith("-")), None)
    try:
        # What modules make at their import stays: looking through it for garbage takes 7 % of a run from the cache.
        gc.disable()
        try:
            app = application(command)
        finally:
            gc.enable()
        app(args=given, prog_name="instapipe")
    except InstapipeError as error:
        if command is not None and "--traceback" in given[: given.index(command)]:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def application(wanted: str | None) -> typer.Typer:
    """The typer application in which the command `wanted` is real (imported) and the others are a line of help."""
    app = typer.Typer(
        help=HELP, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}, **SETTINGS
    )
    app.callback()(_options)
    for name, (module, summary) in COMMANDS.items():
        command = importlib.import_module(module).command if name == wanted else _placeholder
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, help=summary)
        else:
            app.command(name, help=command.__doc__ if name == wanted else summary, short_help=summary)(command)
    return app


def _placeholder() -> None:
    """Stands for a command that is only listed."""


def _show_version(shown: bool) -> None:
    if shown:
        typer.echo(f"instapipe {__version__}")
        raise typer.Exit()


def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the whole stack of an error.")] = False,
) -> None:
    """Options before the command."""
