"""Folders and globs: outcomes, names, going on after a crash."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import worlds
from conftest import REPOSITORY, Cli

from instapipe import imaging
from instapipe.errors import InputError, OutputError, PhotoError
from instapipe.pipeline.batch import check_disk, exit_code
from instapipe.pipeline.jobs import find_inputs, folder_jobs, single_job
from instapipe.pipeline.ledger import Ledger

KILLS = int(os.environ.get("INSTAPIPE_KILLS", "20"))
CLASSES = ("--source", "sheep", "--target", "giraffe")
# Not `auto`: its measurement takes a second, and may come out otherwise in another cache.
EXACT = ("--engine", "torch", "--precision", "float32")
PAIR = (*CLASSES, *EXACT)


def outputs(folder: Path) -> dict[str, bytes]:
    """Everything that must be equal: pictures, masks, filmstrips, and of the reports the result."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "instapipe.ledger.jsonl":
            data = path.read_bytes()
            if path.name.endswith(".report.json"):
                data = json.dumps(json.loads(data)["result"], sort_keys=True).encode()
            found[path.relative_to(folder).as_posix()] = data
    return found


def meadow(folder: Path, count: int = 4) -> Path:
    """A folder with photos of sheep, some in a subfolder; each other than the last."""
    for i in range(count):
        blobs = tuple((x + 3 * i, y, rx, ry) for x, y, rx, ry in worlds.SHEEP[: 2 + i % 2])
        place = folder / "sub" if i % 3 == 2 else folder
        worlds.write_photo(place / f"p{i}.png", worlds.photo_pixels(blobs, None, seed=i))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return meadow(tmp_path / "photos")


@pytest.fixture
def options(colour: str, matte_weights: Path) -> tuple[object, ...]:
    return (*PAIR, "--segmenter", colour, "--weights", matte_weights, "--score", 0.3)


def test_a_folder(cli: Cli, photos: Path, options: tuple[object, ...]) -> None:
    ran = cli("translate", photos, *options, "--json")
    assert ran.code == 0, ran.err
    assert {each["status"] for each in ran.json} == {"translated"}
    out = Path("photos_giraffe")
    pictures = sorted(path.relative_to(out).as_posix() for path in out.rglob("*_giraffe.png"))
    assert pictures == ["p0_giraffe.png", "p1_giraffe.png", "p3_giraffe.png", "sub/p2_giraffe.png"]
    assert "[4/4]" in ran.err
    assert "photos/s" in ran.err


def test_the_same_as_one_by_one_whatever_the_workers(
    cli: Cli, photos: Path, options: tuple[object, ...], tmp_path: Path
) -> None:
    cli("translate", photos, *options, "--output", "many", "--workers", 4)
    for photo in sorted(photos.rglob("*.png")):
        place = Path("single") / photo.relative_to(photos).parent
        ran = cli("translate", photo, *options, "--output", f"{place}/", "--cache", tmp_path / "other")
        assert ran.code == 0
    assert outputs(Path("many")) == outputs(Path("single"))


def test_globs_and_lists(cli: Cli, photos: Path, options: tuple[object, ...]) -> None:
    assert cli("translate", f"{photos}/p*.png", *options, "-o", "a").code == 0
    assert len(list(Path("a").glob("*_giraffe.png"))) == 3
    assert cli("translate", f"{photos}/**/*.png", *options, "-o", "b").code == 0
    assert len(list(Path("b").rglob("*_giraffe.png"))) == 4
    assert cli("translate", photos / "p0.png", photos / "sub" / "p2.png", *options, "-o", "c").code == 0
    assert sorted(path.as_posix() for path in Path("c").rglob("*_giraffe.png")) == [
        "c/p0_giraffe.png",
        "c/sub/p2_giraffe.png",
    ]
    nothing = cli("translate", f"{photos}/*.jpg", *options)
    assert nothing.code == 1
    assert nothing.err.startswith("error: no photos in ")


