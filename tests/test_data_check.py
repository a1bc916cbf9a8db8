"""`instapipe data check`: each thing that can be wrong is found where it is, and nothing is found where all is well."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import worlds
from conftest import Cli
from PIL import Image

from instapipe.data.check import check
from instapipe.data.findings import ADVICE, Finding
from instapipe.masks import Entry
from instapipe.masks.coco import document
from instapipe.structures import Instances, Mask

PHOTOS = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """InstaGAN's layout: four photos of three sheep with their masks, everything as it should be."""
    for n in range(PHOTOS):
        pixels = worlds.photo_pixels(worlds.SHEEP, None, seed=n)
        pixels[:, 30 * n : 30 * n + 12] //= 2  # noise alone would make near copies of them
        worlds.write_photo(tmp_path / "sampleA" / f"{n}.png", pixels)
        worlds.write_masks(tmp_path / "sampleA_seg", str(n))
    return tmp_path / "sampleA"


def report(folder: Path, label: str | None = "sheep") -> list[Finding]:
    """Without those that a small set has by nature."""
    *_, last = check(folder, label, min_side=10)
    return [each for each in last.findings if each.kind != "few instances"]


def mask(folder: Path, name: str) -> Path:
    return folder.with_name("sampleA_seg") / name


def turn(folder: Path) -> None:
    for n in range(3):
        path = mask(folder, f"1_{n}.png")
        cv2.imwrite(str(path), np.rot90(cv2.imread(str(path))))


def shrink(folder: Path) -> None:
    for n in range(3):
        path = mask(folder, f"1_{n}.png")
        cv2.imwrite(str(path), cv2.imread(str(path))[:50, :70])


def invert(folder: Path) -> None:
    path = mask(folder, "1_0.png")
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))


def empty(folder: Path) -> None:
    path = mask(folder, "1_0.png")
    cv2.imwrite(str(path), 0 * cv2.imread(str(path)))


def double_mask(folder: Path) -> None:
    shutil.copy(mask(folder, "1_0.png"), mask(folder, "1_7.png"))


def lose_photo(folder: Path) -> None:
    (folder / "1.png").unlink()


def lose_masks(folder: Path) -> None:
    for path in folder.with_name("sampleA_seg").glob("1_*"):
        path.unlink()


def damage_photo(folder: Path) -> None:
    path = folder / "1.png"
    path.write_bytes(path.read_bytes()[:900])


def damage_mask(folder: Path) -> None:
    path = mask(folder, "1_0.png")
    path.write_bytes(path.read_bytes()[:60])


def copy_photo(folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "1.png")


def save_again(folder: Path) -> None:
    """The same photo a little smaller: other bytes."""
    pixels = cv2.imread(str(folder / "0.png"))
    cv2.imwrite(str(folder / "1.png"), np.clip(pixels.astype(int) + 3, 0, 255).astype(np.uint8))


