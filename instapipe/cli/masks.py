"""`instapipe masks`: convert masks from any format to any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instapipe.masks.convert import TARGETS, convert
from instapipe.masks.detect import FOLDERS

command = typer.Typer(no_args_is_help=True, help="Convert masks between PNG, label map, COCO, YOLO-seg and labelme.")


@command.callback()
def _group() -> None:
    """Masks in any format."""


@command.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file or folder of masks.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="A new folder, or for COCO a new .json file.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"What to write: {', '.join(TARGETS)}.")],
    given: Annotated[
        str | None,
        typer.Option("--from", metavar="FORMAT", help=f"What a folder SRC is in: {', '.join(FOLDERS)}."),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The photos: for formats that do not state sizes (YOLO-seg) or full names."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class of masks that have none (PNG, label map).")
    ] = None,
) -> None:
    """Convert masks from any format to any other.

    Polygons keep an IoU of at least 0.97 with each mask; every other format is exact, label maps where masks do not
    overlap. On any error nothing is written.
    """
    done = convert(source, destination, to, format=given, photos=photos, label=label)
    typer.echo(f"{done.instances} instances of {done.photos} photos: {done.path}")
