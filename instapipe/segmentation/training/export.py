"""From a run to a weights folder: half-precision safetensors, and a card with what the weights were measured to do."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save

from instapipe.config import SegmenterCard
from instapipe.errors import OutputError
from instapipe.segmentation.compact import CompactSegmenter
from instapipe.segmentation.training.accuracy import accuracy
from instapipe.segmentation.training.dataset import CocoSet
from instapipe.segmentation.training.loop import Run


def export(
    run: Run, target: Path, held_out: CocoSet | None, recipe: str, progress: Callable[[int], None] = lambda done: None
) -> SegmenterCard:
    """Write the weights of `run` to the new folder `target`, whole or not at all; the card that it got.

    held_out: what to measure them on: as they are in the file, halved. Raises OutputError where `target` exists, for
    weights are not overwritten under one name.
    """
    check_new(target)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        card = write(run, scratch, target.name, recipe)
        if held_out is not None:
            quality = accuracy(CompactSegmenter(card, scratch), held_out, progress)
            card = card.model_copy(update={"quality": quality})
            write_card(card, scratch)
        os.rename(scratch, target)
    except OSError as error:
        raise OutputError(f"cannot write weights to {str(target)!r}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return card


def check_new(target: Path) -> None:
    """Raises OutputError where `target` is there already."""
    if target.exists():
        raise OutputError(f"{str(target)!r} exists; weights are never overwritten: choose a new name")


def write(run: Run, folder: Path, name: str, recipe: str) -> SegmenterCard:
    """Weights and card, into `folder`."""
    halves = {
        key: value.detach().cpu().to(torch.float16 if value.is_floating_point() else value.dtype).contiguous()
        for key, value in run.weights().items()
    }
    data = save(halves)
    file = f"{name}.safetensors"
    card = SegmenterCard(
        name=name,
        settings=run.settings.network.model_dump(mode="json"),
        classes=run.data.classes,
        file=file,
        sha256=hashlib.sha256(data).hexdigest(),
        dtype="float16",
        data=" ".join([describe_data(run.data), run.settings.card.data]).strip(),
        provenance=" ".join([run.settings.card.provenance, describe_start(run.initial, run.settings.keep)]).strip(),
        limits=run.settings.card.limits,
        licence=run.settings.card.licence,
        recipe=recipe,
        steps=run.step,
        hardware=hardware(run.device),
        time=f"{spent(run.folder) / 60:.0f} minutes",
    )
    (folder / file).write_bytes(data)
    write_card(card, folder)
    return card


def write_card(card: SegmenterCard, folder: Path) -> None:
    """`card.json`."""
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")


def describe_data(data: CocoSet) -> str:
    """One sentence: photos, instances for each class, and who drew the masks, where the JSON says so."""
    labels = [data.classes[label - 1] for record in data.records for label in data.labels(record)]
    counts = ", ".join(f"{name} {labels.count(name)}" for name in data.classes)
    makers = [str(a["made_by"]) for record in data.records for a in record.annotations if "made_by" in a]
    made = "".join(f", {makers.count(maker)} masks made by {maker}" for maker in sorted(set(makers)))
    return f"{len(data):,} photos, {len(labels):,} instances ({counts}){made}."


def describe_start(initial: SegmenterCard | None, keep: float) -> str:
    """One sentence, where a run started from weights."""
    if initial is None:
        return ""
    kept = f", of which {keep:g} are kept (keep)" if keep else ""
    return f"Started from {initial.name} ({initial.steps} steps){kept}."


def hardware(device: torch.device) -> str:
    """What it ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{torch.get_num_threads()} CPU thread(s), {model}"


def spent(folder: Path) -> float:
    """Seconds in the steps of a run, by its log."""
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    seconds: dict[int, float] = {}
    for line in lines:
        record = json.loads(line)
        seconds[int(record["step"])] = float(record["seconds"])  # a step done twice, after a crash, counts once
    return sum(seconds.values())
