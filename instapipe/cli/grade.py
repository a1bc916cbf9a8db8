"""`instapipe grade`: people grade what weights make, a grader learns from it and chooses among several tries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instapipe.cli.teach import teach_command
from instapipe.errors import UsageError

command = typer.Typer(no_args_is_help=True)
command.command("teach")(teach_command)


@command.callback()
def _group() -> None:
    """Grades for translated animals: sheets to look at, and a grader that learns from what was said."""


@command.command("sheets")
def sheets_command(
    data: Annotated[Path, typer.Option(help="COCO JSON, or a folder of photos with masks.", metavar="PATH")],
    weights: Annotated[str, typer.Option(help="Whose outputs are to be graded.", metavar="NAME|PATH")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for sheets and answers.", metavar="DIR")],
    label: Annotated[
        str | None, typer.Option("--class", help="The class to translate; default: the weights' source.", metavar="C")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks, if not beside the photos.", metavar="PATH")] = None,
    count: Annotated[int, typer.Option(min=1, help="Outputs in all.")] = 288,
    views: Annotated[int, typer.Option(min=1, help="Crops of each instance: the same animal, better and worse.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Which photos and crops, in which order.")] = 0,
) -> None:
    """Translate instances and put them, numbered, on sheets; grades.csv waits for 0 (broken), 1 or 2 (sound) of each.

    Grade photos that are trained on, never those that are measured on.
    """
    from rich.console import Console
    from rich.progress import track

    from instapipe.data.photos import read_photos
    from instapipe.networks.cards import direction_of, find_card
    from instapipe.training.grading import ANSWERS
    from instapipe.training.to_grade import OutputsToGrade, write_to_grade

    if (output / ANSWERS).exists():
        raise UsageError(f"{str(output / ANSWERS)!r} is there already: grades are never overwritten, choose another")
    card, folder = find_card(weights, "translator")
    label = label or card.source
    # Any class may be tried with the weights; only their target has a way back.
    way = direction_of(card, label, card.source) or "source_to_target"
    making = OutputsToGrade(card, folder, way, views=views, most=count, seed=seed)
    console = Console()
    photos = read_photos(data, label, masks=masks)
    shown = track(making(photos), "translating", total=count, console=Console(stderr=True), transient=True)
    for path in write_to_grade(output, list(shown), seed):
        console.print(str(path), soft_wrap=True)
    console.print(f"write a grade behind each number in {output / ANSWERS}: 0 broken, 1 doubtful, 2 sound;")
    console.print("a grader learns what the grades look at: count legs, look for heads, or what else matters to you;")
    console.print(f"then: instapipe grade fit {output} -o grader.safetensors", soft_wrap=True)


@command.command("fit")
def fit_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders of `grade sheets`, with grades.", metavar="DIR...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new .safetensors file.", metavar="FILE")],
) -> None:
    """Learn from the grades; says how well the grader agrees with people on photos that it did not learn from."""
    from rich.console import Console
    from rich.progress import Progress

    from instapipe.networks.grader import GRADES
    from instapipe.training.grading import fit_grader, read_graded

    if output.suffix != ".safetensors":
        raise UsageError(f"--output {str(output)!r}: expected a name that ends in .safetensors")
    if output.exists():
        raise UsageError(f"--output {str(output)!r} exists: a grader is never overwritten, choose another name")
    graded = [read_graded(folder) for folder in folders]
    console = Console()
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task("looking")
        grader = fit_grader(graded, progress=lambda done, total: bars.update(bar, completed=done, total=total))
    grader.write(output)
    counts = [int(sum((each.grades == grade).sum() for each in graded)) for grade in GRADES]
    console.print(
        f"{output}: {grader.form.outputs} outputs ({counts[0]} broken, {counts[1]} doubtful, {counts[2]} sound); "
        f"rank correlation with grades of photos left out: {grader.form.agreement:.2f}",
        soft_wrap=True,
    )
    console.print(f"next: instapipe grade attach {output} --weights NAME -o DIR", soft_wrap=True)


@command.command("attach")
def attach_command(
    grader: Annotated[Path, typer.Argument(help="What `grade fit` wrote.", metavar="FILE")],
    weights: Annotated[str, typer.Option(help="A translator into the class that was graded.", metavar="NAME|PATH")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the weights.", metavar="DIR")],
) -> None:
    """Copy weights and give them a grader: of several tries of each instance the best outline stays."""
    from instapipe.networks.cards import find_card
    from instapipe.networks.grader import read_grader
    from instapipe.networks.weights import check_gradable, with_attached

    card, folder = find_card(weights, "translator")
    check_gradable(card)
    read_grader(grader)
    with_attached(card, folder, "grader", grader, output)
    typer.echo(f"{output}: instapipe translate --weights {output}; --tries 1 leaves the grader out")
