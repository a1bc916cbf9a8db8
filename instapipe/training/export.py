"""From a run to weights: the generators' moving averages where there are any, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from instapipe.config import Direction, TranslatorCard
from instapipe.errors import TrainingError
from instapipe.networks.weights import save_translator
from instapipe.training import checkpoint
from instapipe.training.record import settings_of
from instapipe.training.run import DIRECTIONS


def export_run(run: Path, folder: Path, facts: dict[str, Any] | None = None, *, best: bool = False) -> TranslatorCard:
    """Write the newest checkpoint of `run` as weights in `folder` (half precision), or the one of the best held-out
    score; `facts` are further card fields.

    Raises TrainingError where `run` holds no checkpoint, OutputError where `folder` exists.
    """
    kept = run / "checkpoints" / checkpoint.BEST
    if best and not kept.is_file():
        raise TrainingError(f"{str(run)!r} has no best checkpoint: it was trained without validate_every")
    state = checkpoint.load(kept) if best else checkpoint.load_latest(run / "checkpoints")
    if state is None:
        raise TrainingError(f"{str(run)!r} holds no checkpoint")
    settings, config = settings_of(run)
    initial = settings.get("initial")
    matte = config.compositing.mode == "matte"
    card = TranslatorCard(
        name=folder.name,
        source=settings["source"],
        target=settings["target"],
        generator=config.generator,
        compositing=config.compositing,
        size=(config.data.size, config.data.size) if config.data.mode == "window" else None,
        window_scale=config.data.window_scale,
        window_height_scale=config.data.window_height_scale,
        least_aspect=config.data.least_aspect,
        target_window_scale=config.data.target_window_scale,
        placement=config.data.placement,
        instances_per_step=config.data.instances_per_step,
        masks=config.data.masks,
        facing=config.data.facing,
        directions={},
        steps=state["step"],
        hardware=settings.get("hardware", ""),
        time=f"{state['seconds'] / 60:.0f} min",
        provenance=f"instapipe train, batch {config.batch_size}, seed {config.seed}"
        + (", matte compositing" if matte else "")
        + (f"; started from {initial['name']} ({initial['steps']} steps)" if initial else ""),
    )
    if best:
        chosen = state["best"]
        card = card.model_copy(
            update={"quality": {"best": f"{chosen['name']} {chosen['score']:.4f}, of the run's steps"}}
        )
    card = card.model_copy(update=facts or {})
    states: dict[Direction, dict[str, Tensor]] = {}
    for direction in DIRECTIONS:
        prefix = f"{direction}."
        whole = {k.removeprefix(prefix): v for k, v in state["networks"].items() if k.startswith(prefix)}
        states[direction] = state["averages"].get(direction, whole)
    return save_translator(folder, card, states)
