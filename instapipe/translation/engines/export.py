"""A generator as one ONNX or OpenVINO file: any size, any number of instances, right before it is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from instapipe.errors import EngineError, OutputError
from instapipe.imaging import read_photo
from instapipe.networks.generator import SetGenerator
from instapipe.translation.engines.backends import to_onnx, why_not
from instapipe.translation.engines.parts import Array
from instapipe.translation.engines.probes import probe_window
from instapipe.translation.resampling import shrink

Window = tuple[Array, Array]
TOLERANCE = 1e-3
"""Largest difference from torch, of [-1, 1]. Half-precision weights may differ by so much on average."""
_EXAMPLE = (32, 40)
_OTHER = (64, 48)
_COUNTS = (1, 3)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near a file came to torch, of [-1, 1], and on how many windows, sizes and instances at most."""

    largest: float
    mean: float
    windows: int
    sizes: int
    instances: int


class WholeStep(nn.Module):
    """One step on tensors: every mask valid."""

    def __init__(self, generator: SetGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W), (1, N, H, W) -> the same shapes, in [-1, 1]."""
        own = self.generator
        n = masks.shape[1]
        features = own.encoder_image(image)
        each = own.encoder_mask(masks.transpose(0, 1))  # (N, C, h, w)
        total = own.aggregate(each.unsqueeze(0), torch.ones_like(masks[:, :, 0, 0]) > 0)
        both = torch.cat([features, total], dim=1)
        painted = own.decoder_image(both)
        mattes = own.decoder_mask(torch.cat([each, both.expand(n, -1, -1, -1)], dim=1))
        return painted, mattes.transpose(0, 1)


def windows_of(photos: Sequence[Path], size: tuple[int, int] | None) -> list[Window]:
    """Windows to check on: each photo at the network's size and at another, with masks; without photos, probes.

    Raises InputError.
    """
    sizes = ((size or _EXAMPLE), _OTHER)
    windows = []
    for number, (where, count) in enumerate(zip(sizes, _COUNTS, strict=True)):
        probe, masks = probe_window(where, count, number)
        if not photos:
            windows.append((probe, masks))
        for path in photos:
            pixels = shrink(read_photo(path).pixels, where)
            windows.append((np.ascontiguousarray(pixels.transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)), masks))
    return windows


def export_generator(
    generator: SetGenerator,
    path: Path,
    form: Literal["onnx", "openvino"],
    *,
    windows: Sequence[Window],
    half: bool = False,
    about: str = "",
) -> Agreement:
    """Write `generator` to `path`; it appears there only if it gives what torch gives on `windows`.

    half: weights in half precision (openvino). Raises EngineError where the format's packages are missing or the file
    differs from torch, OutputError where it cannot be written.
    """
    missing = why_not(form, "float32")
    if missing is not None:
        raise EngineError(missing.replace("engine", "format", 1))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror}") from error
    try:
        step = WholeStep(generator).eval()
        made = scratch / path.name
        if form == "onnx":
            _write_onnx(step, made, about)
        else:
            _write_openvino(step, made, half)
        agreement = _compared(step, _session(made, form), windows)
        difference = agreement.mean if half else agreement.largest
        if not difference <= TOLERANCE:
            raise EngineError(
                f"the {form} file differs from torch by {difference:.1e}, more than {TOLERANCE}: not kept"
            )
        for file in sorted(scratch.iterdir()):  # .bin before .xml: who sees the one finds the other
            os.replace(file, path.parent / file.name)
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return agreement


def _examples() -> tuple[Tensor, Tensor]:
    image, masks = probe_window(_EXAMPLE, 2, 0)
    return torch.from_numpy(image)[None], torch.from_numpy(masks)[None]


def _write_onnx(step: WholeStep, path: Path, about: str) -> None:
    import onnx

    plane = {2: "height", 3: "width"}
    axes = {"image": plane, "masks": {1: "instances", **plane}, "painted": plane, "mattes": {1: "instances", **plane}}
    to_onnx(
        step,
        _examples(),
        path,
        input_names=["image", "masks"],
        output_names=["painted", "mattes"],
        dynamic_axes=axes,
    )
    model = onnx.load(str(path))
    model.doc_string = f"instapipe set generator: {about}"
    onnx.save(model, str(path))


def _write_openvino(step: WholeStep, path: Path, half: bool) -> None:
    import warnings

    import openvino

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's
        model = openvino.convert_model(step, example_input=_examples(), input=[[1, 3, -1, -1], [1, -1, -1, -1]])
    for port, name in zip([*model.inputs, *model.outputs], ("image", "masks", "painted", "mattes"), strict=True):
        port.get_tensor().set_names({name})
    openvino.save_model(model, path, compress_to_fp16=half)


def _session(path: Path, form: Literal["onnx", "openvino"]) -> Callable[[Array, Array], Sequence[Array]]:
    """What runs the file just written."""
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda image, masks: session.run(None, {"image": image, "masks": masks})
    import openvino

    core = openvino.Core()
    compiled: Any = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(image: Array, masks: Array) -> Sequence[Array]:
        found = compiled([image, masks])
        return [np.array(found[name]) for name in ("painted", "mattes")]

    return run


def _compared(
    step: WholeStep, session: Callable[[Array, Array], Sequence[Array]], windows: Sequence[Window]
) -> Agreement:
    largest, means = 0.0, []
    for image, masks in windows:
        valid = torch.ones(1, len(masks), dtype=torch.bool)
        with torch.inference_mode():
            expected = step.generator(torch.from_numpy(image)[None], torch.from_numpy(masks)[None], valid)
        for got, want in zip(session(image[None], masks[None]), expected, strict=True):
            difference = np.abs(got - want.numpy())
            # A comparison with NaN is false: it must count as different.
            largest = max(largest, float(difference.max()) if np.isfinite(difference).all() else float("inf"))
            means.append(float(difference.mean()))
    return Agreement(
        largest=largest,
        mean=float(np.mean(means)),
        windows=len(windows),
        sizes=len({image.shape for image, _ in windows}),
        instances=max(len(masks) for _, masks in windows),
    )
