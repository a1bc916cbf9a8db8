"""`instapipe train-back`: the way back learns from what the way there makes of real photos."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from instapipe.cli import learning
from instapipe.config import Direction
from instapipe.errors import UsageError

_EVERY = 50
_LEAST = 0.6
_ROUND_TRIPS = 2
"""After which what is made of a real instance is taken: what is learnt from are made ones."""
_NARROWEST = 0.5
"""Of a source, width over height: narrower ones are seen from the front."""


def command(
    source_data: Annotated[
        Path, typer.Option(help="Photos of the source: COCO JSON, or a folder with masks.", metavar="PATH")
    ],
    target_data: Annotated[Path, typer.Option(help="Photos of the target, likewise.", metavar="PATH")],
    weights: Annotated[str, typer.Option(help="A translator that goes both ways.", metavar="NAME|PATH")],
    output: learning.Output,
    export: learning.Export,
    source_masks: learning.SourceMasks = None,
    target_masks: learning.TargetMasks = None,
    views: learning.Views = 3,
    least: Annotated[
        float | None, typer.Option(help="The lowest grade of what is shown; default: 0.6 where there is a grader.")
    ] = None,
    legs: Annotated[
        int, typer.Option(min=0, max=6, help="Learn only from animals of which so many legs can be seen; 0: from all.")
    ] = 0,
    steps: learning.Steps = 800,
    batch: Annotated[int, typer.Option(min=1, help="Pairs a step.")] = 6,
    others_a_step: Annotated[
        int, typer.Option("--others", min=1, help="Windows of real instances of the target beside them.")
    ] = 2,
    rate: learning.Rate = 2e-4,
    seed: learning.Seed = 0,
    device: learning.Device = "auto",
) -> None:
    """Let target to source learn from what source to target makes: of each giraffe it is known which sheep it was.

    Every instance of the weights' source is translated; the way back then learns to make the photo of what was made of
    it, against discriminators, with real instances of the target beside them. Learn from photos that are trained on,
    never from those that are measured on. A run that was stopped goes on with the same command; OUTPUT/samples has a
    picture every fifty steps.
    """
    import torch
    from rich.console import Console

    from instapipe.data.photos import read_photos
    from instapipe.networks.backbone import pretrained_features
    from instapipe.networks.cards import find_card
    from instapipe.networks.devices import resolve_device
    from instapipe.networks.grader import Grader, load_grader
    from instapipe.networks.projected import FrozenBackbone
    from instapipe.networks.weights import check_gradable, load_generator, with_direction
    from instapipe.training import school
    from instapipe.training.lessons import windows_of
    from instapipe.training.pairs import views_of
    from instapipe.training.returning import LEVELS, Returner, Returning
    from instapipe.training.turns import Runner, Turns, cutting_for
    from instapipe.translation.engine import choose

    learning.check_new(export)
    card, folder = find_card(weights, "translator")
    way: Direction = "target_to_source"
    missing = {"source_to_target", way} - set(card.directions)
    if missing:
        raise UsageError(f"weights {card.name!r} go one way ({min(missing)} is missing): choose some that go both ways")
    if least is not None and card.grader is None:
        raise UsageError(
            f"--least {least:g}: weights {card.name!r} have no grader: instapipe grade attach gives them one"
        )
    if card.grader is not None and least is None:
        least = _LEAST
    # What comes back is learnt at the size of what is made.
    card = card.model_copy(update={"target_size": None})
    for direction in card.directions:
        check_gradable(card, direction)
    device = resolve_device(device)
    console = Console()
    sources = read_photos(source_data, card.source, masks=source_masks)
    targets = read_photos(target_data, card.target, masks=target_masks)
    given = {
        "weights": card.directions["source_to_target"].sha256,
        "grader": card.grader.sha256 if card.grader is not None else None,
        "source_data": str(source_data), "source_masks": str(source_masks), "views": views, "seed": seed,
    }  # fmt: skip
    school.claim(output / "pairs", given)

    def way_there() -> tuple[Turns, Grader | None]:
        choice = choose(card, folder, "source_to_target", device, "auto", "auto")
        runner = Runner(device, choice.engine, choice.precision)
        turns = Turns(card, folder, "source_to_target", runner, max_company=1.0, narrowest=_NARROWEST)
        return turns, load_grader(card.grader, folder) if card.grader is not None else None

    with learning.shown(console, "cutting windows") as bar:

        def told(view: int, total: int, done: int) -> None:
            what = f"translating {card.source}, view {view + 1} of {views}"
            bar.bars.update(bar.task, description=what, completed=done, total=total)
            if bar.interruption.wanted:
                console.print("interrupted; whole views are kept; the same command goes on")
                raise typer.Exit(130)

        pairs = school.gather_pairs(output / "pairs", sources, way_there, views, seed, told)
        bar.bars.update(bar.task, description=f"cutting windows of {card.target}", total=None)
        # Seen from the front giraffes are narrow, and they are translated all the same.
        cutting = cutting_for(card, way, max_company=1.0, narrowest=0.0)

        def cut(done: int, total: int) -> None:
            bar.bars.update(bar.task, completed=done, total=total)

        others = views_of(windows_of(targets, cutting), cutting, card.compositing, seed, views, cut)
        backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", LEVELS))
        generator = load_generator(card, folder, way)
        settings = Returning(
            steps=steps, batch=batch, others=others_a_step, rate=rate, least=least or 0.0, legs=legs, seed=seed
        )
        returner = Returner(generator, pairs, others, backbone, card.compositing, settings, torch.device(device))
        # Only now: what there is too little for can be asked for once more with other options.
        resumed = school.claim(
            output,
            {
                **given, "back": card.directions[way].sha256, "target_data": str(target_data),
                "target_masks": str(target_masks), "least": least, "legs": legs, "steps": steps, "batch": batch,
                "others": others_a_step, "rate": rate,
            },
        )  # fmt: skip

        def begun(before: float) -> str:
            return (
                f"{len(pairs)} pairs, {len(returner.learnt)} of them learnt from, {len(returner.others_learnt)} "
                f"windows of {card.target}; loss on photos held out: {before:.2f}"
            )

        before, reached = learning.learn(
            returner, output, resumed, _EVERY, begun, "loss on photos held out", bar, returner.picture
        )
        facts: dict[str, Any] = {
            "target_size": None,
            "target_round_trips": _ROUND_TRIPS,
            "provenance": f"{card.provenance} The way back learnt from what the way there made: {steps} steps of "
            f"{batch} of {len(returner.learnt)} pairs and {others_a_step} of {len(returner.others_learnt)} windows of "
            f"{card.target}; loss on photos held out {before:.2f} before, {reached:.2f} after.",
            "recipe": shlex.join(["instapipe", *sys.argv[1:]]),
            "quality": {},  # what was measured of the way there was measured with round trips by the way back before
        }
        learnt = dict(returner.average.state_dict())
        with_direction(card.model_copy(update=facts), folder, way, learnt, export)
    console.print(f"{export}: instapipe evaluate says what it can do", soft_wrap=True)
