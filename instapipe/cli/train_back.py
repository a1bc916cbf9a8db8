"""`instapipe train-back`: the way back learns from what the way there makes of real photos."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

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
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that was stopped goes on.")],
    export: Annotated[Path, typer.Option(help="A new folder for the weights.", metavar="DIR")],
    source_masks: Annotated[Path | None, typer.Option(help="Masks, if not beside the photos.", metavar="PATH")] = None,
    target_masks: Annotated[Path | None, typer.Option(help="Likewise.", metavar="PATH")] = None,
    views: Annotated[int, typer.Option(min=1, help="Crops of each instance.")] = 3,
    least: Annotated[
        float | None, typer.Option(help="The lowest grade of what is shown; default: 0.6 where there is a grader.")
    ] = None,
    legs: Annotated[
        int, typer.Option(min=0, max=6, help="Learn only from animals of which so many legs can be seen; 0: from all.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps in all.")] = 800,
    batch: Annotated[int, typer.Option(min=1, help="Pairs a step.")] = 6,
    others_a_step: Annotated[
        int, typer.Option("--others", min=1, help="Windows of real instances of the target beside them.")
    ] = 2,
    rate: Annotated[float, typer.Option(min=0, help="The learning rate; it falls to 0 at the end.")] = 2e-4,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Let target to source learn from what source to target makes: of each giraffe it is known which sheep it was.

    Every instance of the weights' source is translated; the way back then learns to make the photo of what was made of
    it, against discriminators, with real instances of the target beside them. Learn from photos that are trained on,
    never from those that are measured on. A run that was stopped goes on with the same command; OUTPUT/samples has a
    picture every fifty steps.
    """
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from instapipe.cli.learning import go_on, learn
    from instapipe.cli.train import Interruption
    from instapipe.data.photos import read_photos
    from instapipe.imaging import encode_image, write_atomically
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

    if export.exists():
        raise UsageError(f"--export {str(export)!r} exists: weights are never overwritten, choose another name")
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

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars, Interruption() as interruption:
        bar = bars.add_task("cutting windows", total=None)

        def told(view: int, total: int, done: int) -> None:
            what = f"translating {card.source}, view {view + 1} of {views}"
            bars.update(bar, description=what, completed=done, total=total)
            if interruption.wanted:
                console.print("interrupted; whole views are kept; the same command goes on")
                raise typer.Exit(130)

        pairs = school.gather_pairs(output / "pairs", sources, way_there, views, seed, told)
        bars.update(bar, description=f"cutting windows of {card.target}", total=None)
        # Seen from the front giraffes are narrow, and they are translated all the same.
        cutting = cutting_for(card, way, max_company=1.0, narrowest=0.0)

        def cut(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)

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
        samples = output / "samples"

        def keep() -> None:
            path = samples / f"step-{returner.step:05d}.png"
            write_atomically(path, encode_image(returner.picture(), ".png"))
            returner.save(output / school.CHECKPOINTS)

        before, reached = go_on(returner, output, resumed)
        if not returner.step:
            keep()
        console.print(
            f"{len(pairs)} pairs, {len(returner.learnt)} of them learnt from, {len(returner.others_learnt)} windows of "
            f"{card.target}; loss on photos held out: {before:.2f}; {returner.precision.precision}: "
            f"{returner.precision.reason}",
            soft_wrap=True,
        )
        last = learn(returner, output, steps, _EVERY, keep, "loss on photos held out", console, bars, bar, interruption)
        reached = reached if last is None else last
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
