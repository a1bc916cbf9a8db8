"""`instapipe weights`: what is bundled, and the authors' checkpoints through the front door."""

from __future__ import annotations

import http.server
import importlib.util
import json
import pickle
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import worlds
from conftest import REPOSITORY, Cli

from instapipe.config import Direction
from instapipe.errors import WeightsError
from instapipe.networks.cards import bundled, digest, find_card, find_translator, read_card
from instapipe.resources import weights_root
from instapipe.verdict.card import DEFAULT as JUDGE
from instapipe.verdict.card import find_judge

OFFICIAL = Path(__file__).parent / "data" / "parity" / "train_small"
NAMES = [folder.name for _, folder in bundled()]


def test_bundled_weights_are_what_their_cards_say(cli: Cli) -> None:
    listed = cli("weights", "list")
    assert listed.code == 0
    for name in NAMES:
        assert name in listed.out
        card = json.loads(cli("weights", "show", name).out)
        assert card["name"] == name
        assert card["licence"]
        assert card["data"]
    checked = cli("weights", "verify")
    assert checked.code == 0, checked.err
    assert checked.out.count("good") == len([*weights_root().glob("*/*.safetensors")]) - judges()


def judges() -> int:
    """Files of cards that are neither translators nor segmenters: the judge has a command of its own."""
    names = {*NAMES}
    return len([path for path in weights_root().glob("*/*.safetensors") if path.parent.name not in names])


def test_all_weights_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in weights_root().rglob("*.safetensors")) < 70e6


def test_the_readme_is_made_from_the_cards() -> None:
    """After a change: `python benchmarks/cards.py`."""
    script = REPOSITORY / "benchmarks" / "cards.py"
    spec = importlib.util.spec_from_file_location("cards", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (weights_root() / "README.md").read_text(encoding="utf-8") == module.text()


def test_a_version_may_be_left_out(cli: Cli) -> None:
    if not NAMES:
        pytest.skip("no weights are bundled yet")
    name = NAMES[0]
    assert json.loads(cli("weights", "show", name.rpartition("-")[0]).out)["name"].startswith(name.rpartition("-")[0])
    unknown = cli("weights", "show", "sheep2unicorn")
    assert unknown.code == 2
    assert "known:" in unknown.err


def test_a_class_that_weights_were_only_measured_on_is_second_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAPIPE_WEIGHTS", str(tmp_path))
    card = worlds.write_weights(tmp_path / "wolf2fox-1") / "card.json"
    content = json.loads(card.read_text()) | {"source": "wolf", "target": "fox", "also_from": ["dog"]}
    card.write_text(json.dumps(content))
    assert find_translator("dog", "fox")[0].name == "wolf2fox-1"
    card = worlds.write_weights(tmp_path / "dog2fox-1") / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"source": "dog", "target": "fox"}))
    assert find_translator("dog", "fox")[0].name == "dog2fox-1"
    with pytest.raises(WeightsError, match=r"known: .*dog -> fox.*wolf -> fox"):
        find_translator("fox", "bear")


def test_damage_is_noticed(cli: Cli, tmp_path: Path) -> None:
    folder = worlds.write_weights(tmp_path / "w-1")
    assert cli("weights", "verify", folder).code == 0
    path = folder / "source_to_target.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    ran = cli("weights", "verify", folder)
    assert ran.code == 2
    assert "w-1/source_to_target.safetensors" in ran.err
    photo, masks = worlds.write_photo(tmp_path / "photo.png"), worlds.write_masks(tmp_path / "m", "photo")
    ran = cli("translate", photo, "--source", "sheep", "--target", "giraffe", "--weights", folder, "--masks", masks)
    assert ran.code == 2
    assert "sha256 differs" in ran.err


