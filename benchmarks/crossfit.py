"""Masks of one's own training photos, none by a segmenter that has seen the photo.

    python benchmarks/crossfit.py --data FOLDER --classes sheep,giraffe --output FOLDER [--steps 750]

Two halves of the photos of `FOLDER/instances_train.json`, drawn by file name. For each half a segmenter learns from the
other (`instapipe train-segmenter`, resumed where it was cut off), segments the photos of `--classes`, and which of its
masks teach is decided as in `instapipe train` on photos without masks (`data.gate`). Writes `OUTPUT/predicted.json`, to
train on as it is, and prints how the masks agree with the given ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instapipe.data.coco import read_class
from instapipe.data.gate import Gate
from instapipe.data.photos import Instance
from instapipe.masks.coco import document
from instapipe.masks.records import Entry
from instapipe.pipeline.store import Store
from instapipe.structures import Instances
from instapipe.training.segment_first import segment_first

FOUND = 0.5
"""IoU of a predicted mask with a given one that it stands for."""


def main() -> None:
    """Split, train, segment, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", required=True, help="C[,C]: of which masks are wanted")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=750, help="of each segmenter")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    images = given.output / "images"
    if not images.exists():
        images.symlink_to((given.data / "images").resolve(), target_is_directory=True)
    content = json.loads((given.data / "instances_train.json").read_text())
    segmenters = [str(trained(half, content, given.output, given.steps)) for half in (0, 1)]
    entries: list[Entry] = []
    instances: list[Instance] = []
    for label in given.classes.split(","):
        photos = read_class(given.data / "instances_train.json", label)
        agreed: list[float] = []
        wanted = found = false = refused = 0
        for half, segmenter in enumerate(segmenters):
            truth = {photo.path: photo for photo in photos if half_of(photo.path.name) != half}
            store = Store(given.output / "cache")
            *_, out = segment_first(list(truth), label, Gate(), segmenter=segmenter, store=store, device="cpu")
            refused += len(out.refused)
            predicted = {photo.path: photo for photo in out.photos}
            for path, photo in truth.items():
                pixels, theirs = photo.read()
                ours = predicted[path].read()[1] if path in predicted else ()
                taken = [each for each in ours if each.role == "centre"]
                matched = list(overlaps(taken, theirs))
                agreed.extend(matched)
                wanted, found, false = wanted + len(theirs), found + len(matched), false + len(taken) - len(matched)
                if ours:
                    size = (pixels.shape[0], pixels.shape[1])
                    masks = tuple(each.mask for each in ours)
                    labels, scores = (label,) * len(ours), (1.0,) * len(ours)
                    entries.append(Entry(path.name, Instances(size, masks, labels, scores)))
                    instances.extend(ours)
        print(
            f"{label}: {len(photos)} photos, {wanted} given masks, {found} matched by a predicted one "
            f"(IoU over {FOUND:g}, median {np.median(agreed):.3f}, lowest tenth {np.quantile(agreed, 0.1):.3f}), "
            f"{false} predicted ones match none, {refused} refused",
            flush=True,
        )
    written = described(entries, instances)
    (given.output / "predicted.json").write_text(json.dumps(written, separators=(",", ":")))
    print(f"{len(written['annotations'])} masks -> {given.output / 'predicted.json'}")


def half_of(name: str) -> int:
    """0 or 1, of the photo called `name`."""
    return hashlib.sha256(name.encode()).digest()[0] & 1


def trained(half: int, content: dict[str, Any], output: Path, steps: int) -> Path:
    """The folder of the segmenter that learns from `half` of the photos."""
    folder = output / f"half-{half}"
    weights = folder / "weights"
    if not weights.exists():
        images = [image for image in content["images"] if half_of(image["file_name"]) == half]
        known = {image["id"] for image in images}
        annotations = [each for each in content["annotations"] if each["image_id"] in known]
        data = output / f"half-{half}.json"
        data.write_text(json.dumps({**content, "images": images, "annotations": annotations}))
        print(f"half {half}: {len(images)} photos, {len(annotations)} masks, {steps} steps", flush=True)
        command = [sys.executable, "-m", "instapipe", "train-segmenter", "--data", data, "--images", output / "images"]
        command += ["--output", folder, "--steps", str(steps), "--export", weights]
        subprocess.run([*map(str, command), *(["--resume"] if folder.exists() else [])], check=True)
    return weights


def overlaps(predicted: Sequence[Instance], given: Sequence[Instance]) -> Iterator[float]:
    """IoU of the pairs of `predicted` and `given` masks, the best first, each in one pair, over FOUND."""
    pairs = [(a.mask.iou(b.mask), i, j) for i, a in enumerate(predicted) for j, b in enumerate(given)]
    ours: set[int] = set()
    theirs: set[int] = set()
    for overlap, i, j in sorted(pairs, reverse=True):
        if overlap > FOUND and i not in ours and j not in theirs:
            ours.add(i)
            theirs.add(j)
            yield overlap


def described(entries: Sequence[Entry], instances: Sequence[Instance]) -> dict[str, Any]:
    """COCO JSON with what `instapipe/data/coco.py` reads besides: refused animals stay where they are."""
    content = document(entries)
    for annotation, instance in zip(content["annotations"], instances, strict=True):
        annotation["role"] = instance.role
        annotation["whole"] = {"side": instance.side, "cut_off": instance.cut_off, "area": instance.area}
    return content


if __name__ == "__main__":
    main()
