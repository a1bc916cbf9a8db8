"""`instapipe data`: pack and check training sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

command = typer.Typer(no_args_is_help=True, help="Training sets: check them, pack them to carry them elsewhere.")


@command.callback()
def _group() -> None:
    """Training sets."""


@command.command("pack")
def pack_command(
    data: Annotated[Path, typer.Option(help="COCO JSON, or a folder of photos with masks.", metavar="PATH")],
    label: Annotated[str, typer.Option("--class", help="The class whose instances are packed.", metavar="C")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.", metavar="DIR")],
    masks: Annotated[Path | None, typer.Option(help="Masks, if not beside the photos.", metavar="PATH")] = None,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of a window in the pack, pixels.")] = 160,
    margin: Annotated[float, typer.Option(min=1, max=8, help="Side of the window over the instance's.")] = 2.0,
    min_side: Annotated[int, typer.Option(min=0, help="Smaller instances are left out, pixels of the photo.")] = 32,
    max_mb: Annotated[float, typer.Option(min=0.01, help="Most that the folder may weigh.")] = 25.0,
) -> None:
    """Cut windows around the instances of a class, resized, into a folder that is small enough to carry.

    `instapipe train` reads it like any COCO JSON, and cuts the same windows from it as from the photos.
    """
    from rich.console import Console
    from rich.progress import track

    from instapipe.data.pack import Packing, pack
    from instapipe.data.photos import read_photos

    console = Console()
    photos = read_photos(data, label, masks=masks)
    shown = track(photos, "cutting windows", console=console, transient=True)
    done = pack(shown, label, output, Packing(size, margin, min_side, round(max_mb * 1e6)))
    left_out = ", ".join(f"{count} {reason}" for reason, count in done.left_out.items())
    console.print(
        f"{done.windows} windows of {label} from {done.photos} photos, {done.companions} neighbours in them"
        + (f"; left out: {left_out}" if left_out else "")
    )
    console.print(
        f"{done.bytes / 1e6:.1f} MB at WebP quality {done.quality}; "
        f"a training window of 1.25x the instance has {size * 1.25 / margin:.0f} px in it"
    )
    console.print(f"train on it: --source-data {output} or --target-data {output}", soft_wrap=True)
