"""`instapipe export`: a translator as ONNX or OpenVINO, for programs that are not this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from instapipe.config import direction_named
from instapipe.errors import ConfigError


def command(
    weights: Annotated[str, typer.Argument(help="A bundled name, a folder or a file.", metavar="NAME|PATH")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: NAME.onnx, or NAME.xml for OpenVINO.")],
    direction: Annotated[
        str, typer.Option(help="Which of its generators.", metavar="source_to_target|target_to_source")
    ] = "source_to_target",
    photos: Annotated[
        list[Path] | None, typer.Option("--photo", help="Photos to check the file on; without, pictures like photos.")
    ] = None,
    half: Annotated[bool, typer.Option(help="Weights in half precision (OpenVINO).")] = False,
) -> None:
    """Write a generator with any size (multiples of 4) and any number of instances, checked against torch before it is
    kept.

    Inputs: `image` (1, 3, H, W) and `masks` (1, N, H, W) in [-1, 1], -1 outside an instance. Outputs: `painted` and
    `mattes`, of the same shapes.
    """
    form = _format_of(output)
    wanted = direction_named(direction)
    if half and form != "openvino":
        raise ConfigError("--half is for OpenVINO (NAME.xml)")
    from instapipe.networks.cards import find_card
    from instapipe.networks.weights import load_generator
    from instapipe.translation.engines.export import export_generator, windows_of

    card, folder = find_card(weights, "translator")
    generator = load_generator(card, folder, wanted)
    report = export_generator(
        generator,
        output,
        form,
        windows=windows_of(photos or [], card.size_of(wanted)),
        half=half,
        about=f"{card.name}, {wanted}",
    )
    typer.echo(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB"
        f"; against torch on {report.windows} windows of {report.sizes} sizes with up to {report.instances} instances:"
        f" largest difference {report.largest:.1e}, mean {report.mean:.1e}, of [-1, 1]"
    )


def _format_of(output: Path) -> Literal["onnx", "openvino"]:
    endings: dict[str, Any] = {".onnx": "onnx", ".xml": "openvino"}
    if output.suffix.lower() not in endings:
        raise ConfigError(f"--output must end with {' or '.join(endings)}, got {str(output)!r}")
    found: Literal["onnx", "openvino"] = endings[output.suffix.lower()]
    return found
