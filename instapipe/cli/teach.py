"""`instapipe grade teach`: weights learn to make at once what was the best of their own tries."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from instapipe.cli import learning
from instapipe.config import Direction
from instapipe.errors import UsageError

_EVERY = 100


def teach_command(
    data: learning.SourceData,
    weights: Annotated[str, typer.Option(help="A translator with a grader.", metavar="NAME|PATH")],
    output: learning.Output,
    export: learning.Export,
    label: Annotated[
        list[str] | None,
        typer.Option("--class", help="Classes to learn from; default: the weights' source.", metavar="C"),
    ] = None,
    masks: learning.SourceMasks = None,
    views: learning.Views = 5,
    least: Annotated[float, typer.Option(help="The grade from which on a try is learnt from.")] = 1.5,
    steps: learning.Steps = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Lessons a step.")] = 8,
    rate: Annotated[float, typer.Option(min=0, help="The learning rate at first; it falls to 0.")] = 2e-4,
    seed: learning.Seed = 0,
    device: learning.Device = "auto",
) -> None:
    """Let weights learn to make at once what was the best of their own tries, as their grader sees it.

    Teach on photos that are trained on, never on those that are measured on. A run that was stopped goes on with the
    same command.
    """
    import torch
    from rich.console import Console

    from instapipe.data.photos import read_photos
    from instapipe.networks.backbone import pretrained_features
    from instapipe.networks.cards import find_card
    from instapipe.networks.devices import resolve_device
    from instapipe.networks.grader import load_grader
    from instapipe.networks.projected import FrozenBackbone
    from instapipe.networks.weights import load_generator, with_direction
    from instapipe.training import school
    from instapipe.training.teaching import LEVELS, Teacher, Teaching
    from instapipe.training.turns import Runner, Turns
    from instapipe.translation.engine import choose

    learning.check_new(export)
    card, folder = find_card(weights, "translator")
    if card.grader is None:
        raise UsageError(
            f"weights {card.name!r} have no grader that could choose: instapipe grade attach gives them one"
        )
    device = resolve_device(device)
    way: Direction = "source_to_target"
    classes = label or [card.source]
    console = Console()
    settings = Teaching(steps, batch, rate, least, seed)
    resumed = school.claim(
        output,
        {
            "weights": card.directions[way].sha256, "grader": card.grader.sha256, "data": str(data), "classes": classes,
            "views": views, "least": least, "steps": steps, "batch": batch, "rate": rate, "seed": seed,
        },
    )  # fmt: skip
    choice = choose(card, folder, way, device, "auto", "auto")
    turns = Turns(card, folder, way, Runner(device, choice.engine, choice.precision), max_company=1.0, narrowest=0.5)
    grader = load_grader(card.grader, folder)
    with learning.shown(console, "trying") as bar:

        def told(what: str, total: int, done: int) -> None:
            bar.bars.update(bar.task, description=f"trying {what}", completed=done, total=total)
            if bar.interruption.wanted:
                raise KeyboardInterrupt

        photos = {name: read_photos(data, name, masks=masks) for name in classes}
        lessons = school.gather(output / "lessons", photos, turns, grader, views, seed, told)
        backbone = FrozenBackbone(pretrained_features("tf_efficientnet_lite0", LEVELS))
        generator = load_generator(card, folder, way)
        teacher = Teacher(generator, lessons, grader, backbone, settings, torch.device(device))

        def begun(before: float) -> str:
            return (
                f"{len(lessons)} windows, {len(teacher.learnt)} lessons of {least:g} and more; grade at the first try "
                f"of {len(teacher.held_out)} windows of photos held out: {before:.2f}"
            )

        before, reached = learning.learn(
            teacher, output, resumed, _EVERY, begun, "grade at the first try, held out", bar
        )
        facts = {
            "provenance": f"{card.provenance} Taught by its own best tries: {steps} steps of {batch} of "
            f"{len(teacher.learnt)} lessons from {len(lessons)} windows; mean grade at the first try on "
            f"{len(teacher.held_out)} windows of photos held out {before:.2f} before, {reached:.2f} after.",
            "recipe": shlex.join(["instapipe", *sys.argv[1:]]),
            "quality": {},
        }
        learnt = dict(teacher.average.state_dict())
        with_direction(card.model_copy(update=facts), folder, way, learnt, export)
    console.print(f"{export}: instapipe evaluate says what it can do", soft_wrap=True)
