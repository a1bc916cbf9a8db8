"""`instapipe cache`: path, ls, explain, prune, verify, clear."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from instapipe.cli import requests as ask
from instapipe.errors import UsageError
from instapipe.pipeline.keys import json_line

command = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SPANS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@command.command()
def path(cache: ask.Cache = None) -> None:
    """Print where the cache is."""
    from instapipe.pipeline.store import default_root

    typer.echo(str(cache.expanduser() if cache is not None else default_root()))


@command.command()
def ls(
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage's entries.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an entry.")] = False,
    cache: ask.Cache = None,
) -> None:
    """List the entries, the last used first, and what they take together."""
    entries = [entry for entry in ask.open_store(cache).entries() if stage in (None, entry.stage)]
    for entry in sorted(entries, key=lambda entry: -entry.used):
        used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
        if as_json:
            typer.echo(json.dumps({"stage": entry.stage, "key": entry.key, "bytes": entry.bytes, "used": used}))
        else:
            typer.echo(f"{used}  {entry.bytes:>12,}  {entry.stage:<10} {entry.key[:16]}")
    if not as_json:
        typer.echo(f"{len(entries)} entries, {sum(entry.bytes for entry in entries) / 1e6:,.1f} MB")


@command.command()
def explain(
    photo: Annotated[Path, typer.Argument(help="The photo that was, or would be, translated.")],
    source: ask.Source = None,
    target: ask.Target = None,
    masks: ask.Masks = None,
    weights: ask.Weights = None,
    segmenter: ask.SegmenterName = None,
    region: ask.Region = None,
    background: ask.Background = None,
    seam: ask.Seam = None,
    size: ask.Size = None,
    device: ask.Device = None,
    engine: ask.Engine = None,
    precision: ask.Precision = None,
    instances_per_step: ask.PerStep = None,
    tries: ask.Tries = None,
    upscale: ask.Upscale = None,
    max_instances: ask.MaxInstances = None,
    score: ask.Score = None,
    min_area: ask.MinArea = None,
    order: ask.OrderName = None,
    seed: ask.Seed = None,
    keep: ask.Keep = None,
    drop: ask.Drop = None,
    cache: ask.Cache = None,
    config: ask.Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a stage.")] = False,
) -> None:
    """Say which stages `translate` with these options would find, and why the first one it would not.

    A miss is compared with the entry of the same stage that differs least; the fields that differ are its cause.
    """
    from instapipe.pipeline.explain import explain as explained
    from instapipe.pipeline.store import default_root

    settings = ask.settings_from(
        config, size=size, keep=keep, drop=drop, source=source, target=target, weights=weights, segmenter=segmenter,
        region=region, background=background, seam=seam, device=device, engine=engine, precision=precision,
        instances_per_step=instances_per_step, tries=tries, upscale=upscale, max_instances=max_instances,
        score=score, min_area=min_area, order=order, seed=seed,
    )  # fmt: skip
    root = cache.expanduser() if cache is not None else default_root()
    for verdict in explained(settings, root, photo, masks):
        if as_json:
            typer.echo(json_line(verdict.facts()))
            continue
        typer.echo(f"{verdict.stage}: {'hit' if verdict.hit else 'miss'}{verdict.note}")
        for name, (wanted, stored) in verdict.differences.items():
            typer.echo(f"  {name}: now {_brief(wanted)}, then {_brief(stored)}")


@command.command()
def prune(
    to: Annotated[str | None, typer.Option("--to", help="Size to get down to, such as 5GB or 500MB.")] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Age since last use, such as 30d or 12h.")
    ] = None,
    cache: ask.Cache = None,
) -> None:
    """Throw away what was not used for longest, down to a size (10 GB unless told), or all that is older."""
    from instapipe.pipeline.store import DEFAULT_CAP

    cap = _size(to) if to is not None else (DEFAULT_CAP if older_than is None else 1 << 62)
    gone, freed = ask.open_store(cache).prune(cap, older_than=None if older_than is None else _span(older_than))
    typer.echo(f"{gone} entries thrown away, {freed / 1e6:,.1f} MB")


@command.command()
def verify(cache: ask.Cache = None) -> None:
    """Read every entry and compare digests; damaged ones are thrown away. Exit code 1 if there were any."""
    sound, damaged = ask.open_store(cache).verify()
    for entry in damaged:
        typer.echo(f"damaged: {entry.stage} {entry.key[:16]}")
    typer.echo(f"{sound} entries sound, {len(damaged)} damaged and thrown away")
    raise typer.Exit(1 if damaged else 0)


@command.command()
def clear(cache: ask.Cache = None) -> None:
    """Throw everything away."""
    store = ask.open_store(cache)
    size = sum(entry.bytes for entry in store.entries())
    store.clear()
    typer.echo(f"cleared {store.root}, {size / 1e6:,.1f} MB")


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"a size is a number with a unit, such as 5GB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _span(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip())
    if match is None:
        raise UsageError(f"an age is a number with a unit (m, h, d, w), such as 30d, got {text!r}")
    return float(match[1]) * _SPANS[match[2]]


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
