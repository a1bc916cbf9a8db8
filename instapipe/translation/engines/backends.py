"""Ways to run one part of a generator on a CPU. Each takes torch modules and gives callables on numpy arrays."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from instapipe.errors import EngineError
from instapipe.translation.engines.artefacts import Artefacts
from instapipe.translation.engines.parts import VERSION, Array, Part, Parts, run_step
from instapipe.translation.engines.probes import probe_window

PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "torch": ("float32", "bfloat16"),
    "compile": ("float32", "bfloat16"),
    "openvino": ("float32", "bfloat16", "int8"),
    "onnx": ("float32",),
}
NEEDS: Mapping[str, tuple[str, ...]] = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime")}
"""Packages of an engine; `int8` needs nncf besides."""
_NOT_QUANTIZED = ("Add", "Concat", "Interpolate", "Multiply", "MVN", "Pad")
_CALIBRATION = 12
"""Windows that int8's ranges are taken from."""


class Backend(Protocol):
    """Compiles the parts of one generator for one size."""

    def __call__(self, parts: Parts, size: tuple[int, int]) -> dict[str, Part]:
        """The callables, by part. Raises EngineError."""


def backend(engine: str, precision: str, artefacts: Artefacts, weights: str) -> Backend:
    """What compiles for `engine` and `precision`. weights: a digest of the generator's weights.

    Raises EngineError where there is no such engine, it is not installed, or it does not know the precision.
    """
    missing = why_not(engine, precision)
    if missing is not None:
        raise EngineError(missing)
    if engine == "openvino":
        return lambda parts, size: _openvino(parts, size, precision, artefacts, weights)
    if engine == "onnx":
        return lambda parts, size: _onnx(parts, size, artefacts, weights)
    if engine == "compile" and artefacts.root is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(artefacts.root.with_name("inductor")))
    return lambda parts, size: _torch(parts, precision, compiled=engine == "compile")