def test_one_bad_photo_stops_nothing(cli: Cli, photos: Path, options: tuple[object, ...]) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    worlds.write_photo(photos / "empty.png", worlds.photo_pixels((), None))
    ran = cli("translate", photos, *options, "--json")
    assert ran.code == 4, "some failed wins over some without instance"
    by_name = {Path(each["photo"]).name: each for each in ran.json}
    assert by_name["bad.jpg"]["status"] == "failed"
    assert "bad.jpg" in by_name["bad.jpg"]["error"]
    assert by_name["empty.png"]["status"] == "no instances"
    assert sum(each["status"] == "translated" for each in ran.json) == 4
    (photos / "bad.jpg").unlink()
    assert cli("translate", photos, *options).code == 3


def test_a_segmenter_that_dies_on_one_photo_costs_that_photo(
    cli: Cli, photos: Path, colour: str, matte_weights: Path
) -> None:
    worlds.write_photo(photos / "empty.png", worlds.photo_pixels((), None))
    ran = cli("translate", photos, *PAIR, "--segmenter", f"{colour}:fragile", "--weights", matte_weights, "--json")
    assert ran.code == 4
    (failed,) = (each for each in ran.json if each["status"] == "failed")
    assert failed["error"] == "photo 'empty.png': RuntimeError: boom: no sheep"


def test_masks_of_the_wrong_size_fail_their_photo_alone(
    cli: Cli, photos: Path, matte_weights: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    for name in ("p0", "p1", "p2", "p3"):
        worlds.write_masks(masks, name)
    cv2.imwrite(str(masks / "p1_0.png"), cv2.imread(str(masks / "p1_0.png"))[:50])
    ran = cli("translate", photos, *PAIR, "--weights", matte_weights, "--masks", masks, "--json")
    assert ran.code == 4
    (failed,) = (each for each in ran.json if each["status"] == "failed")
    assert Path(failed["photo"]).name == "p1.png"


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["translated"], 0),
        (["translated", "no instances"], 3),
        (["no instances"], 3),
        (["translated", "failed"], 4),
        (["no instances", "failed"], 4),
        (["failed"], 1),
        (["failed", "failed"], 1),
    ],
)
def test_exit_codes(statuses: list[str], code: int) -> None:
    assert exit_code(statuses) == code


def test_running_again_goes_on_where_it_stopped(cli: Cli, photos: Path, options: tuple[object, ...]) -> None:
    cli("translate", photos, *options, "-o", "out")
    first = outputs(Path("out"))
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    worlds.write_photo(photos / "p9.png", worlds.photo_pixels(worlds.SHEEP[:1], None, seed=9))
    again = cli("translate", photos, *options, "-o", "out", "--json")
    assert sorted(each["earlier"] for each in again.json) == [False, True, True, True, True]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert {name: data for name, data in outputs(Path("out")).items() if "p9" not in name} == first
    # What is missing or was changed is made again; other settings make all of it again.
    Path("out/p0_giraffe.png").unlink()
    redone = {
        Path(each["photo"]).name: each["earlier"]
        for each in cli("translate", photos, *options, "-o", "out", "--json").json
    }
    assert redone == {"p0.png": False, "p1.png": True, "p2.png": True, "p3.png": True, "p9.png": True}
    other = cli("translate", photos, *options, "-o", "out", "--json", "--max-instances", 1)
    assert not any(each["earlier"] for each in other.json)


