"""The loop: setup, steps, checkpoint. What a step sees depends on the seed and its number alone, so that a resumed run
goes on as if it had never stopped.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import MaskRCNN

from instapipe.config import SegmenterCard, build
from instapipe.errors import TrainingError, UsageError
from instapipe.networks.cards import find_card
from instapipe.segmentation.compact import compact_maskrcnn, load_network
from instapipe.segmentation.rcnn import losses
from instapipe.segmentation.settings import CompactSettings, SegmenterTraining
from instapipe.segmentation.training import checkpoint
from instapipe.segmentation.training.augment import Draws, augment, target
from instapipe.segmentation.training.dataset import CocoSet, Sample

Progress = Callable[[int, dict[str, float]], None]
"""Called after each step with its number (from 1) and the losses, seconds and learning rate of the step."""
_MOST_WORKERS = 8


class Run:
    """One training run in one folder: network, its moving average, optimiser, and the steps done."""

    def __init__(
        self,
        settings: SegmenterTraining,
        data: CocoSet,
        folder: Path,
        seed: int,
        device: str = "cpu",
        initial: str | None = None,
    ) -> None:
        """A run that has not begun. initial: a segmenter to start from, by name or folder; None: ImageNet features.

        Raises WeightsError where the weights to start from are not there, TrainingError where they do not fit.
        """
        self.settings = settings
        self.data = data
        self.folder = folder
        self.seed = seed
        self.device = torch.device(device)
        self.step = 0
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # torch initialises layers from the global generator, and knows no other way
            model = compact_maskrcnn(settings.network, len(data.classes), pretrained=initial is None)
            average = compact_maskrcnn(settings.network, len(data.classes))
        self.initial = None if initial is None else start_from(initial, model, settings.network, data.classes)
        average.load_state_dict(model.state_dict())
        self._started = {} if self.initial is None else known_to(self.initial, model.state_dict(), data.classes)
        freeze(model, settings.frozen_levels)
        # Measured on a CPU with AMX: channels_last is 12 % faster. bf16 autocast is 25 % slower than float32 (the
        # backward pass of depthwise convolutions); with the backbone in float32 it is 15 % faster, but torchvision then
        # decodes boxes in bf16, which is a pixel in 256. So all is float32.
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.average = average.to(self.device).eval()
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimiser = optimiser(self.model, settings)

    def resume(self) -> None:
        """Go on from the checkpoint; raises TrainingError where there is none, or it is of other settings."""
        state = checkpoint.restore(self.folder)
        for name, ours in self._identity().items():
            theirs = state.get("identity", {}).get(name)
            if theirs != ours:
                raise TrainingError(
                    f"cannot resume {str(self.folder)!r}: its {name} was {theirs!r}, now it is {ours!r}"
                )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])

    def weights(self) -> dict[str, Tensor]:
        """Those that are exported: the moving average, and `keep` of what the run started from.

        Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022): between the two ends of a run lie weights
        that are better than both.
        """
        keep = self.settings.keep
        state = dict(self.average.state_dict())
        if keep:
            for name, started in self._started.items():
                if state[name].is_floating_point():
                    state[name] = torch.lerp(state[name], started.to(state[name]), keep)
        return state

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.save(
            self.folder,
            {
                "identity": self._identity(),
                "step": self.step,
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self._optimiser.state_dict(),
            },
        )

    def fit(self, progress: Progress) -> None:
        """All steps that are left. A checkpoint is left behind however this ends, Ctrl-C included."""
        settings = self.settings
        saved = self.step
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            try:
                began = time.perf_counter()
                for images, targets in self.batches():
                    record = self._step(images, targets)
                    record["seconds"] = time.perf_counter() - began
                    began = time.perf_counter()
                    log.write(json.dumps({"step": self.step, **{k: round(v, 6) for k, v in record.items()}}) + "\n")
                    log.flush()
                    progress(self.step, record)
                    if self.step % settings.checkpoint_every == 0:
                        self.save()
                        saved = self.step
            finally:
                if self.step > saved:
                    self.save()

    def batches(self) -> Iterable[tuple[Tensor, list[dict[str, Tensor]]]]:
        """Those of the steps that are left, on the CPU: beside a GPU, other processes prepare them."""
        workers = min(_MOST_WORKERS, (os.cpu_count() or 1) - 1) if self.device.type == "cuda" else 0
        return DataLoader(
            Batches(self.settings, self.data, self.seed),
            batch_size=None,
            sampler=range(self.step, self.settings.steps),
            num_workers=workers,
            generator=torch.Generator(),  # the global one stays as it is
            worker_init_fn=_one_thread if workers else None,
        )

    def _step(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, float]:
        images = images.to(self.device, memory_format=torch.channels_last)
        targets = [{name: value.to(self.device) for name, value in one.items()} for one in targets]
        rate = schedule(self.step, self.settings)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.model.train()
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed_of(self.seed, self.step))  # torchvision samples proposals from the global generator
            parts = losses(self.model, images, targets)
        total = torch.stack(list(parts.values())).sum()
        loss = total.item()
        if not math.isfinite(loss):
            raise TrainingError(f"step {self.step + 1}: the loss is {loss}; lower learning_rate")
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.clip)
        self._optimiser.step()
        self.step += 1
        self._follow()
        record = {name: value.item() for name, value in parts.items()}
        return {**record, "loss": loss, "gradient": norm.item(), "rate": rate}

    @torch.no_grad()
    def _follow(self) -> None:
        """The moving average takes a step, a larger one while it is young."""
        share = 1 - min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for ours, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
            ours.lerp_(new, share)

    def _identity(self) -> dict[str, Any]:
        """Everything that reaches the weights, by name: none of it may change between the parts of a run."""
        settings = self.settings.model_dump(mode="json", exclude={"checkpoint_every", "card", "network", "keep"})
        network = _form(self.settings.network)
        initial = None if self.initial is None else self.initial.sha256
        return {**settings, **network, "seed": self.seed, "classes": list(self.data.classes), "initial": initial}


class Batches(Dataset[tuple[Tensor, list[dict[str, Tensor]]]]):
    """What each step sees, by its number."""

    def __init__(self, settings: SegmenterTraining, data: CocoSet, seed: int) -> None:
        self.settings = settings
        self.data = data
        self.seed = seed
        self._shares = data.shares()

    def __getitem__(self, step: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """The images, float (B, 3, S, S) in [0, 1], and targets of one step."""
        draws = Draws(torch.Generator().manual_seed(seed_of(self.seed, step)))
        side = self.settings.canvas[draws.integer(0, len(self.settings.canvas) - 1)]

        def draw() -> Sample:
            return self.data[int(torch.multinomial(self._shares, 1, generator=draws.generator))]

        samples: list[Sample] = []
        for _ in range(20 * self.settings.batch):  # an augmented photo may have lost its instances: draw another
            sample = augment(draw(), draw, side, self.settings.augment, draws)
            if len(sample.masks):
                samples.append(sample)
            if len(samples) == self.settings.batch:
                break
        else:
            raise TrainingError("hardly any photo has an instance that is large enough to learn from")
        images = torch.from_numpy(np.stack([s.pixels for s in samples])).permute(0, 3, 1, 2).float() / 255
        return images, [target(s, self.settings.margin) for s in samples]


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)


def seed_of(seed: int, step: int) -> int:
    """One 63-bit seed for each step of each run."""
    words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def schedule(step: int, settings: SegmenterTraining) -> float:
    """Learning rate of a step (from 0): linear warm-up, then a cosine to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def start_from(name: str, model: MaskRCNN, form: CompactSettings, classes: tuple[str, ...]) -> SegmenterCard:
    """Copy the weights called `name` into `model`, without what tells classes apart where theirs are others; the card.

    Raises WeightsError, and TrainingError where their network has another form.
    """
    card, folder = find_card(name, "segmenter")
    theirs = build(CompactSettings, card.settings, f"card of {card.name!r}: settings")
    for field, value in _form(theirs).items():
        if value != _form(form)[field]:
            raise TrainingError(
                f"{card.name!r} has network.{field} {value!r}, the run {_form(form)[field]!r}: change the settings"
            )
    model.load_state_dict(known_to(card, load_network(card, folder).state_dict(), classes), strict=False)
    return card


