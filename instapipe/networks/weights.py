"""Translator weights on disk: a folder with `card.json` and one safetensors file a direction, whole or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from instapipe.config import AttachedFile, Direction, DirectionFile, TranslatorCard
from instapipe.errors import OutputError, UsageError, WeightsError
from instapipe.networks.cards import CARD, attached, digest
from instapipe.networks.eight_bits import packed, unpacked
from instapipe.networks.generator import SetGenerator
from instapipe.networks.official import generator_from_official, read_state_dict


def load_generator(card: TranslatorCard, folder: Path, direction: Direction, device: str = "cpu") -> SetGenerator:
    """One of the card's generators: float32, eval mode, no gradients.

    Raises WeightsError where the file is missing, damaged, or not what the card says.
    """
    if direction not in card.directions:
        raise WeightsError(f"weights {card.name!r} have no {direction}; there is {', '.join(card.directions)}")
    entry = card.directions[direction]
    path = attached(entry, folder)
    generator = SetGenerator(card.generator)
    try:
        generator.load_state_dict(unpacked(load_file(path)))
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{str(path)!r} does not fit its card: {' '.join(str(error).split())[:200]}") from error
    return generator.to(device).eval().requires_grad_(False)


def check_gradable(card: TranslatorCard, direction: Direction = "source_to_target") -> None:
    """Raises UsageError where what the weights make has no outline that a grader could choose."""
    size = card.size_of(direction)
    if not card.paints_outlines or size is None or size[0] != size[1]:
        raise UsageError(
            f"weights {card.name!r} make no outlines to grade or to learn from: that needs square windows with "
            "placement: ground, a mask for each instance, and compositing by mattes"
        )


def with_attached(
    card: TranslatorCard, folder: Path, what: Literal["grader", "upscaler"], file: Path, output: Path
) -> TranslatorCard:
    """Write the weights in `folder` and a grader or an upscaler for what they make to `output` (which must not exist).

    Raises OutputError where it exists or cannot be written, WeightsError where a file is missing or damaged.
    """
    entry = AttachedFile(file=f"{what}.safetensors", sha256=digest(file))
    files = {each.file: attached(each, folder) for each in card.files if each != getattr(card, what)}
    return _write_whole(output, card.model_copy(update={"name": output.name, what: entry}), {**files, entry.file: file})


def save_translator(
    folder: Path, card: TranslatorCard, states: dict[Direction, dict[str, Tensor]], *, half: bool = True
) -> TranslatorCard:
    """Write `folder` (which must not exist) and return the card with the files' digests.

    Raises OutputError where it exists or cannot be written, WeightsError where a file is missing or damaged.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths: dict[str, Path] = {}
        files: dict[Direction, DirectionFile] = {}
        for direction, state in states.items():
            path = Path(scratch) / f"{direction}.safetensors"
            files[direction] = _save(state, path, "float16" if half else "float32")
            paths[path.name] = path
        return _write_whole(folder, card.model_copy(update={"directions": files}), paths)


def with_direction(
    card: TranslatorCard, folder: Path, direction: Direction, state: dict[str, Tensor], output: Path
) -> TranslatorCard:
    """Write the weights in `folder`, with another network in `direction`, to `output` (which must not exist): all other
    files byte for byte. `card`: what the new card says but for its name and digests.

    Raises OutputError where it exists or cannot be written, WeightsError where a file is missing or damaged.
    """
    files = {entry.file: attached(entry, folder) for entry in card.files if entry != card.directions.get(direction)}
    name = f"{direction}.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        entry = _save(state, Path(scratch) / name, "float16")
        new = card.model_copy(update={"name": output.name, "directions": {**card.directions, direction: entry}})
        return _write_whole(output, new, {**files, name: Path(scratch) / name})


def in_eight_bits(
    card: TranslatorCard, folder: Path, directions: Collection[Direction], output: Path
) -> TranslatorCard:
    """Write the weights in `folder`, the generators of `directions` in 8 bits, half their size, to `output` (which must
    not exist): all other files byte for byte.

    Raises OutputError where it exists or cannot be written, WeightsError where a file is damaged.
    """
    kept = [entry for entry in card.files if entry not in [card.directions[way] for way in directions]]
    files = {entry.file: attached(entry, folder) for entry in kept}
    entries = dict(card.directions)
    with tempfile.TemporaryDirectory() as scratch:
        for way in directions:
            path = Path(scratch) / card.directions[way].file
            entries[way] = _save(load_generator(card, folder, way).state_dict(), path, "int8")
            files[path.name] = path
        return _write_whole(output, card.model_copy(update={"name": output.name, "directions": entries}), files)


def _save(state: dict[str, Tensor], path: Path, dtype: Literal["float16", "float32", "int8"]) -> DirectionFile:
    if dtype == "int8":
        save_file(packed(state), path)
    else:
        save_file({k: v.detach().cpu().to(getattr(torch, dtype)).contiguous() for k, v in state.items()}, path)
    return DirectionFile(file=path.name, sha256=digest(path), dtype=dtype)


def _write_whole(folder: Path, card: TranslatorCard, files: Mapping[str, Path]) -> TranslatorCard:
    """`folder` with copies of `files` and the card, or nothing."""
    if folder.exists():
        raise OutputError(f"output {str(folder)!r} exists: weights are never overwritten, choose another name")
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for name, path in files.items():
            shutil.copyfile(path, scratch / name)
            (scratch / name).chmod(0o644)  # safetensors writes for its owner alone
        (scratch / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
        scratch.chmod(0o755)
        os.replace(scratch, folder)
    except OSError as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        raise OutputError(f"cannot write {str(folder)!r}: {error.strerror}") from error
    return card


def import_official(
    source_to_target: Path,
    target_to_source: Path | None,
    folder: Path,
    *,
    source: str,
    target: str,
    size: tuple[int, int] | None,
) -> TranslatorCard:
    """Import the authors' checkpoints (`<epoch>_net_G_A.pth`, `<epoch>_net_G_B.pth`), kept in float32.

    Raises WeightsError where the files are no set generators, or differ in form.
    """
    paths: dict[Direction, Path] = {"source_to_target": source_to_target}
    if target_to_source is not None:
        paths["target_to_source"] = target_to_source
    read = {direction: generator_from_official(read_state_dict(path)) for direction, path in paths.items()}
    configs = {config for config, _ in read.values()}
    if len(configs) != 1:
        raise WeightsError(f"{source_to_target.name!r} and {target_to_source} differ in width or blocks")
    config = configs.pop()
    for direction, (_, state) in read.items():
        missing = SetGenerator(config).state_dict().keys() ^ state.keys()
        if missing:
            raise WeightsError(
                f"{str(paths[direction])!r}: {len(missing)} keys missing or too many, e.g. {min(missing)!r}"
            )
    card = TranslatorCard(
        name=folder.name,
        source=source,
        target=target,
        generator=config,
        size=size,
        directions={},
        provenance="imported from " + ", ".join(path.name for path in paths.values()),
    )
    return save_translator(folder, card, {d: state for d, (_, state) in read.items()}, half=False)
