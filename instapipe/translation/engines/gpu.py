"""Steps of a generator on a GPU: one batch for all masks, recorded as a CUDA graph for each shape."""

from __future__ import annotations

import contextlib
import copy
import threading
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instapipe.networks.blocks import NarrowConv2d, UpsampleConv
from instapipe.networks.generator import SetGenerator, check_sides
from instapipe.translation.engines.rewrite import NarrowConv, as_written

_GRAPHS = 4
"""For so many shapes (B, N, H, W) graphs stay, the most recently used ones."""
_LARGEST = 4 << 20
"""Pixels of all images and masks of a step. Above, a graph would hold gigabytes and launching is no longer what costs:
16 windows of 256 px with two masks are 3 << 20."""
_WARM_UP = 3

Shape = tuple[int, ...]


def dense_step(generator: SetGenerator, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """What the generator gives where all masks are valid, without asking the GPU for anything on the way.

    image: (B, 3, H, W), masks: (B, N, H, W), both in [-1, 1], N >= 1; returns the same shapes.
    """
    b, n, h, w = masks.shape
    if image.shape != (b, 3, h, w) or n < 1:
        raise ValueError(f"expected image (B, 3, H, W), masks (B, N, H, W); got {image.shape}, {masks.shape}")
    check_sides(h, w)
    valid = torch.ones((b, n), dtype=torch.bool, device=image.device)
    features = generator.encoder_mask(masks.flatten(0, 1).unsqueeze(1))  # (B N, C, h, w)
    total = generator.aggregate(features.view(b, n, *features.shape[1:]), valid)
    fused = torch.cat([generator.encoder_image(image), total], dim=1)
    painted: Tensor = generator.decoder_image(fused)
    each = fused[:, None].expand(-1, n, -1, -1, -1).flatten(0, 1)
    mattes: Tensor = generator.decoder_mask(torch.cat([features, each], dim=1))
    return painted, mattes.reshape(b, n, h, w)


def for_gpu(generator: SetGenerator, dtype: torch.dtype) -> SetGenerator:
    """A copy whose kernels are laid out once: those that rearrange theirs in each forward do so on the host's side."""
    own = copy.deepcopy(generator).eval().requires_grad_(False)
    _fixed(own)
    return own.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _fixed(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, UpsampleConv):
            setattr(module, name, as_written(child))
        elif isinstance(child, NarrowConv2d):
            device = child.weight.device
            setattr(module, name, NarrowConv(child.cpu()).to(device).requires_grad_(False))
        else:
            _fixed(child)


def without_tf32() -> contextlib.AbstractContextManager[None]:
    """Convolutions in float32 are exact; nothing else changes."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, Tensor]
    outputs: tuple[Tensor, Tensor]


class Steps:
    """Runs steps of a generator. failures: for which shapes there is no graph, and why."""

    def __init__(self, generator: SetGenerator, device: str, precision: str, *, graphs: bool = True) -> None:
        """precision: float32 (exact, no TF32) or bfloat16."""
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._device = torch.device(device)
        self._generator = for_gpu(generator, self._dtype)
        self._graphs = graphs and self._device.type == "cuda"
        self._recorded: dict[Shape, _Recorded | None] = {}
        self._lock = threading.Lock()
        self.failures: dict[Shape, str] = {}

    @torch.inference_mode()
    def __call__(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """image: float32 (B, 3, H, W), masks: float32 (B, N, H, W), N >= 1, on any device; returns the same shapes, on
        the host."""
        with self._lock:
            recorded = self._recording(image, masks)
            if recorded is None:
                painted, mattes = self._step(image.to(self._device), masks.to(self._device))
            else:
                for into, given in zip(recorded.inputs, (image, masks), strict=True):
                    into.copy_(given)
                recorded.graph.replay()
                painted, mattes = recorded.outputs
            return painted.cpu(), mattes.cpu()  # inside the lock: the next step writes into the same memory

    def recorded(self, masks: Tensor) -> bool:
        """Whether a graph stands ready for masks of this shape."""
        return self._recorded.get(tuple(masks.shape)) is not None

    def _recording(self, image: Tensor, masks: Tensor) -> _Recorded | None:
        b, n, h, w = shape = tuple(masks.shape)
        if not self._graphs or b * (n + 1) * h * w > _LARGEST:
            return None
        if shape in self._recorded:
            recorded = self._recorded.pop(shape)
        else:
            while len(self._recorded) >= _GRAPHS:
                self._recorded.pop(next(iter(self._recorded)))
            recorded = self._record(shape, image, masks)
        self._recorded[shape] = recorded
        return recorded

    def _record(self, shape: Shape, image: Tensor, masks: Tensor) -> _Recorded | None:
        before = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.device(self._device):
                inputs = (image.to(self._device, copy=True), masks.to(self._device, copy=True))
                side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
                side.wait_stream(before)
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UP):
                        self._step(*inputs)
                before.wait_stream(side)
                torch.cuda.synchronize(self._device)
                graph = torch.cuda.CUDAGraph()
                # Other threads may use the GPU meanwhile.
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    outputs = self._step(*inputs)
                torch.cuda.synchronize(self._device)
            return _Recorded(graph, inputs, outputs)
        except Exception as error:  # whatever forbids a graph: the step runs without one
            # Some versions of torch leave the recording's stream as the current one.
            torch.cuda.set_stream(before)
            with contextlib.suppress(Exception):
                torch.cuda.synchronize(self._device)
            self.failures[shape] = " ".join(str(error).split())[:300] or type(error).__name__
            return None

    def _step(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        given = (x.to(self._dtype).contiguous(memory_format=torch.channels_last) for x in (image, masks))
        with without_tf32() if self._dtype == torch.float32 else contextlib.nullcontext():
            painted, mattes = dense_step(self._generator, *given)
        # Contiguous: what is copied to the host has the layout of the photo.
        return painted.float().contiguous(), mattes.float().contiguous()
