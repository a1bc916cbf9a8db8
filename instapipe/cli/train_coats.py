"""`instapipe train-coats`: what weights make gets the coats of real instances."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from instapipe.cli.learning import EXCLUDING
from instapipe.config import Direction
from instapipe.errors import UsageError

_EVERY = 50
_NARROWEST = 0.5
"""Of what is translated; a real instance of :data:`_REAL_NARROWEST` is seen from the front, with another coat."""
_REAL_NARROWEST = 0.45


def command(
    source_data: Annotated[Path, typer.Option(help="COCO JSON, or a folder of photos with masks.", metavar="PATH")],
    target_data: Annotated[Path, typer.Option(help="Likewise, of the target.", metavar="PATH")],
    weights: Annotated[str, typer.Option(help="A translator.", metavar="NAME|PATH")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that was stopped goes on.")],
    export: Annotated[Path, typer.Option(help="A new folder for the weights.", metavar="DIR")],
    label: Annotated[
        list[str] | None,
        typer.Option("--class", help="Classes that are translated; default: the weights' source.", metavar="C"),
    ] = None,
    source_masks: Annotated[Path | None, typer.Option(help="Masks, if not beside the photos.", metavar="PATH")] = None,
    target_masks: Annotated[Path | None, typer.Option(help="Likewise.", metavar="PATH")] = None,
    views: Annotated[int, typer.Option(min=1, help="Crops of each instance.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Steps in all.")] = 800,
    batch: Annotated[int, typer.Option(min=1, help="Instances a step, and as many real ones.")] = 6,
    rate: Annotated[float, typer.Option(min=0, help="The learning rate; it falls to 0 at the end.")] = 2e-4,
    keep: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the weights as they were in those that come out.")
    ] = 0.5,
    config: Annotated[str | None, typer.Option(help=EXCLUDING, metavar="NAME|PATH")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Let source to target learn the coats of real instances of the target; the outlines that it makes stay.

    Learn from photos that are trained on, never from those that are measured on. A run that was stopped goes on with
    the same command; OUTPUT/samples has a picture every fifty steps.
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
    from instapipe.networks.weights import check_gradable, load_generator, with_direction
    from instapipe.training import school
    from instapipe.training.grooming import LEVELS, Groomer, Grooming
    from instapipe.training.lessons import windows_of
    from instapipe.training.pairs import views_of
    from instapipe.training.turns import cutting_for

    if export.exists():
        raise UsageError(f"--export {str(export)!r} exists: weights are never overwritten, choose another name")
    card, folder = find_card(weights, "translator")
    way: Direction = "source_to_target"
    check_gradable(card, way)
    device = resolve_device(device)
    console = Console()
    classes = label or [card.source]
    named = ", ".join(classes)
    there = cutting_for(card, way, max_company=1.0, narrowest=_NARROWEST)
    # Real instances are cut out as if they were to be translated back, at the size of what is made.
    alike = card.model_copy(update={"target_size": None})
    back = cutting_for(alike, "target_to_source", max_company=1.0, narrowest=_REAL_NARROWEST)
    sources = [
        photo for name in classes for photo in learnable(read_photos(source_data, name, masks=source_masks), config)
    ]
    targets = learnable(read_photos(target_data, card.target, masks=target_masks), config)
    given = {
        "weights": card.directions[way].sha256, "source_data": str(source_data), "source_masks": str(source_masks),
        "target_data": str(target_data), "target_masks": str(target_masks), "classes": classes, "views": views,
        "config": config, "steps": steps, "batch": batch, "rate": rate, "keep": keep, "seed": seed,
    }  # fmt: skip
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars, Interruption() as interruption:
        bar = bars.add_task("cutting windows", total=None)

        def cut(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)
            if interruption.wanted:
                raise typer.Exit(130)

        bars.update(bar, description=f"cutting windows of {named}")
        shown = views_of(windows_of(sources, there), there, card.compositing, seed, views, cut)
        bars.update(bar, description=f"cutting windows of {card.target}")
        real = views_of(windows_of(targets, back), back, card.compositing, seed, views, cut)
        backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", LEVELS))
        settings = Grooming(steps=steps, batch=batch, rate=rate, keep=keep, seed=seed)
        generator = load_generator(card, folder, way)
        groomer = Groomer(generator, shown, real, backbone, card.compositing, settings, torch.device(device))
        # Only now: what there is too little for can be asked for once more with other options.
        resumed = school.claim(output, given)
        samples = output / "samples"

        def save() -> None:
            path = samples / f"step-{groomer.step:05d}.png"
            write_atomically(path, encode_image(groomer.picture(), ".png"))
            groomer.save(output / school.CHECKPOINTS)

        before, reached = go_on(groomer, output, resumed)
        if not groomer.step:
            save()
        console.print(
            f"{len(groomer.learnt)} windows of {named} and {len(groomer.real_learnt)} of {card.target} are "
            f"learnt from; distance of coats on photos held out: {before:.2f}; {groomer.precision.precision}: "
            f"{groomer.precision.reason}",
            soft_wrap=True,
        )
        last = learn(groomer, output, steps, _EVERY, save, "distance of coats", console, bars, bar, interruption)
        reached = reached if last is None else last
        facts = {
            "provenance": f"{card.provenance} Coats learnt from real instances, outlines kept: {steps} steps of "
            f"{batch} of {len(groomer.learnt)} windows of {named} against {len(groomer.real_learnt)} of "
            f"{card.target}, {keep:g} of the weights as before; distance of coats on photos held out {before:.2f} "
            f"before, {reached:.2f} after.",
            "recipe": shlex.join(["instapipe", *sys.argv[1:]]),
            "quality": {},
        }
        learnt = dict(groomer.outcome().state_dict())
        with_direction(card.model_copy(update=facts), folder, way, learnt, export)
    console.print(f"{export}: instapipe evaluate says what it can do", soft_wrap=True)
