"""`instapipe train-upscaler`: what weights make gets detail where it is shown larger."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from instapipe.cli import learning
from instapipe.config import Direction

_EVERY = 50


def command(
    target_data: learning.TargetData,
    weights: learning.Weights,
    output: learning.Output,
    export: Annotated[Path, typer.Option(help="A new folder for the weights with it.", metavar="DIR")],
    target_masks: learning.TargetMasks = None,
    views: learning.Views = 2,
    steps: learning.Steps = 400,
    batch: Annotated[int, typer.Option(min=1, help="Pieces of instances a step.")] = 8,
    rate: learning.Rate = 2e-4,
    soft: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=4, metavar="PX", help="How soft instances are made first: the more, the more is made anew."
        ),
    ] = None,
    config: learning.Config = None,
    seed: learning.Seed = 0,
    device: learning.Device = "auto",
) -> None:
    """Give weights an upscaler: in photos that show animals larger than the weights' windows they get detail.

    It learns from large instances of the target alone; one that the weights have goes on learning. Learn from photos
    that are trained on, never from those that are measured on. A run that was stopped goes on with the same command;
    OUTPUT/samples has a picture every 50 steps: interpolated, upscaled, and the photo.
    """
    import torch
    from rich.console import Console

    from instapipe.networks.backbone import pretrained_features
    from instapipe.networks.cards import find_card
    from instapipe.networks.devices import resolve_device
    from instapipe.networks.projected import FrozenBackbone
    from instapipe.networks.upscaler import Upscaler, UpscalerForm, load_upscaler
    from instapipe.networks.weights import check_gradable, with_attached
    from instapipe.training import school
    from instapipe.training.lessons import windows_of
    from instapipe.training.pairs import Windows, views_of
    from instapipe.training.turns import cutting_for
    from instapipe.training.upscaling import LEVELS, SMALLEST, Finisher, Upscaling, initialised

    learning.check_new(export)
    card, folder = find_card(weights, "translator")
    way: Direction = "source_to_target"
    check_gradable(card, way)
    size = card.size_of(way)
    assert size is not None
    device = resolve_device(device)
    console = Console()
    alike = cutting_for(card.model_copy(update={"target_size": None}), "target_to_source", 1.0, 0.0)
    targets = learning.photos_of(target_data, [card.target], target_masks, config)
    least = round(SMALLEST * 2 * size[0])
    with learning.shown(console, f"cutting windows of {card.target}") as bar:

        def windows(times: int) -> Windows:
            side = times * size[0]
            large = alike.model_copy(
                update={"size": side, "load_size": times * alike.load_size, "min_side": round(SMALLEST * side)}
            )
            return views_of(windows_of(targets, large), large, card.compositing, seed, views, bar.told)

        settings = Upscaling(steps=steps, batch=batch, rate=rate, seed=seed)
        if card.upscaler is None:
            upscaler = initialised(Upscaler(UpscalerForm()), seed)
        else:
            upscaler = load_upscaler(card.upscaler, folder)
        if soft is not None:
            upscaler.form = replace(upscaler.form, soft=soft)
        backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", LEVELS), size[0])
        finisher = Finisher(upscaler, (windows(2), windows(4)), backbone, settings, torch.device(device))
        # Only now: what there is too little for can be asked for once more with other options.
        resumed = school.claim(
            output,
            {
                "weights": card.directions[way].sha256, "upscaler": card.upscaler and card.upscaler.sha256,
                "target_data": str(target_data), "target_masks": str(target_masks), "views": views, "config": config,
                "seed": seed, "steps": steps, "batch": batch, "rate": rate, "soft": soft,
            },
        )  # fmt: skip
        coarse, fine = finisher.learnt

        def begun(before: float) -> str:
            return (
                f"{len(coarse)} windows of {card.target} of {least} px and more and {len(fine)} of twice as many are "
                f"learnt from; distance from photos held out: {before:.3f}"
            )

        before, reached = learning.learn(
            finisher, output, resumed, _EVERY, begun, "distance from photos", bar, finisher.picture
        )
        made = output / "upscaler.safetensors"
        finisher.average.write(made)
        facts = {
            "provenance": f"{card.provenance} The upscaler{', further' if card.upscaler else ''}: {steps} steps of "
            f"{batch} pieces of {len(coarse)} windows of {card.target} of {least} px and more and {len(fine)} of "
            f"twice as many; distance from photos held out {before:.3f} before, {reached:.3f} after.",
            "recipe": f"{card.recipe}; {shlex.join(['instapipe', *sys.argv[1:]])}".removeprefix("; "),
        }
        with_attached(card.model_copy(update=facts), folder, "upscaler", made, export)
    console.print(f"{export}: instapipe translate --weights {export}; --no-upscale leaves it out", soft_wrap=True)
