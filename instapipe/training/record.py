"""What a run's folder says of itself: the resolved settings, and which data it learns from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instapipe.config import build, put
from instapipe.data.domains import Domain
from instapipe.data.samples import Sample
from instapipe.errors import TrainingError
from instapipe.imaging.files import write_atomically
from instapipe.training.config import TrainConfig

if TYPE_CHECKING:
    from instapipe.training.initial import Initial

RESOLVED = "config.json"
DATA = "data.json"
FREE = ("steps", "sample_every", "save_every", "keep", "validate_every", "tensorboard")
"""Settings that may change when a run goes on: no weight depends on them, the end apart."""
DIVISION = ("batch_size", "accumulate", "checkpointing", "compile")
"""How the work is divided: may change as long as a step sees as many samples."""
NOISE = "mask noise"
"""The name of its digest among those of the data."""
_SHOWN = 3
_ANEW = "start a new run (--from goes on from this one's folder, or from its exported weights)"


def read_settings(folder: Path) -> dict[str, Any] | None:
    """The content of `config.json`; None where there is none. Raises TrainingError."""
    path = folder / RESOLVED
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{str(path)!r} is not the record of a run")
    return content


def settings_of(folder: Path) -> tuple[dict[str, Any], TrainConfig]:
    """The content of `config.json` of a run that must be there, and the settings in it. Raises TrainingError."""
    content = read_settings(folder)
    if content is None:
        raise TrainingError(f"{str(folder)!r} holds no {RESOLVED} of a run")
    return content, build(TrainConfig, content["config"], str(folder / RESOLVED))


def write_settings(
    folder: Path,
    config: TrainConfig,
    source: Domain,
    target: Domain,
    *,
    resume: bool,
    machine: str,
    processes: int,
    initial: Initial | None,
    plan: dict[str, Any] | None,
) -> None:
    """Keep the resolved settings and digests of the data beside the run.

    On resuming they must be the same, apart from :data:`FREE`. Raises TrainingError, which says what differs.
    """
    listing = {"source": photo_digests(source), "target": photo_digests(target)}
    digests = {side: _digest(repr(photos)) for side, photos in listing.items()}
    if source.noise is not None:
        digests[NOISE] = _digest(source.noise.model_dump_json())
    content = {
        "source": source.label,
        "target": target.label,
        "hardware": machine,
        "processes": processes,
        "initial": initial.record() if initial is not None else None,
        "plan": plan,
        "data": digests,
        "config": config.model_dump(mode="json"),
    }
    before = read_settings(folder) if resume else None
    if before is not None:
        content["initial"] = before.get("initial")
        content["plan"] = plan or before.get("plan")
        _same_settings(folder, config, processes, before, (source.label, target.label))
        _same_data(folder, before.get("data", {}), digests, listing, config.data.mask_noise)
    write_atomically(folder / DATA, (json.dumps(listing, indent=1) + "\n").encode())
    write_atomically(folder / RESOLVED, (json.dumps(content, indent=1) + "\n").encode())


def as_planned(folder: Path, config: TrainConfig) -> TrainConfig:
    """The settings as they were chosen for the memory that the run in `folder` was given; the same where none was."""
    before = read_settings(folder)
    if before is None or not before.get("plan"):
        return config
    content = config.model_dump(mode="json")
    for name, value in before["plan"].items():
        put(content, name, value)
    return build(TrainConfig, content, str(folder / RESOLVED))


def effective_batch(config: TrainConfig, processes: int) -> int:
    """How many samples of each domain one step sees."""
    return config.batch_size * config.accumulate * processes


def photo_digests(domain: Domain) -> dict[str, str]:
    """By photo: a digest of the samples cut from it, pixels and masks, and of their use (learning or held out)."""
    found: dict[str, list[str]] = {}
    for use, samples in (("learning", domain.learning), ("held out", domain.held_out)):
        for sample in samples:
            found.setdefault(sample.photo, []).append(f"{use}:{_digest(_content(sample))}")
    return {photo: _digest(" ".join(digests)) for photo, digests in found.items()}


def _content(sample: Sample) -> bytes:
    return b"".join((repr(sample.masks.shape).encode(), sample.image.tobytes(), sample.masks.tobytes()))


def _digest(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def _same_settings(
    folder: Path, config: TrainConfig, processes: int, before: dict[str, Any], labels: tuple[str, str]
) -> None:
    # A run of an older version has not all of today's settings: it had their defaults.
    earlier = build(TrainConfig, before["config"], str(folder / RESOLVED))
    free = {*FREE, *DIVISION}
    theirs, ours = (each.model_dump(mode="json", exclude=free) for each in (earlier, config))
    changed = [name for name in ours if ours[name] != theirs[name]]
    if (before["source"], before["target"]) != labels:
        changed.append("source or target")
    if changed:
        raise TrainingError(f"{str(folder)!r} was started with another {changed[0]}: a resumed run keeps its settings")
    then, now = effective_batch(earlier, before.get("processes", 1)), effective_batch(config, processes)
    if then != now:
        raise TrainingError(
            f"{str(folder)!r} was started with {then} samples a step, now there are {now} (batch_size "
            f"{config.batch_size} x accumulate {config.accumulate} x {processes} processes): choose others of {then}"
        )


def _same_data(
    folder: Path, before: dict[str, str], now: dict[str, str], listing: dict[str, dict[str, str]], noise: str
) -> None:
    # A run of an older version kept no digests, or none of the mask noise.
    changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
    if not changed:
        return
    if changed == [NOISE]:
        raise TrainingError(
            f"{str(folder)!r} was started with other content of the mask noise {noise!r}: a resumed run needs what it "
            f"started with: bring it back, or {_ANEW}"
        )
    try:
        earlier = json.loads((folder / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        earlier = {}
    found = []
    for side, photos in listing.items():
        old = earlier.get(side, {})
        kinds = (
            ("no longer there", [name for name in old if name not in photos]),
            ("new", [name for name in photos if name not in old]),
            ("with other pixels or masks", [name for name in photos if old.get(name, photos[name]) != photos[name]]),
        )
        found += [f"{len(names)} {side} photos {what} ({_some(names)})" for what, names in kinds if names]
    raise TrainingError(
        f"the data of {str(folder)!r} has changed: {'; '.join(found) or 'the order of the photos'}; a resumed run "
        f"needs the data it started with: bring it back, or {_ANEW}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
