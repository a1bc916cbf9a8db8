"""`instapipe data`: pack and check training sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instapipe.errors import UsageError
from instapipe.imaging import encode_image, write_atomically

if TYPE_CHECKING:
    from instapipe.data.check import Report
    from instapipe.structures import Instances

FORMS = {"coco": "COCO JSON", "masks": "photos with masks", "photos": "photos without masks"}
EXAMPLES = 3

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
    shown = track(photos, "cutting windows", console=Console(stderr=True), transient=True)
    done = pack(shown, label, output, Packing(size, margin, min_side, round(max_mb * 1e6)))
    left_out = ", ".join(f"{count} {reason}" for reason, count in done.left_out.items())
    console.print(
        f"{done.windows} windows of {label} from {done.photos} photos, {done.companions} neighbours in them"
        + (f"; left out: {left_out}" if left_out else ""),
        soft_wrap=True,
    )
    console.print(
        f"{done.bytes / 1e6:.1f} MB at WebP quality {done.quality}; "
        f"a training window of 1.25x the instance has {size * 1.25 / margin:.0f} px in it",
        soft_wrap=True,
    )
    console.print(f"train on it: --source-data {output} or --target-data {output}", soft_wrap=True)


@command.command("check")
def check_command(
    paths: Annotated[list[Path], typer.Argument(help="COCO JSON or a folder; two for both sides.", metavar="PATH...")],
    labels: Annotated[
        list[str] | None, typer.Option("--class", help="The class meant, one a side (repeatable).", metavar="C")
    ] = None,
    masks: Annotated[
        list[Path] | None, typer.Option("--masks", help="Masks, if not beside the photos, one a side.", metavar="PATH")
    ] = None,
    min_side: Annotated[int, typer.Option(min=0, help="As data.min_side of the training, pixels.")] = 48,
    max_cut: Annotated[float, typer.Option(min=0, max=1, help="As data.max_cut of the training.")] = 0.3,
    sheet: Annotated[
        Path, typer.Option(help="Folder for the contact sheets, check-<name>.png.", metavar="DIR")
    ] = Path(),
) -> None:
    """Look for what is wrong with a training set before hours are spent on it, and say what to do.

    Masks that do not fit their photo, are inverted, empty or doubled, have no photo; photos without masks, damaged or
    there twice; what training will leave out. With two sides (two paths, or two classes of one) also whether the number
    of instances tells them apart. Exit codes: 0 clean; 1 there are problems, or nothing could be checked.
    """
    from rich.console import Console

    from instapipe.data.counts import NOTABLE, separation

    console = Console()
    sides = _sides(paths, labels or [], masks or [])
    reports = [_check(path, label, given, min_side, max_cut, console) for path, label, given in sides]
    names = Counter(_name(report, with_class=False) for report in reports)
    for report in reports:
        _show(report, console)
        if report.sheet:
            name = _name(report, with_class=names[_name(report, with_class=False)] > 1)
            _write_sheet(sheet / f"check-{name}.png", report, console)
    if len(reports) == 2 and all(report.counts for report in reports):
        apart = separation(reports[0].counts, reports[1].counts)
        means = " and ".join(f"{sum(r.counts) / len(r.counts):.1f}" for r in reports)
        advice = ": a discriminator can count instead of looking at shapes; train with data.balance: match"
        console.print(
            f"The number of instances a photo ({means} on average) tells the sides apart in {apart:.0%} of pairs "
            f"(50% is best)" + (advice if apart > NOTABLE else ""),
            soft_wrap=True,
        )
    if not all(report.clean for report in reports):
        raise typer.Exit(1)


@command.command("noise")
def noise_command(
    data: Annotated[Path, typer.Option(help="COCO JSON, or a folder of photos with masks.", metavar="PATH")],
    labels: Annotated[
        list[str], typer.Option("--class", help="A class whose instances are compared (repeatable).", metavar="C")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON to write.", metavar="FILE")],
    masks: Annotated[Path | None, typer.Option(help="Masks, if not beside the photos.", metavar="PATH")] = None,
    segmenter: Annotated[str | None, typer.Option(help="Who is measured.", metavar="NAME")] = None,
    most: Annotated[int | None, typer.Option(min=1, help="Only the first so many photos a class.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where its masks are kept.", metavar="DIR")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """Measure a segmenter's errors against masks that are right: how often it misses or merges instances, how far its
    outlines lie off, what it leaves out. `instapipe train --set data.mask_noise=FILE` makes the same errors.
    """
    from rich.console import Console
    from rich.progress import track

    from instapipe.cli.requests import open_store
    from instapipe.data.photos import read_photos
    from instapipe.evaluation.mask_errors import mask_errors
    from instapipe.evaluation.measured import predictions
    from instapipe.networks.devices import resolve_device
    from instapipe.pipeline.resolve import find_segmenter

    console = Console()
    store = open_store(cache)
    pairs: list[tuple[Instances, Instances]] = []
    for label in labels:
        photos = read_photos(data, label, masks=masks)[:most]
        found = find_segmenter(segmenter, label, store)
        each = predictions(photos, label, found, store, resolve_device(device))
        bar = Console(stderr=True)
        pairs += track(each, f"segmenting {label}", total=len(photos), console=bar, transient=True)
    noise = mask_errors(pairs, found.name)
    write_atomically(output, (noise.model_dump_json(indent=1) + "\n").encode())
    middle = len(noise.offset) // 2
    console.print(
        f"{found.name} on {noise.instances} {', '.join(labels)}: {noise.drop:.1%} not found, {noise.merge:.1%} merged; "
        f"outlines off by {noise.offset[middle]:+.2%} of the square root of the area (median), "
        f"{noise.holes[middle]:.1%} missing in pieces; written: {output}",
        soft_wrap=True,
    )


def _sides(paths: list[Path], labels: list[str], masks: list[Path]) -> list[tuple[Path, str | None, Path | None]]:
    """Paths, classes and masks side by side: a single path or class goes for both. Raises UsageError."""
    count = max(len(paths), len(labels))
    for values, what in ((paths, "paths"), (labels, "classes"), (masks, "--masks")):
        if len(values) not in (0, 1, count) or count > 2:
            raise UsageError(f"{len(values)} {what} for {count} sides: give one or two of each")
    own_labels = [*labels, *[labels[0] if labels else None] * (count - len(labels))]
    own_masks = [*masks, *[masks[0] if masks else None] * (count - len(masks))]
    return list(zip(paths * (count // len(paths)), own_labels, own_masks, strict=True))


def _check(path: Path, label: str | None, masks: Path | None, min_side: int, max_cut: float, console: Any) -> Report:
    from instapipe.data.check import check

    with console.status("") as status:
        for report in check(path, label, masks=masks, min_side=min_side, max_cut=max_cut):
            status.update(f"{path}: {report.photos} photos, {len(report.findings)} findings")
    return report


def _show(report: Report, console: Any) -> None:
    from rich.table import Table

    from instapipe.data.findings import ADVICE, Finding

    classes = ", ".join(f"{name or 'no class'} {n}" for name, n in report.classes.most_common())
    meant = f" of {report.label}" if report.label else ""
    console.print(
        f"{report.source} ({FORMS[report.form]}): {report.photos} photos, {report.instances} instances{meant} in "
        f"{len(report.counts)} of them" + (f"; all classes: {classes}" if len(report.classes) > 1 else ""),
        soft_wrap=True,
    )
    found: dict[str, list[Finding]] = {}
    for finding in sorted(report.findings, key=lambda each: not each.problem):
        found.setdefault(finding.kind, []).append(finding)
    if not found:
        console.print("  clean")
        return
    table = Table("", "what", "n", show_lines=True)
    for title in ("such as", "what to do"):
        table.add_column(title, overflow="fold", ratio=1)
    for findings in found.values():
        examples = [f"{each.photo}: {each.detail}" if each.detail else each.photo for each in findings[:EXAMPLES]]
        more = f"\n... {len(findings) - EXAMPLES} more" if len(findings) > EXAMPLES else ""
        advice = ADVICE[findings[0].kind]
        mark = "[red]mend[/red]" if advice.problem else "note"
        table.add_row(mark, findings[0].kind, str(len(findings)), _plain("\n".join(examples) + more), advice.remedy)
    console.print(table)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # names may have brackets, which rich would take for markup


def _name(report: Report, *, with_class: bool) -> str:
    return f"{report.source.absolute().stem}-{report.label}" if with_class else report.source.absolute().stem


def _write_sheet(path: Path, report: Report, console: Any) -> None:
    from instapipe.data.sheet import contact_sheet

    write_atomically(path, encode_image(contact_sheet(report.sheet), ".png"))
    console.print(f"  contact sheet: {path}", soft_wrap=True)
