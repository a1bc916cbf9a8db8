"""`instapipe train-coats`: what weights make gets the coats of real instances."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from instapipe.cli import learning
from instapipe.config import Direction

_EVERY = 50
_NARROWEST = 0.5
"""Of what is translated; a real instance of :data:`_REAL_NARROWEST` is seen from the front, with another coat."""
_REAL_NARROWEST = 0.45


def command(
    source_data: learning.SourceData,
    target_data: learning.TargetData,
    weights: learning.Weights,
    output: learning.Output,
    export: learning.Export,
    label: learning.Classes = None,
    source_masks: learning.SourceMasks = None,
    target_masks: learning.TargetMasks = None,
    views: learning.Views = 3,
    steps: learning.Steps = 800,
    batch: Annotated[int, typer.Option(min=1, help="Instances a step, and as many real ones.")] = 6,
    rate: learning.Rate = 2e-4,
    keep: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the weights as they were in those that come out.")
    ] = 0.5,
    config: learning.Config = None,
    seed: learning.Seed = 0,
    device: learning.Device = "auto",
) -> None:
    """Let source to target learn the coats of real instances of the target; the outlines that it makes stay.

    Learn from photos that are trained on, never from those that are measured on. A run that was stopped goes on with
    the same command; OUTPUT/samples has a picture every fifty steps.
    """
    import torch
    from rich.console import Console

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

    learning.check_new(export)
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
    sources = learning.photos_of(source_data, classes, source_masks, config)
    targets = learning.photos_of(target_data, [card.target], target_masks, config)
    given = {
        "weights": card.directions[way].sha256, "source_data": str(source_data), "source_masks": str(source_masks),
        "target_data": str(target_data), "target_masks": str(target_masks), "classes": classes, "views": views,
        "config": config, "steps": steps, "batch": batch, "rate": rate, "keep": keep, "seed": seed,
    }  # fmt: skip
    with learning.shown(console, f"cutting windows of {named}") as bar:
        shown = views_of(windows_of(sources, there), there, card.compositing, seed, views, bar.told)
        bar.doing(f"cutting windows of {card.target}")
        real = views_of(windows_of(targets, back), back, card.compositing, seed, views, bar.told)
        backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", LEVELS))
        settings = Grooming(steps=steps, batch=batch, rate=rate, keep=keep, seed=seed)
        generator = load_generator(card, folder, way)
        groomer = Groomer(generator, shown, real, backbone, card.compositing, settings, torch.device(device))
        # Only now: what there is too little for can be asked for once more with other options.
        resumed = school.claim(output, given)

        def begun(before: float) -> str:
            return (
                f"{len(groomer.learnt)} windows of {named} and {len(groomer.real_learnt)} of {card.target} are "
                f"learnt from; distance of coats on photos held out: {before:.2f}"
            )

        before, reached = learning.learn(
            groomer, output, resumed, _EVERY, begun, "distance of coats", bar, groomer.picture
        )
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