def test_edited_masks_are_noticed(cli: Cli, photos: Path, matte_weights: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    for name in ("p0", "p1", "p2", "p3"):
        worlds.write_masks(masks, name, worlds.SHEEP[:2])
    given = ("translate", photos, *PAIR, "--weights", matte_weights, "--masks", masks, "-o", "out", "--json")
    assert cli(*given).code == 0
    worlds.write_masks(masks, "p3", worlds.SHEEP[1:])
    redone = {Path(each["photo"]).name: each["earlier"] for each in cli(*given).json}
    assert redone == {"p0.png": True, "p1.png": True, "p2.png": True, "p3.png": False}


def test_outputs_inside_the_input_are_no_inputs(cli: Cli, photos: Path, options: tuple[object, ...]) -> None:
    """Into the same folder, and into a folder inside it, twice."""
    for place in (photos, photos / "made"):
        for _ in range(2):
            ran = cli("translate", photos, *options, "-o", place, "--json")
            assert ran.code == 0, ran.err
            assert sorted(Path(each["photo"]).name for each in ran.json) == ["p0.png", "p1.png", "p2.png", "p3.png"]


def test_masks_folders_inside_the_input_are_no_photos(photos: Path) -> None:
    worlds.write_masks(photos / "sub_seg", "p2")
    worlds.write_masks(photos / "p0.masks", "p0")
    (photos / ".hidden").mkdir()
    worlds.write_photo(photos / ".hidden" / "x.png")
    names = [path.name for path in find_inputs([str(photos)]).photos]
    assert names == ["p0.png", "p1.png", "p3.png", "p2.png"]


def test_everything_lies_below_the_output_whatever_the_dots(
    cli: Cli, photos: Path, options: tuple[object, ...], colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos / "sub")
    out = photos.parent / "out"
    before = set(photos.rglob("*"))
    ran = cli("translate", "p2.png", "../p0.png", *options, "-o", "../../out")
    assert ran.code == 0, ran.err
    ran = cli("segment", "p2.png", "../p*.png", "--segmenter", colour, "--score", 0.3, "-o", "../../out/found")
    assert ran.code == 0, ran.err
    assert set(photos.rglob("*")) == before
    assert {path.relative_to(out).as_posix() for path in out.rglob("*_giraffe.png")} == {
        "p0_giraffe.png", "sub/p2_giraffe.png",
    }  # fmt: skip
    assert {path.relative_to(out).as_posix() for path in out.rglob("p?.masks")} == {
        "found/p0.masks", "found/p1.masks", "found/p3.masks", "found/sub/p2.masks",
    }  # fmt: skip


def test_dots_in_the_output_hide_no_input(photos: Path, cli: Cli, options: tuple[object, ...]) -> None:
    taken = worlds.write_photo(photos / "p0_giraffe.png")
    before = taken.read_bytes()
    assert cli("translate", photos, *options, "-o", f"{photos}/sub/..").code == 0
    assert taken.read_bytes() == before
    assert (photos / "p0.png_giraffe.png").is_file()


def test_a_shells_glob_names_no_outputs_and_no_masks(
    cli: Cli, photos: Path, options: tuple[object, ...], colour: str
) -> None:
    """What lies among the photos is left out of several arguments and of globs as it is of folders."""
    assert cli("translate", photos, *options, "-o", photos).code == 0
    assert cli("segment", photos, "--segmenter", colour, "--score", 0.3, "-o", photos).code == 0
    worlds.write_masks(photos / "sub_seg", "p2")

    def found(*arguments: Path | str) -> list[str]:
        return [path.name for path in find_inputs([str(argument) for argument in arguments]).photos]

    flat, everything = sorted(photos.glob("*")), sorted(photos.rglob("*"))
    assert len(flat) > 15
    assert sorted(found(*flat)) == ["p0.png", "p1.png", "p2.png", "p3.png"], "a folder that is named is searched"
    assert found(*(path for path in everything if path.is_file())) == ["p0.png", "p1.png", "p3.png", "p2.png"]
    assert found(f"{photos}/*") == ["p0.png", "p1.png", "p3.png"], "a folder that a glob matches is not"
    assert found(f"{photos}/**/*") == ["p0.png", "p1.png", "p3.png", "p2.png"]
    assert found(photos / "p0.overlay.png") == ["p0.overlay.png"], "a single file is meant"
    assert found(photos / "p0.masks") == ["p0_0.png", "p0_1.png"], "so is a single folder"
    for nothing in ((f"{photos}/*.overlay.png",), sorted(photos.glob("p0.*"))[:2], (f"{photos}/s*",)):
        with pytest.raises(InputError, match=r"^no photos in '.*; outputs, masks and folders in a glob are none$"):
            found(*nothing)


def test_outputs_with_shortened_names_are_no_inputs(
    cli: Cli, tmp_path: Path, options: tuple[object, ...], colour: str
) -> None:
    photos = tmp_path / "long"
    for letter, length in (("a", 246), ("b", 251)):
        worlds.write_photo(photos / (letter * length + ".png"))
    assert cli("segment", photos, "--segmenter", colour, "--score", 0.3, "-o", photos).code == 0
    for _ in range(2):
        ran = cli("translate", photos, *options, "-o", photos, "--json")
        assert ran.code == 0, ran.err
        assert sorted(Path(each["photo"]).name[0] for each in ran.json) == ["a", "b"]


def test_a_file_may_be_called_like_a_home(cli: Cli, options: tuple[object, ...]) -> None:
    assert cli("translate", "~no-such-user.png", *options).err == "error: no photo '~no-such-user.png'\n"
    worlds.write_photo(Path("~no-such-user.png"))
    ran = cli("translate", "~no-such-user.png", *options, "-o", "~no-such-user/")
    assert ran.code == 0, ran.err
    assert Path("~no-such-user/~no-such-user_giraffe.png").is_file()


def test_names_never_collide_and_stay(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a.jpg", "a.png", "A.webp", "b.png", "a_giraffe.png"):
        worlds.write_photo(folder / name)
    inputs = find_inputs([str(folder)])
    out = tmp_path / "out"
    pictures = {job.name: job.picture.relative_to(out).as_posix() for job in folder_jobs(inputs, out, "giraffe", {})}
    assert len({name.casefold() for name in pictures.values()}) == 5
    assert pictures["b.png"] == "b_giraffe.png"
    # A photo that is added later takes nobody's name away.
    worlds.write_photo(folder / "B.jpg")
    later = {
        job.name: job.picture.relative_to(out).as_posix()
        for job in folder_jobs(find_inputs([str(folder)]), out, "giraffe", pictures)
    }
    assert {name: later[name] for name in pictures} == pictures
    assert later["B.jpg"].casefold() not in {name.casefold() for name in pictures.values()}
    # Into the input's own folder no photo is overwritten.
    same = {job.picture for job in folder_jobs(inputs, folder, "giraffe", {})}
    assert same.isdisjoint(inputs.photos)
    # Nor do its masks and report: those of a picture are called by its stem.
    for name in ("c.png", "c_giraffe.jpg"):
        worlds.write_photo(folder / name)
    there = folder_jobs(find_inputs([str(folder)]), folder, "giraffe", {})
    assert {job.picture.stem for job in there}.isdisjoint(job.photo.stem for job in there)


def test_single_outputs(tmp_path: Path) -> None:
    photo = tmp_path / "x.jpg"
    assert single_job(photo, None, "big dog/cat").picture.name == "x_big-dog-cat.png"
    assert single_job(photo, str(tmp_path), "giraffe").picture == tmp_path / "x_giraffe.png"
    with pytest.raises(PhotoError, match="no photo"):
        find_inputs([str(photo)])
    with pytest.raises(InputError, match="no photos"):
        find_inputs([str(tmp_path)])


def test_the_disk_is_looked_at_first(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = folder_jobs(find_inputs([str(photos)]), tmp_path / "out", "giraffe", {})
    assert 2_000_000 < check_disk(jobs, tmp_path / "out") < 4_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(OutputError, match=r"4 photos need about 0\.0 GB"):
        check_disk(jobs, tmp_path / "out")


def test_a_torn_ledger_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin({"asked": 1}, {"a.png": "a_g.png", "b.png": "b_g.png"})
    ledger.finish("a.png", {"status": "translated", "request": "r"})
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + b'{"done":"b.png","sta')
    again = Ledger(tmp_path)
    assert again.run == {"asked": 1}
    assert again.pictures == {"a.png": "a_g.png", "b.png": "b_g.png"}
    assert list(again.done) == ["a.png"]
    again.finish("b.png", {"status": "failed", "error": "x"})
    assert set(Ledger(tmp_path).done) == {"a.png", "b.png"}, "what follows a torn line is not lost"
    again.compact()
    assert again.path.read_text().count("\n") == 5
    assert set(Ledger(tmp_path).done) == {"a.png", "b.png"}


def test_scratch_files_of_the_dead_are_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = imaging.files._host()
    (tmp_path / "sub").mkdir()
    left = tmp_path / "sub" / f".instapipe-{mine}-{dead.pid}-0123.tmp"
    alive = tmp_path / f".instapipe-{mine}-{os.getpid()}-0123.tmp"
    elsewhere = tmp_path / f".instapipe-00000000-{dead.pid}-0123.tmp"
    for path in (left, alive, elsewhere):
        path.touch()
    imaging.sweep(tmp_path)
    assert [path.exists() for path in (left, alive, elsewhere)] == [os.name != "posix", True, True]


def command(photos: Path, out: Path, cache: Path, options: tuple[object, ...]) -> list[str]:
    words = ["translate", photos, *options, "--output", out, "--cache", cache, "--workers", 2]
    return [sys.executable, "-m", "instapipe", *map(str, words)]


@pytest.fixture
def environment(colour: str) -> dict[str, str]:
    """For processes of their own: the small world's segmenter is installed there too."""
    paths = [os.environ["PYTHONPATH"], str(REPOSITORY), str(REPOSITORY / "tests")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_killed_again_and_again_the_result_is_that_of_a_quiet_run(
    cli: Cli, photos: Path, options: tuple[object, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    """Folder runs killed at random moments, from the first line of the process to its last.

    Each round forks from a process that has everything imported, so that the kills fall into the run itself.
    """
    cli("translate", photos, *options, "-o", "quiet", "--cache", tmp_path / "quiet-cache")
    quiet = outputs(Path("quiet"))
    script = REPOSITORY / "tests" / "killer.py"
    arguments = command(photos, tmp_path / "killed", tmp_path / "killed-cache", options)[3:]
    done = subprocess.run(
        [sys.executable, str(script), str(KILLS), *arguments],
        env=environment, capture_output=True, text=True, timeout=10 + 15 * KILLS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kills, finished = map(int, done.stdout.split())
    assert kills == KILLS
    assert outputs(tmp_path / "killed") == quiet
    assert finished > 0
    assert not list((tmp_path / "killed").rglob(".instapipe-*")), "no scratch files are left beside the pictures"
    assert cli("cache", "verify", "--cache", tmp_path / "killed-cache").code == 0


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_interrupted_leaves_whole_files(
    photos: Path, options: tuple[object, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    for i in range(4, 12):
        worlds.write_photo(photos / f"p{i}.png", worlds.photo_pixels(seed=i))
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(photos, out, tmp_path / "cache", options),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A run in the background inherits ignored interrupts; a terminal's does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(out.rglob("*_giraffe.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not list(out.rglob(".instapipe-*"))
    for path in out.rglob("*.png"):
        assert cv2.imread(str(path)) is not None


@pytest.mark.parametrize("name", [b"caf\xe9.png", "two\u2028lines.png".encode(), "caf\x85.png".encode()])
def test_a_name_in_another_encoding_is_a_name(
    shell: Cli, photos: Path, options: tuple[object, ...], name: str | bytes
) -> None:
    """In a process of its own, whose output has to take it too; a second run finds what the first has done."""
    name = os.fsdecode(name)
    shutil.copy(photos / "p0.png", photos / name)
    strict = {"PYTHONIOENCODING": "utf-8:strict"}
    for extra in ((), ("--json",), ()):
        ran = shell("translate", photos, *options, "-o", photos.parent / "out", *extra, env=strict)
        assert ran.code == 0, ran.err[-500:]
        if extra:
            lines = [json.loads(line) for line in ran.out.split("\n") if line]
            assert {Path(line["photo"]).name: line["earlier"] for line in lines}[name]
    assert (photos.parent / "out" / name.replace(".png", "_giraffe.png")).exists()
