"""`instapipe weights`: list, show, verify, pull, export, pack, import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instapipe.config import SegmenterCard, TranslatorCard, direction_named
from instapipe.errors import ConfigError, UsageError, WeightsError

if TYPE_CHECKING:
    from rich.progress import TaskID

command = typer.Typer(no_args_is_help=True)


@command.command("list")
def list_() -> None:
    """The weights known by name, bundled or pulled: what they do, their size."""
    from rich.console import Console
    from rich.table import Table

    from instapipe.networks.cards import known

    table = Table("name", "kind", "does", "size")
    for card, folder in known():
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        table.add_row(card.name, card.kind, _purpose(card), f"{size / 1e6:.1f} MB")
    Console().print(table)


@command.command()
def show(name: Annotated[str, typer.Argument(help="A bundled name, or a folder with a card.json.")]) -> None:
    """The whole card, as JSON."""
    card, _ = _find(name)
    typer.echo(card.model_dump_json(indent=1))


@command.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all bundled ones without.")] = None,
) -> None:
    """Compare every file with the digest in its card."""
    from instapipe.networks.cards import digest, known
    from instapipe.networks.download import files_of

    chosen = [_find(name) for name in names] if names else known()
    bad = []
    for card, folder in chosen:
        for file, expected in files_of(card):
            path = folder / file
            good = path.is_file() and digest(path) == expected
            typer.echo(f"{'good' if good else 'BAD '}  {card.name}/{file}")
            if not good:
                bad.append(f"{card.name}/{file}")
    if bad:
        raise WeightsError(f"{len(bad)} of the files are missing or not what their card says: {', '.join(bad)}")


@command.command()
def pull(
    what: Annotated[str, typer.Argument(help="torchvision:v1, torchvision:v2, or the URL of a card.json.")],
) -> None:
    """Download weights: torchvision's COCO Mask R-CNN, or a folder of weights by the URL of its card."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    name, _, variant = what.partition(":")
    if name == "torchvision":
        from instapipe.segmentation import torchvision

        with Console().status(f"pulling {what}"):
            path = torchvision.pull(variant or "v2")
        typer.echo(f"{path}")
        return
    from instapipe.networks.download import pull as download
    from instapipe.resources import pulled_root

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as bar:
        tasks: dict[str, TaskID] = {}

        def report(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file, total=total or None)
            bar.update(tasks[file], completed=done)

        card = download(what, pulled_root(), report)
    typer.echo(f"{card.name}: {_purpose(card)}; in {pulled_root() / card.name}")


@command.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    output: Annotated[Path, typer.Option(help="Folder to write; its name is the weights' name.")],
    best: Annotated[
        bool, typer.Option("--best", help="The one with the best held-out score (train --validate-every).")
    ] = False,
    facts: Annotated[
        Path | None, typer.Option(help="JSON with further fields of the card: data, quality, limits, licence ...")
    ] = None,
) -> None:
    """A checkpoint of a run, the newest if not the best, as safetensors (half precision) with a card."""
    from instapipe.training.export import export_run

    fields = {}
    if facts is not None:
        try:
            fields = json.loads(facts.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read facts {str(facts)!r}: {error}") from error
        if not isinstance(fields, dict):
            raise ConfigError(f"facts {str(facts)!r}: expected an object with fields of a card")
        unknown = fields.keys() - TranslatorCard.model_fields.keys()
        if unknown:
            raise ConfigError(f"facts {str(facts)!r}: a card has no field {min(unknown)!r}")
    card = export_run(run, output, fields, best=best)
    typer.echo(f"{output}: {card.source} <-> {card.target}, {card.steps} steps")


@command.command()
def pack(
    name: Annotated[str, typer.Argument(help="Translator: a bundled name, or a folder with a card.json.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; its name is the weights' name.")],
    direction: Annotated[
        list[str] | None,
        typer.Option(help="source_to_target or target_to_source: that generator alone.", metavar="WAY"),
    ] = None,
) -> None:
    """The same weights in 8 bits: half the size, outlines and colours all but the same.

    Each channel of a convolution has a scale of its own. In the computer's memory they are as large as before.
    """
    from instapipe.networks.cards import find_card
    from instapipe.networks.weights import in_eight_bits

    card, folder = find_card(name, "translator")
    wanted = [direction_named(text) for text in direction] if direction else list(card.directions)
    missing = [way for way in wanted if way not in card.directions]
    if missing:
        raise UsageError(f"weights {card.name!r} have no {missing[0]}; there is {', '.join(card.directions)}")
    before = sum((folder / entry.file).stat().st_size for entry in card.files)
    packed = in_eight_bits(card, folder, wanted, output)
    after = sum((output / entry.file).stat().st_size for entry in packed.files)
    typer.echo(f"{output}: {after / 1e6:.1f} MB instead of {before / 1e6:.1f} MB")


@command.command("import")
def import_(
    source_to_target: Annotated[Path, typer.Argument(help="The authors' <epoch>_net_G_A.pth.")],
    target_to_source: Annotated[Path | None, typer.Argument(help="<epoch>_net_G_B.pth, where there is one.")] = None,
    *,
    source: Annotated[str, typer.Option(help="Class that A was trained to translate from.")],
    target: Annotated[str, typer.Option(help="Class that A was trained to translate to.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    size: Annotated[str | None, typer.Option(help="HxW that the weights were trained at; none: any size.")] = None,
) -> None:
    """Import the authors' published checkpoints; width and blocks are read from the state dicts."""
    from instapipe.networks.weights import import_official

    card = import_official(source_to_target, target_to_source, output, source=source, target=target, size=_size(size))
    form = card.generator
    typer.echo(f"{output}: {source} -> {target}, width {form.width}, {form.encoder_blocks} blocks")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if (
        not (height.isdigit() and width.isdigit())
        or int(height) % 4
        or int(width) % 4
        or min(int(height), int(width)) < 8
    ):
        raise ConfigError(f"--size {text!r}: expected HxW, both multiples of 4 and at least 8, like 200x200")
    return int(height), int(width)


def _purpose(card: TranslatorCard | SegmenterCard) -> str:
    if isinstance(card, SegmenterCard):
        return "finds " + ", ".join(card.classes)
    arrow = "<->" if len(card.directions) == 2 else "->" if "source_to_target" in card.directions else "<-"
    also = f", also {', '.join(card.also_from)} -> {card.target}" if card.also_from else ""
    return f"{card.source} {arrow} {card.target}{also}"


def _find(name: str) -> tuple[TranslatorCard | SegmenterCard, Path]:
    from instapipe.networks.cards import find_card

    try:
        return find_card(name, "translator")
    except WeightsError as error:
        try:
            return find_card(name, "segmenter")
        except WeightsError:
            raise error from None
