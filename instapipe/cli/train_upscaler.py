"""`instapipe train-upscaler`: what weights make gets detail where it is shown larger."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from instapipe.cli import learning
from instapipe.config import Direction

_EVERY = 100
_NARROWEST = 0.5
"""Of what is translated, width over height: narrower ones are seen from the front."""
_LARGE = 1.1
"""A real instance's longer side at least, in sides of the generator's window: smaller ones would be blown up."""


def command(
    source_data: learning.SourceData,
    target_data: learning.TargetData,
    weights: learning.Weights,
    output: learning.Output,
    export: Annotated[Path, typer.Option(help="A new folder for the weights with it.", metavar="DIR")],
    label: learning.Classes = None,
    source_masks: learning.SourceMasks = None,
    target_masks: learning.TargetMasks = None,
    views: learning.Views = 3,
    steps: learning.Steps = 1200,
    batch: Annotated[int, typer.Option(min=1, help="Made instances a step, and as many real ones.")] = 4,
    rate: learning.Rate = 3e-4,
    config: learning.Config = None,
    seed: learning.Seed = 0,
    device: learning.Device = "auto",
) -> None:
    """Give weights an upscaler: in photos that show animals larger than the weights' windows they get detail.

    It learns from real instances of the target that are large, and from what the weights make. Learn from photos that
    are trained on, never from those that are measured on. A run that was stopped goes on with the same command;
    OUTPUT/samples has a picture every hundred steps: interpolated, and upscaled.
    """
    import torch
    from rich.console import Console

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

    learning.check_new(export)
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
    sources = learning.photos_of(source_data, classes, source_masks, config)
    targets = learning.photos_of(target_data, [card.target], target_masks, config)
    given = {
        "weights": card.directions[way].sha256, "source_data": str(source_data), "source_masks": str(source_masks),
        "classes": classes, "views": views, "config": config, "seed": seed,
    }  # fmt: skip
    school.claim(output / "made", given)
    with learning.shown(console, f"translating {named}") as bar:
        kept = output / "made" / "instances.npz"
        if not kept.is_file():
            choice = choose(card, folder, way, device, "auto", "auto")
            turns = Turns(card, folder, way, Runner(device, choice.engine, choice.precision), 1.0, _NARROWEST)
            Made.of(windows_of(sources, turns.cutting), turns, seed, views, bar.told).write(kept)
        made = Made.read(kept)
        bar.doing(f"cutting windows of {card.target}")
        real = views_of(windows_of(targets, large), large, card.compositing, seed, views, bar.told)
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

        def begun(before: float) -> str:
            return (
                f"{len(finisher.learnt)} instances made of {named} and {len(finisher.real_learnt)} windows of "
                f"{card.target} of {large.min_side} px and more are learnt from; distance of coats on photos held "
                f"out, interpolated: {before:.2f}"
            )

        before, reached = learning.learn(
            finisher, output, resumed, _EVERY, begun, "distance of coats", bar, finisher.picture
        )
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
