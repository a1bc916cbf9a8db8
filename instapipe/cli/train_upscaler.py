"""`instapipe train-upscaler`: what weights make gets detail where it is shown larger."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from instapipe.cli.learning import EXCLUDING
from instapipe.config import Direction
from instapipe.errors import UsageError

_EVERY = 100
_NARROWEST = 0.5
"""Of what is translated, width over height: narrower ones are seen from the front."""
_LARGE = 1.3
"""A real instance's longer side at least, in sides of the generator's window: smaller ones would be blown up."""


def command(
    source_data: Annotated[Path, typer.Option(help="COCO JSON, or a folder of photos with masks.", metavar="PATH")],
    target_data: Annotated[Path, typer.Option(help="Likewise, of the target.", metavar="PATH")],
    weights: Annotated[str, typer.Option(help="A translator.", metavar="NAME|PATH")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that was stopped goes on.")],
    export: Annotated[Path, typer.Option(help="A new folder for the weights with it.", metavar="DIR")],
    label: Annotated[
        list[str] | None,
        typer.Option("--class", help="Classes that are translated; default: the weights' source.", metavar="C"),
    ] = None,
    source_masks: Annotated[Path | None, typer.Option(help="Masks, if not beside the photos.", metavar="PATH")] = None,
    target_masks: Annotated[Path | None, typer.Option(help="Likewise.", metavar="PATH")] = None,
    views: Annotated[int, typer.Option(min=1, help="Crops of each instance.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Steps in all.")] = 1200,
    batch: Annotated[int, typer.Option(min=1, help="Made instances a step, and as many real ones.")] = 4,
    rate: Annotated[float, typer.Option(min=0, help="The learning rate; it falls to 0 at the end.")] = 3e-4,
    config: Annotated[str | None, typer.Option(help=EXCLUDING, metavar="NAME|PATH")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Give weights an upscaler: in photos that show animals larger than the weights' windows they get detail.

    It learns from real instances of the target that are large, and from what the weights make. Learn from photos that
    are trained on, never from those that are measured on. A run that was stopped goes on with the same command;
    OUTPUT/samples has a picture every hundred steps: interpolated, and upscaled.
    """
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from instapipe.cli.learning import go_on, learn, learnable
    from instapipe.cli.train import Interruption
    from instapipe.data.photos import read_photos
    from instapipe.imaging import encode_image, write_atomically
    from instapipe.networks.backbone import pretrained_features
    from instapipe.networks.cards import find_card
    from instapipe.networks.devices import resolve_device
    from instapipe.networks.projected import FrozenBackbone
    from instapipe.networks.weights import check_gradable, with_attached
    from instapipe.training import school
    from instapipe.training.lessons import windows_of
    from instapipe.training.made import Made
    from instapipe.training.pairs import views_of
    from instapipe.training.turns import Runner, Turns, cutting_for
    from instapipe.training.upscaling import LEVELS, Finisher, Upscaling
    from instapipe.translation.engine import choose

    if export.exists():
        raise UsageError(f"--export {str(export)!r} exists: weights are never overwritten, choose another name")
    card, folder = find_card(weights, "translator")
    way: Direction = "source_to_target"
    check_gradable(card, way)
    size = card.size_of(way)
    assert size is not None
    device = resolve_device(device)
    console = Console()
    classes = label or [card.source]
    named = ", ".join(classes)
    alike = cutting_for(card.model_copy(update={"target_size": None}), "target_to_source", 1.0, 0.0)
    large = alike.model_copy(
        update={"size": 2 * size[0], "load_size": 2 * alike.load_size, "min_side": round(_LARGE * size[0])}
    )
    sources = [
        photo for name in classes for photo in learnable(read_photos(source_data, name, masks=source_masks), config)
    ]
    targets = learnable(read_photos(target_data, card.target, masks=target_masks), config)
    given = {
        "weights": card.directions[way].sha256, "source_data": str(source_data), "source_masks": str(source_masks),
        "classes": classes, "views": views, "config": config, "seed": seed,
    }  # fmt: skip
    school.claim(output / "made", given)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars, Interruption() as interruption:
        bar = bars.add_task(f"translating {named}", total=None)

        def told(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)
            if interruption.wanted:
                raise typer.Exit(130)

        kept = output / "made" / "instances.npz"
        if not kept.is_file():
            choice = choose(card, folder, way, device, "auto", "auto")
            turns = Turns(card, folder, way, Runner(device, choice.engine, choice.precision), 1.0, _NARROWEST)
            Made.of(windows_of(sources, turns.cutting), turns, seed, views, told).write(kept)
        made = Made.read(kept)
        bars.update(bar, description=f"cutting windows of {card.target}")
        real = views_of(windows_of(targets, large), large, card.compositing, seed, views, told)
        backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", LEVELS), size[0])
        settings = Upscaling(steps=steps, batch=batch, rate=rate, seed=seed)
        finisher = Finisher(made, real, backbone, settings, torch.device(device))
        # Only now: what there is too little for can be asked for once more with other options.
        resumed = school.claim(
            output,
            {
                **given, "target_data": str(target_data), "target_masks": str(target_masks),
                "steps": steps, "batch": batch, "rate": rate,
            },
        )  # fmt: skip

        def save() -> None:
            path = output / "samples" / f"step-{finisher.step:05d}.png"
            write_atomically(path, encode_image(finisher.picture(), ".png"))
            finisher.save(output / school.CHECKPOINTS)

        before, reached = go_on(finisher, output, resumed)
        if not finisher.step:
            save()
        console.print(
            f"{len(finisher.learnt)} instances made of {named} and {len(finisher.real_learnt)} windows of "
            f"{card.target} of {large.min_side} px and more are learnt from; distance of coats on photos held out, "
            f"interpolated: {before:.2f}; {finisher.precision.precision}: {finisher.precision.reason}",
            soft_wrap=True,
        )
        last = learn(finisher, output, steps, _EVERY, save, "distance of coats", console, bars, bar, interruption)
        reached = reached if last is None else last
        upscaler = output / "upscaler.safetensors"
        finisher.average.write(upscaler)
        facts = {
            "provenance": f"{card.provenance} The upscaler: {steps} steps of {batch} of {len(finisher.learnt)} "
            f"instances made of {named} and {batch} of {len(finisher.real_learnt)} windows of {card.target} of "
            f"{large.min_side} px and more; distance of coats on photos held out {before:.2f} interpolated, "
            f"{reached:.2f} upscaled.",
            "recipe": f"{card.recipe}; {shlex.join(['instapipe', *sys.argv[1:]])}".removeprefix("; "),
        }
        with_attached(card.model_copy(update=facts), folder, "upscaler", upscaler, export)
    console.print(f"{export}: instapipe translate --weights {export}; --no-upscale leaves it out", soft_wrap=True)
