"""`instapipe train-texture`: the coats of what weights make become even."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from instapipe.cli import learning
from instapipe.config import Direction
from instapipe.errors import UsageError

_EVERY = 50
_NARROWEST = 0.5
"""Of what is translated, width over height: narrower ones are seen from the front."""


def command(
    source_data: learning.SourceData,
    weights: learning.Weights,
    output: learning.Output,
    export: learning.Export,
    label: learning.Classes = None,
    source_masks: learning.SourceMasks = None,
    views: learning.Views = 2,
    steps: learning.Steps = 450,
    batch: Annotated[int, typer.Option(min=1, help="Instances a step.")] = 6,
    rate: learning.Rate = 1.5e-4,
    config: learning.Config = None,
    seed: learning.Seed = 0,
    device: learning.Device = "auto",
) -> None:
    """Let the coat in the middle of what source to target makes go on over rump, belly, neck and legs.

    For weights whose windows look to the right (`facing` in the card): there the middle is known. Outlines stay as they
    are. Learn from photos that are trained on, never from those that are measured on. A run that was stopped goes on
    with the same command; OUTPUT/samples has a picture every fifty steps.
    """
    import torch
    from rich.console import Console

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

    learning.check_new(export)
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
    photos = learning.photos_of(source_data, classes, source_masks, config)
    given = {
        "weights": card.directions[way].sha256, "source_data": str(source_data), "source_masks": str(source_masks),
        "classes": classes, "views": views, "config": config, "steps": steps, "batch": batch, "rate": rate,
        "seed": seed,
    }  # fmt: skip
    with learning.shown(console, f"cutting windows of {named}") as bar:
        shown = views_of(windows_of(photos, cutting), cutting, card.compositing, seed, views, bar.told)
        backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", LEVELS))
        settings = Weaving(steps=steps, batch=batch, rate=rate, seed=seed)
        generator = load_generator(card, folder, way)
        weaver = Weaver(generator, shown, backbone, card.compositing, settings, torch.device(device))
        # Only now: what there is too little for can be asked for once more with other options.
        resumed = school.claim(output, given)

        def begun(before: float) -> str:
            return (
                f"{len(weaver.learnt)} windows of {named} are learnt from; distance of textures from the middle's on "
                f"photos held out: {before:.2f}"
            )

        before, reached = learning.learn(
            weaver, output, resumed, _EVERY, begun, "distance of textures", bar, weaver.picture
        )
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
