"""`instapipe train-texture`: the coats of what weights make become even."""

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
"""Of what is translated, width over height: narrower ones are seen from the front."""


def command(
    source_data: Annotated[Path, typer.Option(help="COCO JSON, or a folder of photos with masks.", metavar="PATH")],
    weights: Annotated[str, typer.Option(help="A translator.", metavar="NAME|PATH")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that was stopped goes on.")],
    export: Annotated[Path, typer.Option(help="A new folder for the weights.", metavar="DIR")],
    label: Annotated[
        list[str] | None,
        typer.Option("--class", help="Classes that are translated; default: the weights' source.", metavar="C"),
    ] = None,
    source_masks: Annotated[Path | None, typer.Option(help="Masks, if not beside the photos.", metavar="PATH")] = None,
    views: Annotated[int, typer.Option(min=1, help="Crops of each instance.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps in all.")] = 450,
    batch: Annotated[int, typer.Option(min=1, help="Instances a step.")] = 6,
    rate: Annotated[float, typer.Option(min=0, help="The learning rate; it falls to 0 at the end.")] = 1.5e-4,
    config: Annotated[str | None, typer.Option(help=EXCLUDING, metavar="NAME|PATH")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Let the coat in the middle of what source to target makes go on over rump, belly, neck and legs.

    For weights whose windows look to the right (`facing` in the card): there the middle is known. Outlines stay as they
    are. Learn from photos that are trained on, never from those that are measured on. A run that was stopped goes on
    with the same command; OUTPUT/samples has a picture every fifty steps.
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
    from instapipe.training.lessons import windows_of
    from instapipe.training.pairs import views_of
    from instapipe.training.turns import cutting_for
    from instapipe.training.weaving import LEVELS, Weaver, Weaving

    if export.exists():
        raise UsageError(f"--export {str(export)!r} exists: weights are never overwritten, choose another name")
    card, folder = find_card(weights, "translator")
    way: Direction = "source_to_target"
    check_gradable(card, way)
    if card.facing != "right":
        raise UsageError(
            f"{card.name!r} takes animals as they stand (facing: {card.facing}), so it is not known where their middle "
            "is: weights of a training with data.facing=right can be used"
        )
    device = resolve_device(device)
    console = Console()
    classes = label or [card.source]
    named = ", ".join(classes)
    cutting = cutting_for(card, way, max_company=1.0, narrowest=_NARROWEST)
    photos = [
        photo for name in classes for photo in learnable(read_photos(source_data, name, masks=source_masks), config)
    ]
    given = {
        "weights": card.directions[way].sha256, "source_data": str(source_data), "source_masks": str(source_masks),
        "classes": classes, "views": views, "config": config, "steps": steps, "batch": batch, "rate": rate,
        "seed": seed,
    }  # fmt: skip
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars, Interruption() as interruption:
        bar = bars.add_task(f"cutting windows of {named}", total=None)

        def cut(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)
            if interruption.wanted:
                raise typer.Exit(130)

        shown = views_of(windows_of(photos, cutting), cutting, card.compositing, seed, views, cut)
        backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", LEVELS))
        settings = Weaving(steps=steps, batch=batch, rate=rate, seed=seed)
        generator = load_generator(card, folder, way)
        weaver = Weaver(generator, shown, backbone, card.compositing, settings, torch.device(device))
        # Only now: what there is too little for can be asked for once more with other options.
        resumed = school.claim(output, given)

        def save() -> None:
            path = output / "samples" / f"step-{weaver.step:05d}.png"
            write_atomically(path, encode_image(weaver.picture(), ".png"))
            weaver.save(output / school.CHECKPOINTS)

        before, reached = go_on(weaver, output, resumed)
        if not weaver.step:
            save()
        console.print(
            f"{len(weaver.learnt)} windows of {named} are learnt from; distance of textures from the middle's on "
            f"photos held out: {before:.2f}; {weaver.precision.precision}: {weaver.precision.reason}",
            soft_wrap=True,
        )
        last = learn(weaver, output, steps, _EVERY, save, "distance of textures", console, bars, bar, interruption)
        reached = reached if last is None else last
        facts = {
            "provenance": f"{card.provenance} Coats made even by the middle's, outlines kept: {steps} steps of "
            f"{batch} of {len(weaver.learnt)} windows of {named}; distance of textures on photos held out "
            f"{before:.2f} before, {reached:.2f} after.",
            "recipe": shlex.join(["instapipe", *sys.argv[1:]]),
            "quality": {},
        }
        learnt = dict(weaver.average.state_dict())
        with_direction(card.model_copy(update=facts), folder, way, learnt, export)
    console.print(f"{export}: instapipe evaluate says what it can do", soft_wrap=True)
