"""`instapipe translate` on one photo, through the command line."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import worlds
from conftest import REPOSITORY, Cli
from numpy.typing import NDArray

from instapipe import Pipeline, imaging
from instapipe.config import GeneratorConfig, TranslatorCard, read_yaml
from instapipe.errors import EngineError, UsageError
from instapipe.masks import load
from instapipe.pipeline import memory
from instapipe.pipeline.settings import TranslateSettings
from instapipe.resources import configs_root

CLASSES = ("--source", "sheep", "--target", "giraffe")
# Not `auto`: its measurement takes a second, and may come out otherwise in another cache.
EXACT = ("--engine", "torch", "--precision", "float32")
PAIR = (*CLASSES, *EXACT)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return worlds.write_photo(tmp_path / "in" / "farm.png")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return worlds.write_masks(tmp_path / "masks", "farm")


def pixels(path: str | Path) -> NDArray[np.uint8]:
    return imaging.read_photo(Path(path)).pixels


def report(path: str | Path) -> dict:
    return json.loads(Path(path).read_bytes())


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".report.json")
    }


def test_a_photo_with_masks(cli: Cli, photo: Path, masks: Path, matte_weights: Path) -> None:
    before = photo.read_bytes()
    ran = cli("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--json")
    assert ran.code == 0
    (facts,) = ran.json
    assert facts["status"] == "translated"
    assert facts["instances"] == 3
    assert facts["hits"] == []
    assert Path(facts["picture"]) == Path.cwd() / "farm_giraffe.png"
    assert sorted(path.name for path in Path.cwd().iterdir()) == [
        "farm_giraffe.filmstrip.png", "farm_giraffe.masks", "farm_giraffe.png", "farm_giraffe.report.json",
    ]  # fmt: skip
    assert sorted(path.name for path in Path(facts["masks"]).iterdir()) == [
        "farm_giraffe_0.png", "farm_giraffe_1.png", "farm_giraffe_2.png", "instances.json",
    ]  # fmt: skip
    assert pixels(facts["picture"]).shape == worlds.photo_pixels().shape
    assert not np.array_equal(pixels(facts["picture"]), worlds.photo_pixels())
    assert photo.read_bytes() == before
    coco = json.loads((Path(facts["masks"]) / "instances.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["giraffe"]
    assert coco["images"][0]["file_name"] == "farm_giraffe.png"


def test_the_segmenter_is_used_where_there_are_no_masks(
    cli: Cli, photo: Path, colour: str, matte_weights: Path
) -> None:
    ran = cli("translate", photo, *PAIR, "--segmenter", colour, "--weights", matte_weights, "--json", "--score", 0.3)
    assert ran.code == 0, ran.err
    (facts,) = ran.json
    assert facts["instances"] == 3
    result = report(facts["report"])["result"]
    assert [(each["label"], each["dropped"]) for each in result["instances"]] == [
        ("sheep", None), ("sheep", None), ("horse", "class horse"), ("sheep", None),
    ]  # fmt: skip
    assert result["segmentation"]["segmenter"] == "colour"
    assert (
        cli("translate", photo, *PAIR, "--segmenter", colour, "--weights", matte_weights).out.count("left: class") == 1
    )


def test_masks_beside_the_photo_are_found(cli: Cli, photo: Path, matte_weights: Path) -> None:
    worlds.write_masks(photo.parent.with_name("in_seg"), "farm", worlds.SHEEP[:1])
    (facts,) = cli("translate", photo, *PAIR, "--weights", matte_weights, "--json").json
    assert facts["instances"] == 1


def test_nothing_changes_outside_the_declared_region(cli: Cli, photo: Path, masks: Path, matte_weights: Path) -> None:
    given = ("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--json")
    (facts,) = cli(*given, "--region", "instance").json
    outside = np.ones(worlds.SIZE, np.bool_)
    for step in report(facts["report"])["result"]["steps"]:
        x0, y0, x1, y1 = step["region"]
        outside[y0:y1, x0:x1] = False
    assert outside.any()
    before, after = worlds.photo_pixels(), pixels(facts["picture"])
    assert np.array_equal(before[outside], after[outside])


@pytest.mark.parametrize("weights", ["matte_weights", "whole_weights"])
@pytest.mark.parametrize("region", ["whole", "instance"])
def test_exact_background(
    cli: Cli, photo: Path, masks: Path, weights: str, region: str, request: pytest.FixtureRequest
) -> None:
    """Only the union of old and new masks, plus a seam of the declared width, may differ."""
    seam = 2
    (facts,) = cli(
        "translate", photo, *PAIR, "--masks", masks, "--weights", request.getfixturevalue(weights), "--json",
        "--region", region, "--background", "exact", "--seam", seam,
    ).json  # fmt: skip
    result = report(facts["report"])["result"]
    allowed = np.zeros(worlds.SIZE, np.bool_)
    for step in result["steps"]:
        touched = np.zeros(worlds.SIZE, np.uint8)
        for number in step["numbers"]:
            touched |= worlds.ellipse(worlds.SIZE, worlds.SHEEP[number]).astype(np.uint8)
            new = cv2.imread(str(Path(facts["masks"]) / f"farm_giraffe_{number}.png"), cv2.IMREAD_GRAYSCALE)
            touched |= (new > 0).astype(np.uint8)
        x0, y0, x1, y1 = step["window"]
        scale = max(1.0, (x1 - x0) / 32, (y1 - y0) / 32)
        # OpenCV's distances are good to some percent; a pixel of grace.
        allowed |= cv2.distanceTransform(1 - touched, cv2.DIST_L2, 5) <= (seam * scale + 1) * 1.05 + 1
    changed = (worlds.photo_pixels() != pixels(facts["picture"])).any(axis=2)
    assert changed.any()
    assert not (changed & ~allowed).any()


def test_whole_photo_at_its_own_size(cli: Cli, tmp_path: Path, masks: Path, sizeless_weights: Path) -> None:
    """Odd sizes are padded for the network, and cropped back."""
    size = (51, 67)
    odd = worlds.write_photo(tmp_path / "odd" / "farm.png", worlds.photo_pixels(worlds.SHEEP[:1], None, size))
    own = worlds.write_masks(tmp_path / "odd.m", "farm", worlds.SHEEP[:1], size)
    (facts,) = cli("translate", odd, *PAIR, "--masks", own, "--weights", sizeless_weights, "--json").json
    assert pixels(facts["picture"]).shape == (51, 67, 3)
    result = report(facts["report"])["result"]
    assert result["region"] == {"mode": "whole", "model_size": [52, 68]}


def test_region_is_by_instance_where_the_photo_is_larger_than_the_model(
    cli: Cli, photo: Path, masks: Path, matte_weights: Path
) -> None:
    given = ("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--json")
    assert report(cli(*given).json[0]["report"])["result"]["region"]["mode"] == "instance"
    larger = report(cli(*given, "--size", "200x200").json[0]["report"])["result"]["region"]
    assert larger == {"mode": "whole", "model_size": [200, 200]}


def test_windows_are_squares_around_each_step(cli: Cli, photo: Path, masks: Path, matte_weights: Path) -> None:
    (facts,) = cli("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--json").json
    first = report(facts["report"])["result"]["steps"][0]
    x0, y0, x1, y1 = first["window"]
    # The largest sheep: 45 pixels wide around x = 40, y = 40.
    assert first["numbers"] == [0]
    assert x1 - x0 == y1 - y0 == 57
    assert abs((x0 + x1) / 2 - 40.5) <= 1
    assert abs((y0 + y1) / 2 - 40.5) <= 1


def test_windows_are_cut_as_the_card_says(
    cli: Cli, tmp_path: Path, photo: Path, masks: Path, matte_weights: Path
) -> None:
    """Wider around the smaller animal; its feet are where the training had them."""
    weights = worlds.copy_weights(
        matte_weights,
        tmp_path / "ground",
        window_scale=1.25,
        window_height_scale=2,
        target_window_scale=1.25,
        placement="ground",
    )
    sides = {}
    for name, (source, target) in {"there": ("sheep", "giraffe"), "back": ("giraffe", "sheep")}.items():
        classes = ("--source", source, "--target", target)
        given = ("translate", photo, *classes, *EXACT, "--masks", masks, "--weights", weights, "--json")
        (facts,) = cli(*given).json
        x0, y0, x1, y1 = report(facts["report"])["result"]["steps"][0]["window"]
        sides[name] = x1 - x0
        assert y1 - y0 == sides[name]
    assert sides == {"there": 66, "back": 57}


def test_the_way_back_may_have_a_size_of_its_own(
    cli: Cli, tmp_path: Path, photo: Path, masks: Path, matte_weights: Path
) -> None:
    weights = worlds.copy_weights(matte_weights, tmp_path / "two sizes", size=[32, 32], target_size=[16, 16])
    for source, target, own, other in (("sheep", "giraffe", "32x32", "16x16"), ("giraffe", "sheep", "16x16", "32x32")):
        given = ("translate", photo, "--source", source, "--target", target, *EXACT, "--masks", masks)
        made = []
        for size in ((), ("--size", own), ("--size", other)):
            (facts,) = cli(*given, "--weights", weights, *size, "-o", f"{len(made)}-{source}.png", "--json").json
            made.append(Path(facts["picture"]).read_bytes())
        assert made[0] == made[1] != made[2]


def test_no_instance_keeps_the_pixels_and_says_so(cli: Cli, tmp_path: Path, colour: str, matte_weights: Path) -> None:
    empty = worlds.write_photo(tmp_path / "meadow.png", worlds.photo_pixels((), None))
    ran = cli("translate", empty, *PAIR, "--segmenter", colour, "--weights", matte_weights)
    assert ran.code == 3
    assert "no instances, pixels unchanged -> meadow_giraffe.png" in ran.out
    assert np.array_equal(pixels("meadow_giraffe.png"), worlds.photo_pixels((), None))
    lossy = cli("translate", empty, *PAIR, "--segmenter", colour, "--weights", matte_weights, "-o", "x.jpg")
    assert "no instances, the photo as it was, compressed anew -> x.jpg" in lossy.out
    assert report("meadow_giraffe.report.json")["result"]["status"] == "no instances"


def test_five_instances_two_a_step_lose_none(cli: Cli, tmp_path: Path, matte_weights: Path) -> None:
    blobs = tuple((20 + 25 * i, 50, 8, 8 + i) for i in range(5))
    photo = worlds.write_photo(tmp_path / "row.png", worlds.photo_pixels(blobs, None))
    masks = worlds.write_masks(tmp_path / "row", "row", blobs)
    (facts,) = cli(
        "translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--json", "--instances-per-step", 2
    ).json
    steps = report(facts["report"])["result"]["steps"]
    assert [step["numbers"] for step in steps] == [[4, 3], [2, 1], [0]], "largest first"


def test_segment_edit_translate(cli: Cli, photo: Path, colour: str, matte_weights: Path) -> None:
    """The round that users make: segment, paint over one mask, delete another, translate."""
    ran = cli(
        "segment", photo, "--segmenter", colour, "--classes", "sheep", "--score", 0.3, "--output", "masks", "--json"
    )
    assert ran.code == 0, ran.err
    folder = Path(ran.json[0]["masks"])
    assert [each["number"] for each in ran.json[0]["instances"]] == [0, 1, 3]
    assert sorted(path.name for path in folder.iterdir()) == [
        "farm_0.png",
        "farm_1.png",
        "farm_3.png",
        "instances.json",
    ]
    assert (folder.parent / "farm.overlay.png").is_file()
    given = ("translate", photo, *PAIR, "--masks", "masks", "--weights", matte_weights, "--json")
    first = cli(*given).json[0]
    assert (first["instances"], first["steps_from_cache"]) == (3, 0)
    painted = cv2.imread(str(folder / "farm_3.png"), cv2.IMREAD_GRAYSCALE)
    painted[80:90, 60:64] = 255
    cv2.imwrite(str(folder / "farm_3.png"), painted)
    second = cli(*given).json[0]
    assert (second["instances"], second["steps_from_cache"]) == (3, 1), "the edited one and the one it reaches"
    (folder / "farm_3.png").unlink()
    third = cli(*given).json[0]
    assert (third["instances"], third["steps_from_cache"]) == (2, 1), "the one whose window it reached"
    again = cli("segment", photo, "--segmenter", colour, "--classes", "sheep", "--score", 0.3, "--output", "masks")
    assert again.code == 1
    assert "maybe edited" in again.err


def test_segment_undoes_no_edit_unless_told(cli: Cli, photo: Path, colour: str) -> None:
    """Neither a deletion of all masks nor a new label; what would be written as it is may be written again."""
    given = ("segment", photo, "--segmenter", colour, "--score", 0.3)
    folder = Path("farm.masks")

    def delete() -> None:
        for path in folder.glob("*.png"):
            path.unlink()

    def label() -> None:
        path = folder / "instances.json"
        path.write_text(path.read_text().replace('"horse"', '"donkey"'))

    def damage() -> None:
        (folder / "instances.json").write_text("{")

    assert cli(*given).code == 0
    first = files(folder)
    for edit in (delete, label, damage):
        assert cli(*given).code == 0, "nothing was edited"
        edit()
        edited = files(folder)
        assert edited != first
        ran = cli(*given)
        assert ran.code == 1
        assert "'farm.masks' holds other masks, maybe edited" in ran.err
        assert files(folder) == edited
        assert cli(*given, "--overwrite").code == 0
        assert files(folder) == first


def test_segment_refuses_photos_that_would_share_their_masks(cli: Cli, photo: Path, colour: str) -> None:
    other = worlds.write_photo(photo.with_suffix(".bmp"), worlds.photo_pixels((), None))
    for inputs in ((photo, other), (photo.parent,)):
        for overwrite in ((), ("--overwrite",)):
            ran = cli("segment", *inputs, "--segmenter", colour, "--output", "found", *overwrite)
            assert ran.code == 2
            assert "farm.png' and " in ran.err or "farm.bmp' and " in ran.err
            assert "would share the masks 'found/farm.masks'" in ran.err
            assert not Path("found").exists()
    assert cli("segment", photo, "--segmenter", colour).code == 0
    one_by_one = cli("segment", other, "--segmenter", colour)
    assert one_by_one.code == 1
    assert "maybe of another photo" in one_by_one.err


@pytest.mark.parametrize("stem", ["ü" * 124 + "fa", "field.v2" + "x" * 243])
def test_segment_and_translate_names_as_long_as_they_may_be(
    cli: Cli, photo: Path, colour: str, matte_weights: Path, stem: str
) -> None:
    long = photo.rename(photo.with_name(f"{stem}.png"))
    ran = cli("segment", long, "--segmenter", colour, "--score", 0.3, "--output", long.parent, "--json")
    assert ran.code == 0, ran.err
    facts = ran.json[0]
    next(path for path in Path(facts["masks"]).iterdir() if path.name.endswith("_1.png")).unlink()
    (made,) = cli("translate", long, *PAIR, "--segmenter", colour, "--weights", matte_weights, "--json").json
    assert made["instances"] == 2, "without the deleted one"
    # The picture's masks are of the picture, too.
    found = load(Path(made["masks"]), Path(made["picture"]), worlds.SIZE)
    assert found is not None
    assert set(found.labels) == {"giraffe"}
    assert len(found) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--source", "sheep"), "target: Field required"),
        ((*PAIR, "--region", "somewhere"), "region: Input should be"),
        ((*PAIR, "--size", "12"), "size must be HEIGHTxWIDTH"),
        ((*PAIR, "--keep", "a"), "instances must be numbers"),
        ((*PAIR, "--min-area", "lots"), "minimum area must be"),
        ((*PAIR, "--output", "x.mp4"), "cannot write pictures as '.mp4'"),
        ((*PAIR, "--masks", "nowhere"), "nowhere"),
        (("--source", "sheep", "--target", "zebra"), "zebra"),
        ((*PAIR, "--weights", "no-such"), "no translator weights 'no-such'"),
        ((*PAIR, "--config", "no.yaml"), "cannot read config"),
    ],
)
def test_wrong_requests_are_one_line(
    cli: Cli, photo: Path, matte_weights: Path, options: tuple[str, ...], says: str
) -> None:
    weights = () if "--weights" in options else ("--weights", matte_weights)
    ran = cli("translate", photo, *options, *weights)
    assert ran.code == (1 if "--masks" in options else 2)
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert not list(Path.cwd().iterdir())


def test_unknown_class_names_close_ones(cli: Cli, photo: Path, colour: str, matte_weights: Path) -> None:
    ran = cli(
        "translate",
        photo,
        *EXACT,
        "--source",
        "sheeep",
        "--target",
        "giraffe",
        "--weights",
        matte_weights,
        "--segmenter",
        colour,
    )
    assert ran.code == 2
    assert "no class 'sheeep'; close names: sheep" in ran.err


def test_the_input_is_never_overwritten(cli: Cli, photo: Path, masks: Path, matte_weights: Path) -> None:
    before = photo.read_bytes()
    ran = cli("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--output", photo)
    assert ran.code == 2
    assert "never overwritten" in ran.err
    assert photo.read_bytes() == before


def test_the_inputs_own_masks_are_never_overwritten(
    cli: Cli, tmp_path: Path, photo: Path, colour: str, matte_weights: Path
) -> None:
    given = ("translate", photo, *PAIR, "--weights", matte_weights, "--segmenter", colour, "--score", 0.3)
    ran = cli(*given, "--output", photo.with_suffix(".webp"))
    assert ran.code == 2
    assert "'farm.masks', which are never overwritten" in ran.err
    assert [path.name for path in photo.parent.iterdir()] == ["farm.png"]
    # Nor are those that lie where the picture is to be.
    out = tmp_path / "out"
    assert cli("segment", photo, "--segmenter", colour, "--score", 0.3, "--output", out).code == 0
    before = files(out)
    for state in ("as they are", "all deleted", "without labels"):
        if state == "all deleted":
            for path in (out / "farm.masks").glob("*.png"):
                path.unlink()
        elif state == "without labels":
            (out / "farm.masks" / "instances.json").unlink()
            worlds.write_masks(out / "farm.masks", "farm")
        before = files(out)
        ran = cli(*given, "--masks", out / "farm.masks", "--output", out / "farm.png")
        assert ran.code == 1, state
        assert "farm.masks' holds masks that no translation wrote" in ran.err
        assert files(out) == before
    # What a translation wrote is written anew, also where its report was deleted.
    for _ in range(2):
        assert cli(*given, "--output", "a/farm.png").code == 0
        Path("a/farm.report.json").unlink()


def test_other_formats_and_folders(cli: Cli, photo: Path, masks: Path, matte_weights: Path) -> None:
    given = ("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights)
    assert cli(*given, "--output", "deep/er/").code == 0
    assert Path("deep/er/farm_giraffe.png").is_file()
    for suffix in (".webp", ".tif", ".bmp"):
        assert cli(*given, "--output", f"x{suffix}").code == 0
        assert np.array_equal(pixels(f"x{suffix}"), pixels("deep/er/farm_giraffe.png")), suffix
    assert cli(*given, "--output", "x.jpg").code == 0
    difference = pixels("x.jpg").astype(int) - pixels("deep/er/farm_giraffe.png")
    assert np.abs(difference).mean() < 8


def test_settings_from_a_file_and_options_win(cli: Cli, photo: Path, masks: Path, matte_weights: Path) -> None:
    Path("task.yaml").write_text("source: sheep\ntarget: giraffe\nmax_instances: 1\norder: size-ascending\n")
    given = (
        "translate",
        photo,
        *EXACT,
        "--masks",
        masks,
        "--weights",
        matte_weights,
        "--config",
        "task.yaml",
        "--json",
    )
    assert report(cli(*given).json[0]["report"])["result"]["steps"][0]["numbers"] == [2]
    assert cli(*given, "--max-instances", 2).json[0]["instances"] == 2
    Path("bad.yaml").write_text("scor: 0.3\n")
    assert "scor: Extra inputs" in cli("translate", photo, *PAIR, "--config", "bad.yaml").err


def test_any_source_with_weights_by_name_but_only_their_targets(
    cli: Cli, photo: Path, masks: Path, matte_weights: Path
) -> None:
    given = ("translate", photo, *EXACT, "--masks", masks, "--weights", matte_weights, "--json")
    assert cli(*given, "--source", "cow", "--target", "giraffe").code == 0
    back = cli(*given, "--source", "giraffe", "--target", "sheep").json[0]
    assert report(back["report"])["result"]["weights"]["direction"] == "target_to_source"
    assert "they make giraffe and sheep" in cli(*given, "--source", "sheep", "--target", "zebra").err


def test_python_does_what_the_command_does(
    cli: Cli, photo: Path, masks: Path, matte_weights: Path, tmp_path: Path
) -> None:
    cli("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--output", "a/farm.png")
    with Pipeline(
        "sheep",
        "giraffe",
        engine="torch",
        precision="float32",
        weights=str(matte_weights),
        masks=masks,
        cache=tmp_path / "other",
    ) as pipeline:
        result = pipeline(photo)
    result.save("b/farm.png")
    assert files(Path("a")) == files(Path("b"))
    assert report("a/farm.report.json")["result"] == report("b/farm.report.json")["result"]
    assert np.array_equal(result.pixels, pixels("a/farm.png"))
    assert result.instances.numbers == (0, 1, 2)
    with pytest.raises(UsageError, match="suffix"):
        result.save("b/farm.jpg")


def test_python_takes_pixels_and_bytes(matte_weights: Path, tmp_path: Path, colour: str) -> None:
    with Pipeline(
        "sheep",
        "giraffe",
        engine="torch",
        precision="float32",
        weights=str(matte_weights),
        segmenter=colour,
        cache=tmp_path / "c",
    ) as pipeline:
        from_pixels = pipeline(worlds.photo_pixels())
        from_bytes = pipeline(imaging.encode_image(worlds.photo_pixels(), ".png"))
    assert from_pixels.translated
    assert from_bytes.hits == ("segment", "filter", "translate")
    assert np.array_equal(from_pixels.pixels, from_bytes.pixels)


def test_too_little_memory_is_foreseen_or_explained(
    cli: Cli, photo: Path, masks: Path, matte_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--device", "cpu")
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    ran = cli(*given)
    assert ran.code == 1
    assert ran.err.startswith("error: a step on 32x32 pixels with 1 masks needs about ")
    assert "--region instance" in ran.err
    size = TranslatorCard(
        name="w", source="a", target="b", generator=GeneratorConfig(width=64), directions={}
    )  # fmt: skip
    assert 15e9 < memory.step_memory(size, (2048, 2048), 2) < 25e9
    # Masks go one after the other: many of them are no reason to refuse.
    assert memory.step_memory(size, (200, 200), 64) < 8 * memory.step_memory(size, (200, 200), 2)
    with pytest.raises(EngineError, match="did not fit"), memory.foreseen(size, (8, 8), 1, "cuda"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    with pytest.raises(RuntimeError, match="shape"), memory.foreseen(size, (8, 8), 1, "cuda"):
        raise RuntimeError("shape mismatch")


def test_no_socket_is_opened(
    cli: Cli, photo: Path, colour: str, matte_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    ran = cli("translate", photo, *PAIR, "--segmenter", colour, "--weights", matte_weights)
    assert ran.code == 0, ran.err


def test_every_bundled_task_is_loaded() -> None:
    paths = sorted((configs_root() / "translate").glob("*.yaml"))
    assert paths
    for path in paths:
        task = read_yaml(path, TranslateSettings)
        assert path.stem == f"{task.source}2{task.target}"


def test_the_table_of_defaults_is_true() -> None:
    """docs/translate.md lists every setting with its default."""
    text = (REPOSITORY / "docs" / "translate.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `--([a-z-]+)` \| (.+?) \|", text, flags=re.MULTILINE))
    for name, field in TranslateSettings.model_fields.items():
        option = name.replace("_", "-")
        if field.is_required() or option == "duplicates":
            continue
        shown = rows[option].strip("`")
        default = field.default
        assert shown == ("none" if default in (None, ()) else str(default)), option
