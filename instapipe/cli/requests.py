"""The options that say what a translation is to be: shared by `translate` and `cache explain`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from instapipe.config import build, read_yaml
from instapipe.errors import UsageError
from instapipe.pipeline.runner import Runner
from instapipe.pipeline.settings import TranslateSettings, parse_numbers, parse_size
from instapipe.pipeline.store import DEFAULT_CAP, Store, default_root
from instapipe.resources import configs_root

Source = Annotated[str | None, typer.Option("--source", help="Class that is translated.", metavar="CLASS")]
Target = Annotated[str | None, typer.Option("--target", help="Class that it becomes.", metavar="CLASS")]
Masks = Annotated[
    Path | None,
    typer.Option(
        "--masks", help="Masks that you have: a folder or a file in any of the known formats.", metavar="PATH"
    ),
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Translator: a bundled name, a folder or a file.", metavar="NAME|PATH")
]
SegmenterName = Annotated[
    str | None, typer.Option("--segmenter", help="Segmenter: a bundled name, a folder, or torchvision.", metavar="NAME")
]
Region = Annotated[
    str | None,
    typer.Option("--region", help="whole photo, or a window around each instance.", metavar="auto|whole|instance"),
]
Background = Annotated[
    str | None,
    typer.Option("--background", help="exact: only masks and a seam may change.", metavar="natural|exact"),
]
Seam = Annotated[int | None, typer.Option("--seam", help="Width of that seam, model pixels.", metavar="N")]
Size = Annotated[str | None, typer.Option("--size", help="What the model works at.", metavar="HxW")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.", metavar="D")]
Engine = Annotated[
    str | None, typer.Option("--engine", help="What runs the generator.", metavar="auto|torch|compile|openvino|onnx")
]
Precision = Annotated[
    str | None, typer.Option("--precision", help="Of the generator.", metavar="auto|float32|bfloat16|int8")
]
PerStep = Annotated[int | None, typer.Option("--instances-per-step", help="Translated together.", metavar="N")]
Tries = Annotated[
    int | None,
    typer.Option("--tries", help="Translations of each instance; the best outline stays.", metavar="N"),
]
Upscale = Annotated[
    bool | None, typer.Option("--upscale/--no-upscale", help="Give detail to what is enlarged (slower).")
]
MaxInstances = Annotated[int | None, typer.Option("--max-instances", help="At most this many a photo.", metavar="N")]
Score = Annotated[float | None, typer.Option("--score", help="Lowest score of the segmenter.", metavar="T")]
MinArea = Annotated[
    str | None, typer.Option("--min-area", help="Smallest mask: 400 (pixels) or 0.5% (of the photo).", metavar="A")
]
OrderName = Annotated[
    str | None,
    typer.Option(
        "--order",
        help="What is translated first.",
        metavar="size|size-ascending|score|left-to-right|random|given",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Of --order random.", metavar="N")]
Keep = Annotated[
    str | None, typer.Option("--keep", help="Only these instances, by number, whatever their class.", metavar="1,3")
]
Drop = Annotated[str | None, typer.Option("--drop", help="Not these instances, by number.", metavar="2")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Where results are kept.", metavar="DIR")]
Verify = Annotated[
    str | None,
    typer.Option(
        "--verify",
        help="Look at the result: flag what failed, retry in other orders, or roll it back.",
        metavar="flag|retry|roll-back",
    ),
]
JudgeName = Annotated[str | None, typer.Option("--judge", help="Who looks, with --verify.", metavar="NAME")]
Config = Annotated[
    str | None, typer.Option("--config", help="Settings as YAML, or a bundled name; options win.", metavar="FILE")
]


def settings_from(
    config: str | None, *, size: str | None, keep: str | None, drop: str | None, **options: Any
) -> TranslateSettings:
    """Settings from the file and the options that were given. Raises ConfigError."""
    given = {name: value for name, value in options.items() if value is not None}
    if size is not None:
        given["size"] = parse_size(size)
    if keep is not None:
        given["keep"] = parse_numbers(keep)
    if drop is not None:
        given["drop"] = parse_numbers(drop)
    if config is None:
        return build(TranslateSettings, given, "options")
    path = Path(config).expanduser()
    bundled = configs_root() / "translate" / f"{config}.yaml"
    return read_yaml(bundled if not path.exists() and bundled.is_file() else path, TranslateSettings, given)


def open_store(cache: Path | None, cap: int = DEFAULT_CAP) -> Store:
    """The cache in the folder that was asked for. Raises CacheError."""
    return Store(cache.expanduser() if cache is not None else default_root(), cap=cap)


def runner_maker(verify: str | None, judge: str | None) -> Callable[..., Runner]:
    """What makes the runner: with `verify`, one that looks at what it made. Raises UsageError."""
    if verify is None:
        if judge is not None:
            raise UsageError("--judge is for --verify: add --verify flag")
        return Runner
    from instapipe.pipeline.verify import ON_FAILURE, VerifyingRunner
    from instapipe.verdict.card import DEFAULT

    if verify not in ON_FAILURE:
        raise UsageError(f"--verify must be one of {', '.join(ON_FAILURE)}, got {verify!r}")
    return partial(VerifyingRunner, on_failure=verify, judge_name=judge or DEFAULT)