def turn_by_exif(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(folder / "1.png") as image:
        image.rotate(180).save(folder / "1.png", exif=exif)


def scatter(folder: Path) -> None:
    two = worlds.ellipse(worlds.SIZE, (40, 40, 12, 10)) | worlds.ellipse(worlds.SIZE, (95, 60, 12, 10))
    for n in (1, 2):
        mask(folder, f"1_{n}.png").unlink()
    cv2.imwrite(str(mask(folder, "1_0.png")), two.astype(np.uint8) * 255)


def cut_off(folder: Path) -> None:
    corner = worlds.ellipse(worlds.SIZE, (0, 0, 30, 30)).astype(np.uint8)
    cv2.imwrite(str(mask(folder, "1_0.png")), corner * 255)


def tiny(folder: Path) -> None:
    cv2.imwrite(str(mask(folder, "1_0.png")), worlds.ellipse(worlds.SIZE, (20, 80, 3, 3)).astype(np.uint8) * 255)


@pytest.mark.parametrize(
    ("spoil", "kind", "photo"),
    [
        (turn, "turned", "1.png"),
        (shrink, "misaligned", "1.png"),
        (invert, "inverted", "1.png"),
        (empty, "empty mask", "1.png"),
        (double_mask, "same mask twice", "1.png"),
        (lose_photo, "masks without photo", "1"),
        (lose_masks, "photo without masks", "1.png"),
        (damage_photo, "unreadable photo", "1.png"),
        (damage_mask, "unreadable masks", "1.png"),
        (copy_photo, "same photo twice", "1.png"),
        (save_again, "nearly the same photo", "1.png"),
        (turn_by_exif, "look at orientation", "1.png"),
        (scatter, "scattered", "1.png"),
        (cut_off, "cut off", "1.png"),
        (tiny, "too small", "1.png"),
    ],
)
def test_each_defect_is_found_where_it_is(folder: Path, spoil: Callable[[Path], None], kind: str, photo: str) -> None:
    assert report(folder) == []
    spoil(folder)
    assert [(each.kind, each.photo) for each in report(folder)] == [(kind, photo)]


def test_command_says_what_to_do(cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    arguments = ("data", "check", folder, "--class", "sheep", "--sheet", tmp_path / "sheets", "--min-side", 10)
    clean = cli(*arguments)
    assert clean.code == 0, clean.err
    assert "(photos with masks): 4 photos, 12 instances of sheep in 4 of them" in clean.out
    before = cv2.imread(str(tmp_path / "sheets" / "check-sampleA.png"))
    invert(folder)
    lose_photo(folder.parent / "sampleA")
    bad = cli(*arguments)
    assert bad.code == 1
    assert "masks without photo" in bad.out
    assert ADVICE["masks without photo"].remedy in bad.out
    after = cv2.imread(str(tmp_path / "sheets" / "check-sampleA.png"))
    assert before.shape[1] > after.shape[1]  # a tile less


def test_problems_come_first_on_the_sheet(folder: Path) -> None:
    *_, last = check(folder, "sheep", min_side=10)
    clean = last.sheet
    invert(folder)
    *_, last = check(folder, "sheep", min_side=10)
    assert len(last.sheet) == PHOTOS
    assert np.array_equal(last.sheet[1], clean[0])
    assert not np.array_equal(last.sheet[0], clean[1])


def test_coco(cli: Cli, tmp_path: Path) -> None:
    """Orphans of both kinds, classes, an empty side."""
    masks = tuple(Mask.from_dense(worlds.ellipse(worlds.SIZE, blob)) for blob in worlds.SHEEP)
    instances = Instances(worlds.SIZE, masks, ("sheep", "sheep", "horse"), (1.0,) * 3)
    for name in ("a.png", "b.png", "stray.png"):
        worlds.write_photo(tmp_path / "images" / name, worlds.photo_pixels(seed=ord(name[0])))
    path = tmp_path / "set.json"
    path.write_text(json.dumps(document(Entry(name, instances) for name in ("a.png", "b.png", "gone.png"))))
    found = {(each.kind, each.photo) for each in report(path) if each.kind != "nearly the same photo"}
    assert found == {("masks without photo", "gone.png"), ("photo not listed", "stray.png")}
    assert {each.kind for each in report(path, "zebra")} >= {"empty side"}
    two = cli("data", "check", path, "--class", "sheep", "--class", "horse", "--sheet", tmp_path)
    assert two.code == 1
    assert "tells the sides apart in 100% of pairs" in two.out
    assert "data.balance: match" in two.out
    assert {"check-set-sheep.png", "check-set-horse.png"} <= {each.name for each in tmp_path.iterdir()}
    assert cli("data", "check", path, path, path).code == 2
    assert cli("data", "check", tmp_path / "nothing").code == 1


def test_a_pack_is_judged_by_its_photos(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """Windows of one photo are alike, and their neighbours cut off: no findings of a pack."""
    assert cli("data", "pack", "--data", folder, "--class", "sheep", "-o", tmp_path / "pack", "--min-side", 0).code == 0
    assert report(tmp_path / "pack") == []
    next((tmp_path / "pack" / "images").iterdir()).unlink()
    assert [each.kind for each in report(tmp_path / "pack")] == ["masks without photo"]


def test_photos_without_masks_are_checked_as_photos(cli: Cli, folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder.with_name("sampleA_seg"))
    assert cli("data", "check", folder, "--sheet", tmp_path).code == 0
    copy_photo(folder)
    again = cli("data", "check", folder, "--sheet", tmp_path)
    assert again.code == 1
    assert "same photo" in again.out