def test_the_authors_checkpoints_import_and_translate(cli: Cli, tmp_path: Path) -> None:
    """Width and blocks are read from the state dict; no size on the card: the photo keeps its own."""
    ran = cli(
        "weights", "import", OFFICIAL / "start_net_G_A.pth", OFFICIAL / "start_net_G_B.pth",
        "--source", "sheep", "--target", "giraffe", "--output", tmp_path / "authors-1",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "width 8, 9 blocks" in ran.out
    card = json.loads((tmp_path / "authors-1" / "card.json").read_text())
    assert card["generator"]["form"] == "paper"
    assert card["size"] is None
    photo, masks = worlds.write_photo(tmp_path / "photo.png"), worlds.write_masks(tmp_path / "m", "photo")
    for target, source in (("giraffe", "sheep"), ("sheep", "giraffe")):
        ran = cli(
            "translate", photo, "--source", source, "--target", target, "--masks", masks, "--region", "whole",
            "--weights", tmp_path / "authors-1", "--output", tmp_path / f"{target}.png",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        picture = cv2.imread(str(tmp_path / f"{target}.png"))
        assert picture.shape == cv2.imread(str(photo)).shape
        assert np.abs(picture.astype(int) - cv2.imread(str(photo))).mean() > 1


def test_one_file_is_enough_and_a_file_names_its_folder(cli: Cli, tmp_path: Path) -> None:
    arguments = ("--source", "sheep", "--target", "giraffe", "--size", "64x64", "--output", tmp_path / "one-1")
    assert cli("weights", "import", OFFICIAL / "start_net_G_A.pth", *arguments).code == 0
    again = cli("weights", "import", OFFICIAL / "start_net_G_A.pth", *arguments)
    assert again.code == 1
    assert "never overwritten" in again.err
    photo, masks = worlds.write_photo(tmp_path / "photo.png"), worlds.write_masks(tmp_path / "m", "photo")
    file = tmp_path / "one-1" / "source_to_target.safetensors"
    there = cli("translate", photo, "--source", "sheep", "--target", "giraffe", "--masks", masks, "--weights", file)
    assert there.code == 0, there.err
    back = cli("translate", photo, "--source", "giraffe", "--target", "sheep", "--masks", masks, "--weights", file)
    assert back.code == 2


def test_what_is_no_checkpoint_is_refused(cli: Cli, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "harm"),)

    (tmp_path / "harm.pth").write_bytes(pickle.dumps(Harm()))
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    shutil.copy(OFFICIAL / "start_net_G_A.pth", tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:5000])
    for name in ("harm.pth", "other.pth", "cut.pth", "missing.pth"):
        ran = cli(
            "weights", "import", tmp_path / name, "--source", "a", "--target", "b", "--output", tmp_path / "out-1"
        )
        assert ran.code == 2, name
        assert len(ran.err.splitlines()) == 1
        assert not (tmp_path / "out-1").exists()
    assert not (tmp_path / "harm").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A loopback server of a folder; a file called `cut` announces more than it sends."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object, **more: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "www"), **more)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = tmp_path / "www" / self.path.lstrip("/")
            if path.with_suffix(".cut").exists():
                content = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                return
            super().do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", tmp_path / "www"
        running.shutdown()


def test_pull(cli: Cli, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, www = server
    monkeypatch.setenv("INSTAPIPE_WEIGHTS", str(tmp_path / "pulled"))
    folder = worlds.write_weights(www / "wolf2fox-1")
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"sheep"', '"wolf"').replace('"giraffe"', '"fox"'))
    file = folder / "source_to_target.safetensors"
    whole = file.read_bytes()

    def refused(words: str) -> None:
        ran = cli("weights", "pull", f"{url}/wolf2fox-1/card.json")
        assert ran.code == 2
        assert words in ran.err
        assert [*(tmp_path / "pulled").iterdir()] == []

    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("is not what its card says")
    file.write_bytes(whole)
    file.with_suffix(".cut").touch()
    refused("cut off after")
    file.with_suffix(".cut").unlink()
    file.rename(folder / "elsewhere")
    refused("File not found")
    (folder / "elsewhere").rename(file)
    assert cli("weights", "pull", f"{url}/wolf2fox-1/card.json").code == 0
    assert "wolf <-> fox" in cli("weights", "list").out
    photo, masks = worlds.write_photo(tmp_path / "photo.png"), worlds.write_masks(tmp_path / "m", "photo")
    ran = cli("translate", photo, "--source", "wolf", "--target", "fox", "--masks", masks)
    assert ran.code == 0, ran.err
    again = cli("weights", "pull", f"{url}/wolf2fox-1/card.json")
    assert again.code == 1
    assert "there already" in again.err


def test_pull_refuses_names_that_leave_their_folder(cli: Cli, server: tuple[str, Path], tmp_path: Path) -> None:
    url, www = server
    folder = worlds.write_weights(www / "bad-1")
    card = folder / "card.json"
    card.write_text(card.read_text().replace("source_to_target.safetensors", "../../x.safetensors"))
    ran = cli("weights", "pull", f"{url}/bad-1/card.json")
    assert ran.code == 2
    assert "no plain file name" in ran.err
    assert "the name of a file beside the card; got '../../x.safetensors'" in ran.err
    assert cli("weights", "pull", "file:///etc/passwd").code == 2


@pytest.mark.parametrize("name", ["../../secret", "/etc/hosts", "a/b.safetensors", "..", "", "c:\\\\x"])
def test_a_card_leads_to_no_file_elsewhere(cli: Cli, tmp_path: Path, name: str) -> None:
    """Not even where a folder of weights was got some other way than by `pull`."""
    folder = worlds.write_weights(tmp_path / "a" / "w")
    card = json.loads((folder / "card.json").read_text())
    card["grader"] = {"file": name, "sha256": "0" * 64}
    (folder / "card.json").write_text(json.dumps(card))
    ran = cli("weights", "show", folder)
    assert (ran.code, "the name of a file beside the card" in ran.err) == (2, True), ran.err
    # Nor one of another kind.
    segmenter = next(place for card, place in bundled() if card.kind == "segmenter")
    for of_kind, read in ((segmenter, read_card), (weights_root() / JUDGE, lambda place: find_judge(str(place)))):
        card = json.loads((of_kind / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**card, "file": name}))
        with pytest.raises(WeightsError, match=r"card\.json: file: .*the name of a file beside the card"):
            read(folder)