def known_to(card: SegmenterCard, state: dict[str, Tensor], classes: tuple[str, ...]) -> dict[str, Tensor]:
    """A copy of a `state` without what the weights of `card` cannot know: how classes are told apart where theirs are
    others."""
    return {
        key: value.clone()
        for key, value in state.items()
        if card.classes == classes or not key.startswith("roi_heads.box_predictor")
    }


def _form(network: CompactSettings) -> dict[str, Any]:
    """What decides the form of the weights: not how photos are looked at, which is for afterwards."""
    return network.model_dump(mode="json", exclude={"short_side", "long_side", "mirrored"})


def freeze(model: MaskRCNN, levels: int) -> None:
    """No gradients for BatchNorm, and none below the `levels`-th level of the backbone (1: up to stride 4)."""
    net = model.backbone.features.net
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    if levels:
        net.conv_stem.requires_grad_(False)
        # timm's blocks: stride 2, 4, 8, then two at 16 and two at 32.
        for stage in net.blocks[: (0, 2, 3, 5)[levels]]:
            stage.requires_grad_(False)


def optimiser(model: MaskRCNN, settings: SegmenterTraining) -> torch.optim.AdamW:
    """AdamW; biases do not decay, the backbone learns more slowly."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = settings.backbone_rate if name.startswith("backbone.features") else 1.0
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "factor": factor, "weight_decay": decay} for (factor, decay), p in groups.items()],
        lr=settings.learning_rate,
    )


def start(
    settings: SegmenterTraining,
    data: CocoSet,
    folder: Path,
    seed: int,
    resume: bool,
    device: str = "cpu",
    initial: str | None = None,
) -> Run:
    """A fresh run in an empty folder, or a resumed one; raises UsageError where the folder holds another run, or the
    settings do not fit."""
    if not resume and (folder / checkpoint.NAME).exists():
        raise UsageError(
            f"{str(folder)!r} holds a run already: add --resume to go on with it, or choose another folder"
        )
    if settings.keep and initial is None:
        raise UsageError(f"keep: {settings.keep:g} is a share of the weights that a run started from: add --from")
    run = Run(settings, data, folder, seed, device, initial)
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        run.resume()
    return run