def why_not(engine: str, precision: str) -> str | None:
    """Why this engine cannot run here with this precision, and what would help; None where it can."""
    if engine not in PRECISIONS:
        return f"no engine {engine!r}; there are auto, {', '.join(PRECISIONS)}"
    if precision not in PRECISIONS[engine]:
        return f"engine {engine!r} has no precision {precision!r}; it has {', '.join(PRECISIONS[engine])}"
    needed = NEEDS.get(engine, ()) + (("nncf",) if precision == "int8" else ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        return f"engine {engine!r} with {precision} needs {' and '.join(missing)}: pip install 'instapipe[fast]'"
    if engine == "compile" and not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        return "engine 'compile' needs a C++ compiler"
    if engine == "openvino" and precision == "bfloat16" and "BF16" not in _openvino_can():
        return "OpenVINO would run bfloat16 as float32 on this processor: use --precision float32 or auto"
    return None


@functools.cache
def _openvino_can() -> tuple[str, ...]:
    """What OpenVINO says that it computes in here; it takes any precision, and what it has not becomes float32."""
    try:
        return tuple(_openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    except Exception:  # an installation that does not work: what is wrong is said where it is to compile
        return ("BF16",)


def _torch(parts: Parts, precision: str, *, compiled: bool) -> dict[str, Part]:
    """torch itself. bfloat16 is fast in channels-last only; the parts in float32 work like that inside."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    out = {}
    for name, module in parts.modules.items():
        if dtype is torch.bfloat16:
            module = _copied(module).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        out[name] = _torch_part(torch.compile(module) if compiled else module, dtype)
    return out


def _torch_part(module: Any, dtype: torch.dtype) -> Part:
    def part(*arrays: Array) -> tuple[Array, ...]:
        with torch.inference_mode():
            given = [torch.from_numpy(a).to(dtype).contiguous(memory_format=torch.channels_last) for a in arrays]
            result = module(*given)
            results: tuple[Tensor, ...] = result if isinstance(result, tuple) else (result,)
            return tuple(value.float().numpy() for value in results)

    return part


def _copied(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module)


def _openvino(
    parts: Parts, size: tuple[int, int], precision: str, artefacts: Artefacts, weights: str
) -> dict[str, Part]:
    """OpenVINO's CPU plugin: fixed shapes, as many threads as torch was given."""
    core = _openvino_core()
    inputs = {
        **_inputs("openvino", size, weights),
        "shared": parts.context is not None,
        "quantized": metadata.version("nncf") if precision == "int8" else None,
    }
    # The plugin would pick bfloat16 by itself where the CPU lists it, also where that is slower.
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }

    def make(folder: Path) -> None:
        models = {name: _converted(module, parts.shapes(size)[name]) for name, module in parts.modules.items()}
        if precision == "int8":
            models = _quantized(models, parts, size)
        for name, model in models.items():
            _openvino_module().save_model(model, folder / f"{name}.xml", compress_to_fp16=False)

    for attempt in (1, 2):
        try:
            with artefacts.folder(inputs, make) as folder:
                read = {name: core.read_model(folder / f"{name}.xml") for name in parts.modules}
                compiled = {name: core.compile_model(model, "CPU", settings) for name, model in read.items()}
            return {name: _openvino_part(model) for name, model in compiled.items()}
        except RuntimeError as error:
            artefacts.discard(inputs)  # perhaps damaged: made anew once
            if attempt == 2:
                raise EngineError(f"OpenVINO cannot compile the network: {_line(error)}") from error
    raise AssertionError


def _openvino_part(compiled: Any) -> Part:
    request = compiled.create_infer_request()
    count = len(compiled.outputs)

    def part(*arrays: Array) -> tuple[Array, ...]:
        request.infer([np.ascontiguousarray(array) for array in arrays])
        # Copied: the next call writes into the same memory.
        return tuple(np.array(request.get_output_tensor(index).data, dtype=np.float32) for index in range(count))

    return part


def _converted(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> Any:
    import warnings

    examples = tuple(torch.zeros(shape) for shape in shapes)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about sizes that are constants here on purpose
        return _openvino_module().convert_model(module, example_input=examples, input=[list(shape) for shape in shapes])


def _quantized(models: dict[str, Any], parts: Parts, size: tuple[int, int]) -> dict[str, Any]:
    """Convolutions in int8: weights per channel, ranges from what the parts see on windows like photos.

    Everything else stays as it is. Norms and the sums of the residual blocks would otherwise be rounded as well: that
    was most of the error, and bought nothing. So do the encoders' first convolutions and the decoders' last, which see
    and make the pixels.
    """
    import logging

    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    exact = _torch(parts, "float32", compiled=False)
    seen: dict[str, list[tuple[Array, ...]]] = {name: [] for name in exact}

    def recording(name: str) -> Part:
        def part(*arrays: Array) -> tuple[Array, ...]:
            seen[name].append(tuple(np.ascontiguousarray(array) for array in arrays))
            return exact[name](*arrays)

        return part

    spies = {name: recording(name) for name in exact}
    for seed in range(_CALIBRATION):
        run_step(spies, parts.aggregate, *probe_window(size, 1 + seed % 2, seed))
    out = {}
    for name, model in models.items():
        kept = [node.get_friendly_name() for node in model.get_ordered_ops() if _sees_pixels(node)]
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars would mix with what we print
            out[name] = nncf.quantize(
                model,
                nncf.Dataset(seen[name], lambda arrays: list(arrays)),
                subset_size=len(seen[name]),
                preset=nncf.QuantizationPreset.MIXED,
                ignored_scope=nncf.IgnoredScope(names=kept, types=list(_NOT_QUANTIZED), validate=False),
            )
    return out


def _sees_pixels(node: Any) -> bool:
    """Whether a node of OpenVINO's is one of the 7x7 convolutions, divided or not, at either end of a generator."""
    return bool(node.get_type_name() == "Convolution" and max(node.input(1).get_partial_shape().to_shape()[2:]) > 3)


def _onnx(parts: Parts, size: tuple[int, int], artefacts: Artefacts, weights: str) -> dict[str, Part]:
    """ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3

    def make(folder: Path) -> None:
        for name, module in parts.modules.items():
            shapes = parts.shapes(size)[name]
            to_onnx(module, tuple(torch.zeros(shape) for shape in shapes), folder / f"{name}.onnx")

    try:
        with artefacts.folder(_inputs("onnx", size, weights), make) as folder:
            sessions = {
                name: onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
                for name in parts.modules
            }
    except Exception as error:  # the runtime has exceptions of its own, without a common base
        artefacts.discard(_inputs("onnx", size, weights))
        raise EngineError(f"ONNX Runtime cannot load the network: {_line(error)}") from error
    return {name: _onnx_part(session) for name, session in sessions.items()}


def _onnx_part(session: Any) -> Part:
    names = [value.name for value in session.get_inputs()]

    def part(*arrays: Array) -> tuple[Array, ...]:
        return tuple(session.run(None, dict(zip(names, map(np.ascontiguousarray, arrays), strict=True))))

    return part


def to_onnx(module: nn.Module, examples: tuple[Tensor, ...], path: Path, **options: Any) -> None:
    """Write `module` as ONNX; `options` go to the exporter (names and dynamic axes)."""
    import warnings

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about sizes that are constants here on purpose
        torch.onnx.export(module, examples, str(path), opset_version=17, dynamo=False, **options)


def _inputs(engine: str, size: tuple[int, int], weights: str) -> dict[str, object]:
    versions = {name: metadata.version(name) for name in ("torch", *NEEDS[engine])}
    return {"engine": engine, "size": list(size), "weights": weights, "parts": VERSION, "versions": versions}


def _openvino_module() -> Any:
    import openvino

    return openvino


def _openvino_core() -> Any:
    return _openvino_module().Core()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
