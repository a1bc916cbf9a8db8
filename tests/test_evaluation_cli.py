"""`instapipe evaluate` through the front door: in a drawn world, and with the bundled judge on real photos."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import worlds
from conftest import Cli

from instapipe.imaging import read_photo
from instapipe.masks import Entry
from instapipe.masks.coco import document
from instapipe.structures import Instances, Mask
from instapipe.verdict.card import bundled_judges

DEMO = Path(__file__).parent / "data" / "demo"
CLASSES = ("sheep", "horse", "giraffe")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos with sheep, a horse and one giraffe; a translator and a judge that know nothing."""
    from instapipe.verdict.card import JudgeCard
    from instapipe.verdict.detector import save_judge
    from instapipe.verdict.network import JudgeNetwork

    folder = tmp_path_factory.mktemp("evaluate")
    entries = []
    for number in range(3):
        big = ((70, 60, 40, 26), (25, 20, 9, 8))
        pixels = worlds.photo_pixels(big, horse=worlds.HORSE, seed=number)
        worlds.write_photo(folder / "images" / f"{number}.png", pixels)
        masks = [Mask.from_dense(worlds.ellipse(worlds.SIZE, blob)) for blob in (*big, worlds.HORSE)]
        labels = ["sheep", "sheep", "horse" if number else "giraffe"]
        entries.append(Entry(f"{number}.png", Instances(worlds.SIZE, tuple(masks), tuple(labels), (1.0,) * 3)))
    (folder / "instances_val.json").write_text(json.dumps(document(entries)))
    worlds.write_weights(folder / "translator")
    card = JudgeCard(name="blind", classes=CLASSES, file="judge.safetensors", sha256="", dtype="float16", side=96)
    save_judge(JudgeNetwork(len(CLASSES)), card, folder / "blind")
    return folder


def request(world: Path, *more: str | Path) -> list[str | Path]:
    return [
        "evaluate", "--data", world, "--source", "sheep", "--target", "giraffe", "--weights", world / "translator",
        "--judge", world / "blind", "--cache", world / "cache", "--no-predicted", *more,
    ]  # fmt: skip


def test_everything_is_measured_and_written(cli: Cli, world: Path, tmp_path: Path) -> None:
    known = world / "instances_val.json"
    done = cli(*request(world, "--suite", "order", "--reference", known, "-o", tmp_path, "--json"))
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert done.json == [metrics]
    assert list(metrics["arms"]) == [
        "given masks", "smallest first", "random order", "copy of the input", "untouched, as they are",
    ]  # fmt: skip
    # Each photo has one sheep over 48 pixels and one under: the denominator is three, whatever happens.
    assert metrics["data"] == {
        "file": "instances_val.json", "split": "val", "photos": 3, "instances": 3, "format": "png in, png out",
    }  # fmt: skip
    for arm in metrics["arms"].values():
        shares = arm["verdicts"].values()
        assert sum(share["hits"] for share in shares) == 3
        assert all(share["n"] == 3 for share in shares)
    copied = metrics["arms"]["copy of the input"]
    assert copied["verdicts"]["translated"]["hits"] == 0
    assert copied["background"]["identical"]["mean"] == 1.0
    made = metrics["arms"]["given masks"]
    assert made["background"]["photos_changed_outside_the_declared_region"] == 0
    assert made["made"]["settings"]["order"] == "size"
    assert metrics["arms"]["smallest first"]["made"]["settings"]["order"] == "size-ascending"
    assert len(metrics["weights"]["sha256"]) == 64
    assert not metrics["judge"]["validity"]["valid"]
    rows = list(csv.DictReader((tmp_path / "instances.csv").read_text().splitlines()))
    counted = [row for row in rows if row["arm"] == "given masks" and row["counted"] == "True"]
    assert len(counted) == 3
    assert "NOT valid" in (tmp_path / "report.html").read_text()


def test_the_same_evaluation_gives_the_same_figures(cli: Cli, world: Path, tmp_path: Path) -> None:
    figures = []
    for name in ("first", "again"):
        assert cli(*request(world, "--limit", "2", "-o", tmp_path / name)).code == 0
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        metrics.pop("command")
        figures.append(metrics)
    assert figures[0] == figures[1]
    assert figures[0]["data"]["photos"] == 2


def test_what_cannot_be_evaluated_is_said_in_one_line(cli: Cli, world: Path, tmp_path: Path) -> None:
    for changed, code, words in (
        (["--source", "unicorn"], 1, "no photo of"),
        (["--data", tmp_path], 1, "name the COCO JSON itself"),
        (["--suite", "nonsense"], 2, "no suite 'nonsense'"),
        (["--judge", "nobody"], 2, "no judge 'nobody'"),
    ):
        done = cli(*request(world, "-o", tmp_path / "out", *changed))
        assert (done.code, done.err.count("\n")) == (code, 1), done.err
        assert words in done.err


@pytest.mark.skipif(not bundled_judges(), reason="no judge in weights/")
def test_the_bundled_judge_sees_real_sheep_and_is_not_taken_in_by_a_copy() -> None:
    """The committed demo photo: its sheep are seen as sheep; left as they are, they are residual."""
    from instapipe.evaluation.cases import copy_case
    from instapipe.evaluation.scoring import score_case
    from instapipe.verdict.detector import load_judge

    judge = load_judge()
    pixels = read_photo(next(DEMO.glob("sheep.*"))).pixels
    seen = judge.detect(pixels).instances
    assert "sheep" in seen.labels
    assert "giraffe" not in seen.labels
    sheep = seen.select(i for i, label in enumerate(seen.labels) if label == "sheep")
    scored = score_case(copy_case("sheep.jpg", pixels, sheep, "sheep"), judge, source="sheep", target="giraffe")
    assert {row.kind for row in scored.instances} == {"residual"}
    assert scored.background.identical == 1.0
    as_they_are = copy_case("sheep.jpg", pixels, sheep, "sheep", wanted="sheep")
    real = score_case(as_they_are, judge, source="sheep", target="giraffe")
    assert {row.kind for row in real.instances} == {"translated"}
    assert real.seen == real.wanted == len(sheep)


@pytest.mark.skipif(not bundled_judges(), reason="no judge in weights/")
def test_the_bundled_judge_sees_nothing_where_there_is_nothing() -> None:
    from instapipe.verdict.detector import load_judge

    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 255, (240, 320, 3)).astype(np.uint8), (0, 0), 5)
    assert "giraffe" not in load_judge().detect(noise).instances.labels
