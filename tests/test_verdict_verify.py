"""`translate --verify`: what failed is flagged, retried or rolled back, and the report says so.

The judge here has random weights and finds nothing, so that everything fails; the bundled one is met elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import worlds
from conftest import Cli

from instapipe.pipeline.verify import notes

CLASSES = ("sheep", "horse", "giraffe")


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge that sees nothing."""
    from instapipe.verdict.card import JudgeCard
    from instapipe.verdict.detector import save_judge
    from instapipe.verdict.network import JudgeNetwork

    folder = tmp_path_factory.mktemp("judges") / "blind"
    card = JudgeCard(
        name="blind", classes=CLASSES, file="j.safetensors", sha256="", dtype="float16", side=64, threshold=0.99
    )
    save_judge(JudgeNetwork(len(CLASSES)), card, folder)
    return folder


@pytest.fixture
def request_of(tmp_path: Path, blind: Path) -> list[Any]:
    photo = worlds.write_photo(tmp_path / "photo.png")
    masks = worlds.write_masks(tmp_path / "masks", "photo")
    weights = worlds.write_weights(tmp_path / "weights")
    return [
        "translate", photo, "--source", "sheep", "--target", "giraffe", "--masks", masks, "--weights", weights,
        "--engine", "torch", "--precision", "float32", "--judge", blind, "-o", tmp_path / "out.png",
    ]  # fmt: skip


def report(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out.report.json").read_text())["result"]
    return found


def pixels(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path)))


def test_failures_are_flagged_and_the_picture_is_kept(cli: Cli, request_of: list[Any], tmp_path: Path) -> None:
    done = cli(*request_of, "--verify", "flag")
    assert done.code == 0, done.err
    assert "verification: 0 lost" in done.out
    block = report(tmp_path)["verification"]
    assert block["failed"] == [0, 1, 2]
    assert [record["verdict"] for record in block["instances"]] == ["lost"] * 3
    assert block["judge"]["name"] == "blind"
    assert (pixels(tmp_path / "out.png") != pixels(tmp_path / "photo.png")).any()


def test_what_was_kept_under_another_name_is_judged_too(cli: Cli, request_of: list[Any], tmp_path: Path) -> None:
    """`--keep` takes any instance by its number, whatever the masks call it."""
    import instapipe.masks as formats
    from instapipe.structures import Instances

    found = formats.load(tmp_path / "masks", tmp_path / "photo.png", worlds.SIZE)
    assert found is not None
    called = Instances(found.size, found.masks, ("sheep", "cow", "sheep"), found.scores)
    for name, content in formats.folder.write([formats.Entry("photo.png", called)]):
        (tmp_path / "named" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "named" / name).write_bytes(content)
    request_of[request_of.index("--masks") + 1] = tmp_path / "named"
    done = cli(*request_of, "--keep", "0,1", "--verify", "flag")
    assert done.code == 0, done.err
    assert report(tmp_path)["verification"]["failed"] == [0, 1]


def test_failed_instances_are_rolled_back_to_the_photo(cli: Cli, request_of: list[Any], tmp_path: Path) -> None:
    done = cli(*request_of, "--verify", "roll-back")
    assert done.code == 3, done.err
    assert "rolled back: 0, 1, 2" in done.out
    assert (pixels(tmp_path / "out.png") == pixels(tmp_path / "photo.png")).all()
    block = report(tmp_path)["verification"]
    assert block["failed"] == []
    assert block["actions"] == [{"action": "roll back", "numbers": [0, 1, 2]}]


def test_other_orders_are_tried_and_the_first_of_equals_is_kept(
    cli: Cli, request_of: list[Any], tmp_path: Path
) -> None:
    plain = cli(*request_of, "--verify", "flag")
    picture = pixels(tmp_path / "out.png")
    done = cli(*request_of, "--verify", "retry")
    assert (plain.code, done.code) == (0, 0), done.err
    actions = report(tmp_path)["verification"]["actions"]
    assert [action["order"] for action in actions] == ["size-ascending", "left-to-right"]
    assert (pixels(tmp_path / "out.png") == picture).all()


def test_a_second_look_comes_from_the_cache(cli: Cli, request_of: list[Any], tmp_path: Path, blind: Path) -> None:
    assert cli(*request_of, "--verify", "flag").code == 0
    first = report(tmp_path)
    weights = blind / "j.safetensors"
    away = weights.rename(blind / "away")
    try:
        assert cli(*request_of, "--verify", "flag").code == 0
    finally:
        away.rename(weights)
    assert report(tmp_path) == first


def test_what_cannot_be_verified_is_said_before_anything_is_done(
    cli: Cli, request_of: list[Any], tmp_path: Path
) -> None:
    for more, words in (
        (["--verify", "always"], "must be one of flag, retry, roll-back"),
        ([], "--judge is for --verify"),
        (["--verify", "flag", "--judge", tmp_path / "nobody"], "no judge"),
    ):
        done = cli(*request_of, *more)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert words in done.err
    assert not (tmp_path / "out.png").exists()


def test_nothing_is_said_where_nothing_was_verified() -> None:
    assert notes({"photo": {}}) == ()
