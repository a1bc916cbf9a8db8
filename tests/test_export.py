"""`instapipe export`: files that other programs run, right before they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Cli

from instapipe.errors import EngineError
from instapipe.networks.cards import find_card
from instapipe.networks.weights import load_generator
from instapipe.translation.engine import Translator
from instapipe.translation.engines import export as exporting
from instapipe.translation.engines.probes import probe_window

DEMO = Path(__file__).resolve().parent / "data" / "demo" / "sheep.jpg"


@pytest.mark.parametrize("ending", ["onnx", "xml"])
def test_a_file_for_any_size_and_number(ending: str, cli: Cli, matte_weights: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime") if ending == "onnx" else ("openvino",):
        pytest.importorskip(package)
    output = tmp_path / "out" / f"giraffes.{ending}"
    ran = cli("export", matte_weights, "-o", output, "--photo", DEMO)
    assert ran.code == 0, ran.err
    assert "against torch on 2 windows of 2 sizes" in ran.out
    assert {path.suffix for path in output.parent.iterdir()} == ({".onnx"} if ending == "onnx" else {".xml", ".bin"})

    card, folder = find_card(str(matte_weights), "translator")
    size, count = (44, 60), 4
    image, masks = probe_window(size, count, 7)
    pixels = ((image.transpose(1, 2, 0) + 1) * 127.5).astype(np.float32)
    painted, mattes = Translator(card, folder, "source_to_target").step(pixels, masks > 0)
    got = run(output, image[None], masks[None])
    np.testing.assert_allclose((got[0][0].transpose(1, 2, 0) + 1) * 127.5, painted, atol=0.1)
    np.testing.assert_allclose((got[1][0] + 1) / 2, mattes, atol=1e-3)


def run(path: Path, image: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
    """As another program would."""
    if path.suffix == ".onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path).run(["painted", "mattes"], {"image": image, "masks": masks})
    import openvino

    found = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        {"image": image, "masks": masks}
    )
    return [found["painted"], found["mattes"]]


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_file_that_differs_is_not_kept(
    form: str, matte_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime") if form == "onnx" else ("openvino",):
        pytest.importorskip(package)
    card, folder = find_card(str(matte_weights), "translator")
    generator = load_generator(card, folder, "source_to_target")
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(EngineError, match="not kept"):
        exporting.export_generator(
            generator,
            tmp_path / "out" / ("g.onnx" if form == "onnx" else "g.xml"),
            form,
            windows=exporting.windows_of([], card.size),
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_requests(cli: Cli, matte_weights: Path, tmp_path: Path) -> None:
    assert "must end with" in cli("export", matte_weights, "-o", tmp_path / "x.pt").err
    assert "direction" in cli("export", matte_weights, "-o", tmp_path / "x.onnx", "--direction", "up").err
    assert "--half" in cli("export", matte_weights, "-o", tmp_path / "x.onnx", "--half").err
