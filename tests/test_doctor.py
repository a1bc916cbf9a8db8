"""`instapipe doctor`: it tells, and fails for nothing that is missing or broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instapipe import __version__, resources
from instapipe.cli import main


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, dict[str, str]]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", "--no-measure", *options])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTAPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_tells_what_is_installed_and_where_things_lie(capsys, cache: Path) -> None:
    found = doctor(capsys)
    assert found["instapipe"]["version"] == __version__
    assert found["packages"]["torch"][0].isdigit()
    assert found["devices"]["cpu"]
    assert found["weights"]["folder"] == str(resources.weights_root())
    assert found["cache"]["folder"] == str(cache)
    assert found["cache"]["used"] == "nothing yet"
    assert not cache.exists(), "looking makes nothing"
    assert not any("cannot tell" in facts for facts in found.values())


def test_the_plain_form_has_every_section(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--no-measure"])
    assert not ended.value.code
    out = capsys.readouterr().out
    for title in ("instapipe", "machine", "packages", "devices", "segmenters", "weights", "cache"):
        assert f"\n{title}:\n" in f"\n{out}"


def test_a_missing_package_is_said(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name in ("timm", "openvino"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = doctor(capsys)
    assert found["packages"]["timm"].startswith("MISSING")
    assert found["packages"]["openvino"].startswith("not installed")


def test_a_broken_torch_does_not_stop_the_rest(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    found = doctor(capsys)
    assert "torch" in found["devices"]["cannot tell"]
    assert found["cache"]["writable"] == "yes"


def test_a_read_only_cache_is_said(capsys, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    assert doctor(capsys)["cache"]["writable"].startswith("NO: name another folder in INSTAPIPE_CACHE")


def test_damaged_weights_are_said(capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights" / "cow2horse-1"
    folder.mkdir(parents=True)
    file = {"file": "source_to_target.safetensors", "sha256": "0" * 64, "dtype": "float16"}
    card = {
        "kind": "translator",
        "name": "cow2horse-1",
        "source": "cow",
        "target": "horse",
        "generator": {},
        "directions": {"source_to_target": file},
    }
    (folder / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr("instapipe.resources.weights_root", lambda: tmp_path / "weights")
    assert doctor(capsys)["weights"]["cow2horse-1"].endswith("cow -> horse, MISSING source_to_target.safetensors")
    (folder / "source_to_target.safetensors").write_bytes(b"other")
    assert "DAMAGED source_to_target.safetensors" in doctor(capsys)["weights"]["cow2horse-1"]
    (folder / "card.json").write_text("{}")
    assert "DAMAGED card.json" in doctor(capsys)["weights"]["cow2horse-1"]


def test_all_bundled_weights_are_intact(capsys) -> None:
    found = doctor(capsys)["weights"]
    assert found.pop("folder")
    assert all(state.endswith("intact") for state in found.values())
