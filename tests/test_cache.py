"""The step cache: what is found again, what is not, and why."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import colour_segmenter
import numpy as np
import pytest
import worlds
from conftest import REPOSITORY, Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from instapipe.config import DirectionFile, GeneratorConfig, TranslatorCard
from instapipe.errors import CacheError
from instapipe.pipeline.keys import canonical, differences, json_bytes, key_of
from instapipe.pipeline.plan import lay_out, plan_steps
from instapipe.pipeline.resolve import Weights
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store

CLASSES = ("--source", "sheep", "--target", "giraffe")
# Not `auto`: its measurement takes a second, and may come out otherwise in another cache.
EXACT = ("--engine", "torch", "--precision", "float32")
PAIR = (*CLASSES, *EXACT)
REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ImportError(f"{{name}} is not to be imported")
sys.meta_path.insert(0, Refuse())
"""
NO_TORCH = REFUSE.format(names=("torch", "torchvision", "timm"))
LIGHT = REFUSE.format(names=("torch", "torchvision", "timm", "numpy", "cv2", "PIL"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return worlds.write_photo(tmp_path / "in" / "farm.png")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return worlds.write_masks(tmp_path / "masks", "farm")


def outputs(folder: Path = Path()) -> dict[str, bytes]:
    """Everything that must be equal: all files, and of the reports the result."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name.endswith(".report.json"):
                data = json.dumps(json.loads(data)["result"], sort_keys=True).encode()
            found[path.relative_to(folder).as_posix()] = data
    return found


def test_a_warm_run_needs_no_weights_and_no_numpy(
    cli: Cli, shell: Cli, photo: Path, colour: str, tmp_path: Path
) -> None:
    weights = worlds.write_weights(tmp_path / "weights")
    # The engine is left to `auto`: what it chose is remembered too.
    given = ("translate", photo, *CLASSES, "--segmenter", colour, "--weights", weights, "--json", "--score", 0.3)
    assert cli(*given).json[0]["hits"] == []
    cold = outputs()
    shutil.rmtree(weights)
    here = Path.cwd()
    for path in here.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = shell(*given, before=LIGHT, cwd=here)
    assert ran.code == 0, ran.err
    assert ran.json[0]["hits"] == ["segment", "filter", "translate"]
    assert outputs() == cold
    # What is not there cannot be made: it is said in one line.
    ran = shell(*given, "--background", "exact", before=NO_TORCH, cwd=here)
    assert ran.code == 2
    assert ran.err.startswith("error: no translator weights")


def test_a_new_threshold_runs_no_segmenter(cli: Cli, photo: Path, colour: str, matte_weights: Path) -> None:
    given = ("translate", photo, *PAIR, "--segmenter", colour, "--weights", matte_weights, "--json")
    colour_segmenter.RUNS.clear()
    assert cli(*given, "--score", 0.6).json[0]["instances"] == 2
    more = cli(*given, "--score", 0.3).json[0]
    assert len(colour_segmenter.RUNS) == 1
    assert more["hits"] == ["segment"]
    assert (more["instances"], more["steps_from_cache"]) == (3, 2), "the smallest comes last: its step alone ran"


def test_dropping_the_last_runs_nothing_and_the_first_everything(
    cli: Cli, photo: Path, masks: Path, matte_weights: Path
) -> None:
    given = ("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--json")
    assert cli(*given).json[0]["steps_from_cache"] == 0
    last = cli(*given, "--drop", 2).json[0]
    assert (last["instances"], last["steps_from_cache"]) == (2, 2)
    assert "translate" in last["hits"]
    first = cli(*given, "--drop", 0).json[0]
    assert (first["instances"], first["steps_from_cache"]) == (2, 0), "every step saw the first one translated"


@pytest.mark.parametrize("weights", ["matte_weights", "whole_weights"])
@pytest.mark.parametrize("region", ["instance", "whole"])
def test_resuming_after_every_step_gives_the_bytes_of_a_cold_run(
    cli: Cli, photo: Path, masks: Path, weights: str, region: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The entries of the steps after k, and the outputs, are taken away: the run goes on from step k."""
    given = (
        "translate", photo, *PAIR, "--masks", masks, "--weights", request.getfixturevalue(weights), "--json",
        "--region", region,
    )  # fmt: skip
    assert cli(*given).json[0]["steps_from_cache"] == 0
    cold = outputs()
    assert len(json.loads(cold["farm_giraffe.report.json"])["steps"]) == 3
    store = Store(tmp_path / "cache")
    for k in range(4):
        for entry in list(store.entries()):
            inputs = store.inputs_of(entry)
            assert inputs is not None
            if entry.stage == "output" or (entry.stage == "translate" and len(inputs["masks"]) > k):
                shutil.rmtree(entry.folder)
        assert cli(*given).json[0]["steps_from_cache"] == k
        assert outputs() == cold, f"resumed after step {k}"


def test_copies_and_other_names_hit(cli: Cli, photo: Path, colour: str, matte_weights: Path, tmp_path: Path) -> None:
    """Keys come from content: not from the path of the photo, of the weights or of the masks."""
    given = (*PAIR, "--segmenter", colour, "--json", "--device", "cpu")
    assert cli("translate", photo, *given, "--weights", matte_weights).json[0]["hits"] == []
    elsewhere = shutil.copytree(matte_weights, tmp_path / "moved")
    copy = shutil.copy(photo, tmp_path / "another.png")
    assert cli("translate", copy, *given, "--weights", elsewhere).json[0]["hits"] == ["segment", "filter", "translate"]


def test_explain_names_the_field(cli: Cli, photo: Path, masks: Path, matte_weights: Path) -> None:
    given = (photo, *PAIR, "--masks", masks, "--weights", matte_weights)
    nothing = cli("cache", "explain", *given)
    assert "segment: miss: no entry of this stage" in nothing.out
    cli("translate", *given)
    warm = cli("cache", "explain", *given, "--json").json
    assert [(each["stage"], each["hit"]) for each in warm] == [
        ("segment", True), ("filter", True), ("translate step 1", True), ("translate step 2", True),
        ("translate step 3", True),
    ]  # fmt: skip
    changed = cli("cache", "explain", *given, "--background", "exact")
    assert "translate step 1: miss" in changed.out
    assert '  region.background: now "exact", then "natural"' in changed.out
    capped = cli("cache", "explain", *given, "--max-instances", 1)
    assert "settings.max_instances: now 1, then 20" in capped.out


def test_care(cli: Cli, photo: Path, masks: Path, matte_weights: Path, tmp_path: Path) -> None:
    given = ("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights, "--json")
    cli(*given)
    cold = outputs()
    assert cli("cache", "path").out.strip() == str(tmp_path / "cache")
    stages = [each["stage"] for each in cli("cache", "ls", "--json").json]
    assert sorted(stages) == ["decode", "filter", "output", "segment", "translate", "translate", "translate"]
    assert cli("cache", "verify").code == 0
    # Damage one entry: verify finds it, and a run makes it anew.
    (folder,) = (entry.folder for entry in Store(tmp_path / "cache").entries() if entry.stage == "output")
    picture = folder / "picture.png"
    picture.write_bytes(picture.read_bytes()[:-1] + b"x")
    assert cli(*given).json[0]["steps_from_cache"] == 3
    assert outputs() == cold
    picture.write_bytes(b"")
    damaged = cli("cache", "verify")
    assert damaged.code == 1
    assert "6 entries sound, 1 damaged" in damaged.out
    assert "0 entries thrown away" in cli("cache", "prune", "--older-than", "1h").out
    assert "6 entries thrown away" in cli("cache", "prune", "--to", "0").out
    cli(*given)
    cli("cache", "clear")
    assert cli("cache", "ls").out.startswith("0 entries")
    assert cli("cache", "prune", "--to", "much").code == 2


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_the_folder_is_private_and_ours(
    cli: Cli, photo: Path, masks: Path, matte_weights: Path, tmp_path: Path
) -> None:
    given = ("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights)
    cli(*given)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter.txt").write_text("dear")
    ran = cli(*given, "--cache", theirs)
    assert ran.code == 1
    assert "no instapipe cache" in ran.err
    assert cli("cache", "clear", "--cache", theirs).code == 1
    assert (theirs / "letter.txt").exists()


def test_the_cap_drops_what_was_not_used_for_longest(tmp_path: Path) -> None:
    store = Store(tmp_path / "c", cap=10_000)
    for i in range(9):
        entry = store.put("s", {"i": i}, {"data": bytes(1000)})
        age = 1_000_000 + i
        os.utime(store._folder("s", entry.key) / "meta.json", (age, age))
    assert store.get("s", {"i": 0}) is not None, "used again: the youngest now"
    for i in range(9, 12):
        store.put("s", {"i": i}, {"data": bytes(1000)})
    left = [i for i in range(12) if store.has("s", {"i": i})]
    assert sum(entry.bytes for entry in store.entries()) <= 10_000
    assert {0, 11} <= set(left)
    assert 1 not in left


def test_a_full_disk_does_not_end_a_run(
    cli: Cli, photo: Path, masks: Path, matte_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if str(tmp_path / "cache") in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    Store(tmp_path / "cache")
    monkeypatch.setattr(os, "fsync", full)
    ran = cli("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights)
    assert ran.code == 0
    assert Path("farm_giraffe.png").is_file()
    assert "warning: results are not kept in the cache: No space left on device" in ran.err
    assert list(Store(tmp_path / "cache").entries()) == []


def test_two_processes_on_one_cache(photo: Path, masks: Path, matte_weights: Path, tmp_path: Path) -> None:
    """Both at once: equal results, a sound cache, nothing left lying about."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [
                sys.executable, "-m", "instapipe", "translate", photo, *PAIR, "--masks", masks,
                "--weights", matte_weights, "--cache", tmp_path / "shared",
                "--output", tmp_path / f"out{i}" / "farm.png",
            ],
            env=environment, stdout=subprocess.DEVNULL,
        )
        for i in range(2)
    ]  # fmt: skip
    assert [process.wait(120) for process in running] == [0, 0]
    assert outputs(tmp_path / "out0") == outputs(tmp_path / "out1")
    sound, damaged = Store(tmp_path / "shared").verify()
    assert (sound, damaged) == (7, [])
    assert list((tmp_path / "shared" / "scratch").iterdir()) == []


def test_a_cache_is_made_by_many_at_once(tmp_path: Path) -> None:
    at_once = threading.Barrier(8)

    def make(root: Path) -> Store:
        at_once.wait(60)
        return Store(root)

    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            stores = list(pool.map(make, [tmp_path / str(number)] * 8))
            assert stores[0].get("none", {}) is None


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="cannot be used"):
        Store(tmp_path / "file" / "cache")


# Keys, as properties

CARD = TranslatorCard(
    name="w",
    source="sheep",
    target="giraffe",
    generator=GeneratorConfig(),
    size=(64, 64),
    instances_per_step=1,
    directions={"source_to_target": DirectionFile(file="f", sha256="ab" * 32, dtype="float16")},
)
records = st.lists(
    st.tuples(st.integers(0, 80), st.integers(0, 60), st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=6
).map(
    lambda boxes: [
        {"number": i, "box": [x, y, x + w, y + h], "digest": f"{i}-{x}-{y}-{w}-{h}"}
        for i, (x, y, w, h) in enumerate(boxes)
    ]
)
ENGINE = {"engine": "torch", "precision": "float32"}
TRIES = settings(max_examples=80, deadline=None, derandomize=True)


def keys(
    chosen: list[dict],
    card: TranslatorCard = CARD,
    engine: dict[str, str] = ENGINE,
    photo: str = "p",
    size: tuple[int, int] = (100, 120),
    found: list[dict] | None = None,
    **options: object,
) -> list[str]:
    asked = TranslateSettings(source="sheep", target="giraffe", **options)  # type: ignore[arg-type]
    weights = Weights(card, "source_to_target", None)
    steps = plan_steps(chosen, found or chosen, photo, lay_out(size, weights, asked), weights, engine, asked)
    return [key_of(step.inputs) for step in steps]


@TRIES
@given(records, st.data())
def test_what_changes_the_result_changes_every_key(chosen: list[dict], data: st.DataObject) -> None:
    base = keys(chosen)
    other = data.draw(
        st.sampled_from(
            [
                keys(chosen, photo="q"),
                keys(chosen, engine={"engine": "torch", "precision": "bfloat16"}),
                keys(chosen, background="exact"),
                keys(chosen, background="exact", seam=3),
                keys(chosen, region="whole"),
                keys(chosen, card=CARD.model_copy(update={"size": (96, 96)})),
                keys(chosen, card=CARD.model_copy(update={"generator": GeneratorConfig(width=32)})),
                keys(
                    chosen,
                    card=CARD.model_copy(
                        update={
                            "directions": {"source_to_target": DirectionFile(file="f", sha256="0", dtype="float16")}
                        }
                    ),
                ),
            ]
        )
    )
    assert set(base).isdisjoint(other)
    assert len(set(base)) == len(base), "no two steps share a key"


@TRIES
@given(records, st.data())
def test_what_does_not_change_the_result_changes_no_key(chosen: list[dict], data: st.DataObject) -> None:
    options = data.draw(
        st.sampled_from(
            [
                {"device": "cuda"}, {"score": 0.9}, {"seed": 7}, {"max_instances": 3}, {"seam": 9}, {"order": "score"},
                {"min_area": "5%"}, {"drop": (9,)},
            ]
        )
    )  # fmt: skip
    assert keys(chosen, **options) == keys(chosen)
    prose = CARD.model_copy(update={"name": "other", "limits": "none", "quality": {"fid": 3}})
    assert keys(chosen, card=prose) == keys(chosen)


@TRIES
@given(records, st.data())
def test_later_instances_cannot_reach_an_earlier_step(chosen: list[dict], data: st.DataObject) -> None:
    """Dropping instance k leaves the keys before k as they are. Another mask of it changes all from k on, and before k
    those alone into whose windows it reaches: their holes are filled with what is outside all animals."""
    k = data.draw(st.integers(0, len(chosen) - 1))
    base = keys(chosen)
    assert keys(chosen[:k], found=chosen) == base[:k]
    edited = [dict(record) for record in chosen]
    edited[k]["digest"] = "edited"
    after = keys(edited)
    assert set(after[k:]).isdisjoint(base[k:])
    far = [{**record, "box": (90, 90, 91, 91)} for record in chosen[:k]]
    alone = {**chosen[k], "box": (0, 0, 1, 1)}
    near = keys(far, found=[*far, alone])
    assert keys(far, found=[*far, {**alone, "digest": "edited"}]) == near


@TRIES
@given(records, st.integers(1, 3))
def test_all_instances_have_their_step(chosen: list[dict], per_step: int) -> None:
    assert len(keys(chosen, instances_per_step=per_step)) == -(-len(chosen) // per_step)


def test_keys_have_one_form() -> None:
    """A change of the form loses everybody's cache: it must be meant."""
    canonical = '{"a":[1.5,null,"ü"],"b":1}'
    assert key_of({"b": 1, "a": [1.5, None, "ü"]}) == hashlib.sha256(canonical.encode()).hexdigest()
    with pytest.raises(ValueError, match="JSON"):
        key_of({"score": float("nan")})


def test_differences_name_nested_fields() -> None:
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}}) == {"a.c": (2, 4), "d": (3, None)}


def test_scratch_of_the_dead_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    left = tmp_path / "c" / "scratch" / "dead"
    left.mkdir(parents=True)
    (left / "part").write_bytes(bytes(10))
    store.prune()
    assert left.exists(), "it may be another process's, alive"
    os.utime(left, (0, 0))
    store.prune()
    assert not left.exists()


def test_entries_hold_no_object_arrays(cli: Cli, photo: Path, masks: Path, matte_weights: Path, tmp_path: Path) -> None:
    cli("translate", photo, *PAIR, "--masks", masks, "--weights", matte_weights)
    archives = list((tmp_path / "cache").rglob("*.npz"))
    assert archives
    for path in archives:
        with np.load(path, allow_pickle=False) as archive:
            assert all(archive[name].dtype != object for name in archive.files)
    kinds = {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert kinds <= {".png", ".npz", ".json"}


def test_a_cache_removed_during_a_run_is_one_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    shutil.rmtree(store.root)
    store.put("x", {"a": 1}, {"f": b"1"})
    assert Store(store.root).get("x", {"a": 1}) is not None
    shutil.rmtree(store.root)
    store.remember("kind", "name", {"a": 1})
    assert Store(store.root).recall("kind", "name") == {"a": 1}
    if os.name == "posix":
        assert store.root.stat().st_mode & 0o777 == 0o700


def test_a_process_that_starts_while_a_removed_cache_is_made_anew_finds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "c")
    shutil.rmtree(store.root)
    started = []
    # Called when an entry is written, and not yet in its place.
    monkeypatch.setattr("instapipe.pipeline.store._sync_folder", lambda _: started.append(Store(store.root)))
    store.put("x", {"a": 1}, {"f": b"1"})
    assert started[-1].get("x", {"a": 1}) is not None


@pytest.mark.parametrize("gone", ["g", "meta.json"])
def test_an_entry_of_which_a_file_is_gone_is_made_again(tmp_path: Path, gone: str) -> None:
    store = Store(tmp_path / "c")
    store.put("x", {"a": 1}, {"f": b"1", "g": b"2"})
    (path,) = store.root.rglob(gone)
    path.unlink()
    assert store.get("x", {"a": 1}) is None
    assert not store.has("x", {"a": 1})
    store.put("x", {"a": 1}, {"f": b"1", "g": b"2"})
    found = store.get("x", {"a": 1})
    assert found is not None
    assert found.files["g"] == b"2"


def test_names_in_another_encoding_are_kept_as_json_escapes_them() -> None:
    """Old archives hold names in Latin-1: bytes that are no UTF-8."""
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    for made in (canonical({"name": name}), json_bytes({"name": name})):
        assert made.decode("utf-8")
        assert json.loads(made) == {"name": name}
    assert canonical({"name": "café"}) == '{"name":"café"}'.encode()


def test_folders_of_weights_in_another_encoding_are_remembered_by_their_path(tmp_path: Path) -> None:
    folder = b"/d\xe9j\xe0/weights".decode("utf-8", "surrogateescape")
    store = Store(tmp_path / "c")
    store.remember("translators", folder, {"card": folder})
    assert store.recall("translators", folder) == {"card": folder}
    store.put("x", {"name": folder}, {"f": b"1"})
    assert store.get("x", {"name": folder}) is not None
    assert store.verify() == (1, [])


def test_a_note_on_a_photos_name_is_of_that_name(
    cli: Cli, photo: Path, masks: Path, matte_weights: Path, tmp_path: Path
) -> None:
    """The cache knows photos by their content, and a copy may be called otherwise."""
    wrong = shutil.copy(photo, photo.with_suffix(".jpg"))
    says = "named .jpg, but a PNG file"
    for path, notes in ((wrong, [says]), (photo, []), (wrong, [says])):
        output = tmp_path / "out" / "x.png"
        ran = cli("translate", path, *PAIR, "--masks", masks, "--weights", matte_weights, "--output", output)
        assert ran.code == 0, ran.err
        assert json.loads(output.with_suffix(".report.json").read_text())["result"]["photo"]["notes"] == notes
        assert (says in ran.out) == bool(notes)
    assert "(cached: segment, filter, translate)" in ran.out
