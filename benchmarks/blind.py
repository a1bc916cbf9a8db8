"""A blind look: crops of sources, real targets and outputs, shuffled, to be named one by one.

    python benchmarks/blind.py make --data FOLDER --pairs sheep:giraffe horse:giraffe --output out/blind
    python benchmarks/blind.py make --data FOLDER --pairs sheep:giraffe --weights ONE OTHER  # in one shuffle
    python benchmarks/blind.py score out/blind --answers answers.csv

`make` translates the held-out photos of FOLDER (`instances_val.json`, given masks) and writes sheets of numbered crops,
cut out by mask on grey, and apart from them `key/key.json`, which nobody who names should open. With `--around` crops
show the photo around each animal, which is outlined: what hides a part of it can be seen there. An answer is a line
`number,name`: one of the six animals, or `broken`. `score` prints the confusion table and keeps it in
`benchmarks/results/blind-<weights>.json` (`-around`).
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from instapipe.evaluation.arms import GIVEN, Translating
from instapipe.evaluation.features import cut_out
from instapipe.evaluation.masks import large
from instapipe.evaluation.study import crops_of, flat
from instapipe.pipeline.models import Models
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store
from instapipe.structures import Mask, Pixels
from instapipe.training.to_grade import COLUMNS, ROWS, SIDE, sheet
from instapipe.verdict.dataset import LabelledPhoto, read_coco
from instapipe.verdict.detector import square_crop
from instapipe.verdict.intervals import Share

NAMES = ("sheep", "horse", "cow", "elephant", "zebra", "giraffe", "broken")
RESULTS = Path(__file__).parent / "results"
AROUND = 1.4
"""Side of what is shown of a photo / longer side of the animal's box."""
YELLOW = (255, 220, 0)
Shown = Callable[[Pixels, Mask], Pixels]


def surrounded(pixels: Pixels, mask: Mask) -> Pixels:
    """The photo around an animal, whose outline is drawn: (SIDE, SIDE, 3)."""
    crop = square_crop(pixels, mask.box, SIDE, AROUND)
    shape = square_crop(np.repeat(np.uint8(255) * mask.dense()[:, :, None], 3, axis=2), mask.box, SIDE, AROUND)
    # Outside the photo a crop is grey, below the half.
    contours, _ = cv2.findContours((shape[:, :, 0] > 160).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(crop, contours, -1, YELLOW, 1), dtype=np.uint8)


def outputs(
    photos: list[LabelledPhoto], source: str, target: str, weights: str | None, shown: Shown
) -> tuple[list[Pixels], str]:
    """Crops of the returned instances of all photos, and the name of the weights."""
    settings = TranslateSettings(source=source, target=target, weights=weights)
    with tempfile.TemporaryDirectory() as scratch, Models("cpu", Path(scratch) / "artefacts") as models:
        store = Store(Path(scratch) / "cache")
        translating = Translating(GIVEN, settings, photos, store, models, Path(scratch), 0)
        crops = []
        for photo in photos:
            case = translating(photo)
            for before, after in zip(case.listed.masks, case.returned, strict=True):
                if after is not None and after.area and large(before):
                    crops.append(shown(case.after, after))
        return crops, str(translating.weights()["name"])


def make(
    data: Path, pairs: list[str], weights: list[str | None], folder: Path, most: int, seed: int, around: bool
) -> None:
    """Write the sheets and the key. weights: by each of them; None: those that translate would take."""
    shown: Shown = surrounded if around else cut_out
    rng = np.random.default_rng(seed)
    listed = read_coco(data / "instances_val.json", data / "images")
    pool: list[tuple[str, str, Pixels]] = []
    used: set[str] = set()

    def draw(kind: str, name: str, crops: list[Pixels]) -> None:
        chosen = rng.permutation(len(crops))[:most]
        pool.extend((kind, name, crops[k]) for k in chosen)

    targets = dict.fromkeys(pair.partition(":")[2] for pair in pairs)
    for target in targets:
        draw("real", target, flat(crops_of(listed, target, shown)))
    for pair in pairs:
        source, _, target = pair.partition(":")
        photos = [photo for photo in listed if source in photo.instances.labels]
        draw("source", source, flat(crops_of(photos, source, shown)))
        for one in weights:
            crops, name = outputs(photos, source, target, one, shown)
            used.add(name)
            draw("output", pair if len(weights) == 1 else f"{pair} {name}", crops)
    order = rng.permutation(len(pool))
    (folder / "key").mkdir(parents=True, exist_ok=True)
    per_sheet = COLUMNS * ROWS
    for first in range(0, len(order), per_sheet):
        part = [(first + k, pool[n][2]) for k, n in enumerate(order[first : first + per_sheet])]
        path = folder / f"sheet-{first // per_sheet + 1:02d}.png"
        cv2.imwrite(str(path), cv2.cvtColor(sheet(part), cv2.COLOR_RGB2BGR))
        print(path)
    key = {
        "weights": sorted(used),
        "seed": seed,
        "around": around,
        "crops": {str(k): pool[n][:2] for k, n in enumerate(order)},
    }
    (folder / "key" / "key.json").write_text(json.dumps(key) + "\n")


def score(folder: Path, answers: Path, who: str) -> None:
    """Print and keep the confusion table. Every crop must have an answer."""
    key = json.loads((folder / "key" / "key.json").read_text())
    with answers.open() as stream:
        said = {
            row[0].strip(): row[1].strip().lower() for row in csv.reader(stream) if row and row[0].strip().isdigit()
        }
    wrong = [f"{number}: {name}" for number, name in said.items() if name not in NAMES]
    missing = key["crops"].keys() - said.keys()
    if wrong or missing:
        raise SystemExit(f"{len(missing)} crops have no answer; unknown names: {', '.join(wrong) or 'none'}")
    table: dict[str, Counter[str]] = {}
    for number, (kind, name) in key["crops"].items():
        table.setdefault(f"{kind} {name}", Counter())[said[number]] += 1
    print(f"{'':24}" + "".join(f"{name:>10}" for name in NAMES))
    rows = {}
    for row, counts in sorted(table.items()):
        total = sum(counts.values())
        rows[row] = {"n": total, **{name: Share(counts[name], total).record() for name in NAMES if counts[name]}}
        print(f"{row:24}" + "".join(f"{counts[name]:>10}" for name in NAMES))
    path = RESULTS / f"blind-{'-'.join(key['weights'])}{'-around' if key['around'] else ''}.json"
    path.write_text(json.dumps({"named_by": who, "seed": key["seed"], "rows": rows}, indent=1) + "\n")
    print(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--data", type=Path, required=True)
    making.add_argument("--pairs", nargs="+", default=["sheep:giraffe", "horse:giraffe"])
    making.add_argument("--weights", nargs="+", default=[None], help="several: how an observer is asked moves shares")
    making.add_argument("--output", type=Path, default=Path("out/blind"))
    making.add_argument("--most", type=int, default=40, help="crops of each kind")
    making.add_argument("--seed", type=int, default=0)
    making.add_argument("--around", action="store_true", help="with the photo around them, outlined")
    scoring = commands.add_parser("score")
    scoring.add_argument("folder", type=Path)
    scoring.add_argument("--answers", type=Path, required=True)
    scoring.add_argument("--named-by", default="", help="who looked")
    asked = parser.parse_args()
    if asked.command == "make":
        make(asked.data, asked.pairs, asked.weights, asked.output, asked.most, asked.seed, asked.around)
    else:
        score(asked.folder, asked.answers, asked.named_by)


if __name__ == "__main__":
    main()