@pytest.mark.parametrize(
    ("text", "says"), [("[1]", "an object with fields"), ('{"x": 1}', "no field 'x'"), ("{", "cannot read facts")]
)
def test_further_fields_of_a_card_are_an_object(cli: Cli, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "facts.json").write_text(text)
    ran = cli("weights", "export", tmp_path / "run", "--output", tmp_path / "w", "--facts", tmp_path / "facts.json")
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert says in ran.err


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_weights_in_eight_bits_are_half_as_large_and_much_the_same(
    cli: Cli, ground_weights: Path, tmp_path: Path
) -> None:
    """One direction, then what is left; what is not packed stays byte for byte."""
    ways: tuple[Direction, ...] = ("source_to_target", "target_to_source")
    ran = cli("weights", "pack", ground_weights, "-o", tmp_path / "one", "--direction", ways[1])
    assert (ran.code, "MB instead of" in ran.out) == (0, True)
    there, back = (f"{way}.safetensors" for way in ways)
    assert (tmp_path / "one" / there).read_bytes() == (ground_weights / there).read_bytes()
    assert cli("weights", "pack", tmp_path / "one", "-o", tmp_path / "both").code == 0
    assert (tmp_path / "both" / back).read_bytes() == (tmp_path / "one" / back).read_bytes(), "packed twice is packed"
    sizes = [(folder / there).stat().st_size for folder in (ground_weights, tmp_path / "both")]
    assert sizes[1] < 0.75 * sizes[0], "of a network of a few channels, scales and names weigh as well"
    assert "good  both/target_to_source.safetensors" in cli("weights", "verify", tmp_path / "both").out
    again = cli("weights", "pack", ground_weights, "-o", tmp_path / "both")
    assert (again.code, "never overwritten" in again.err) == (1, True)


def test_bundled_generators_in_eight_bits_paint_the_same_giraffe() -> None:
    from instapipe.networks.eight_bits import packed, unpacked
    from instapipe.networks.weights import load_generator

    card, folder = find_card("sheep2giraffe", "translator")
    image, masks = torch.zeros(1, 3, 64, 64), torch.full((1, 1, 64, 64), -1.0)
    image[..., :32, :] = 0.4  # a sky, and on the ground below it something white
    image[..., 24:48, 16:44], masks[..., 24:48, 16:44] = 0.9, 1.0
    made = []
    generator = load_generator(card, folder, "source_to_target")
    for state in (generator.state_dict(), unpacked(packed(generator.state_dict()))):
        generator.load_state_dict(state)
        with torch.inference_mode():
            made.append(generator(image, masks, torch.ones(1, 1, dtype=torch.bool)))
    (raw, matte), (again, matte_again) = made
    assert (matte > 0).float().mean() > 0.05
    assert ((matte > 0) == (matte_again > 0)).float().mean() > 0.995
    assert ((raw - again).abs() * (matte > 0)).mean() < 0.005


def test_weights_that_went_while_something_was_learnt_for_them_are_named(ground_weights: Path, tmp_path: Path) -> None:
    from instapipe.networks.weights import with_attached, with_direction

    card, _ = find_card(str(ground_weights), "translator")
    more = tmp_path / "grader.safetensors"
    more.write_bytes(b"anything")
    (ground_weights / card.directions["target_to_source"].file).unlink()
    with pytest.raises(WeightsError, match=r"no file .*target_to_source.safetensors"):
        with_attached(card, ground_weights, "grader", more, tmp_path / "new")
    with pytest.raises(WeightsError, match=r"no file .*target_to_source.safetensors"):
        with_direction(card, ground_weights, "source_to_target", {}, tmp_path / "new")
    assert not (tmp_path / "new").exists()
