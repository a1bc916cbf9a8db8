"""What tests of training share: tiny networks, batches, a small world as files, and the command in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import worlds
from conftest import Cli
from torch import Tensor

from instapipe.config import CompositingConfig, GeneratorConfig
from instapipe.data.samples import Batch
from instapipe.networks.blocks import initialise
from instapipe.training.config import DataSettings, LossWeights, TrainConfig
from instapipe.training.pool import FakePool
from instapipe.training.step import InstaGAN, TrainingStep

SMALL = TrainConfig(
    generator=GeneratorConfig(form="resize", width=8, encoder_blocks=1, decoder_blocks=1),
    compositing=CompositingConfig(mode="matte"),
    discriminator_width=4,
    data=DataSettings(size=32, load_size=32, max_instances=2, instances_per_step=1),
    losses=LossWeights(cycle=5, identity=1, context=2, detach_context=True),
    pool_size=0,
)


def networks_of(config: TrainConfig) -> InstaGAN:
    rng = torch.Generator().manual_seed(0)
    networks = InstaGAN(config, [], rng)
    for generator in (networks.source_to_target, networks.target_to_source):
        initialise(generator, rng, std=0.05)
    return networks


def step_of(config: TrainConfig, networks: InstaGAN, rate: float = 2e-4) -> TrainingStep:
    generators = [*networks.source_to_target.parameters(), *networks.target_to_source.parameters()]
    critics = [*networks.critic_source.parameters(), *networks.critic_target.parameters()]
    return TrainingStep(
        config,
        networks,
        torch.optim.Adam(generators, lr=rate, betas=(0.5, 0.999)),
        torch.optim.Adam(critics, lr=rate, betas=(0.5, 0.999)),
        {"source": FakePool(config.pool_size), "target": FakePool(config.pool_size)},
    )


def random_batch(seed: int, counts: list[int], most: int = 2, side: int = 32) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(len(counts), 3, side, side, generator=rng).double() * 2 - 1
    masks = -torch.ones(len(counts), most, side, side).double()
    for n, count in enumerate(counts):
        for k in range(count):
            y, x = torch.randint(2, 16, (2,), generator=rng).tolist()
            masks[n, k, y : y + 12 - 4 * k, x : x + 8] = 1
    return Batch(image, masks, torch.arange(most)[None] < torch.tensor(counts)[:, None])


TINY = """
steps: 6
batch_size: 2
data: {mode: window, size: 32, load_size: 36, max_instances: 2, instances_per_step: 1, max_company: 0.5}
generator: {form: resize, width: 4, encoder_blocks: 1, decoder_blocks: 1}
compositing: {mode: matte}
discriminator_width: 4
losses: {cycle: 5, identity: 1, identity_every: 2, context: 2}
pool_size: 3
augment: true
recomposite_reals: 0.5
ema: 0.99
precision: float32
held_out: 1
sample_every: 3
save_every: 3
"""


def write_world(folder: Path) -> Path:
    """Photos of sheep and of "giraffes" (tall blobs) with COCO masks, and `tiny.yaml`."""
    for label, blobs in (("sheep", worlds.SHEEP), ("giraffe", ((50, 50, 8, 30), (100, 50, 9, 26)))):
        images, annotations = [], []
        for n in range(4):
            name = f"{label}_{n}.png"
            worlds.write_photo(folder / label / "images" / name, worlds.photo_pixels(blobs, None, seed=n))
            images.append({"id": n, "file_name": name, "height": worlds.SIZE[0], "width": worlds.SIZE[1]})
            for blob in blobs:
                mask = worlds.ellipse(worlds.SIZE, blob)
                annotations.append({
                    "id": len(annotations) + 1, "image_id": n, "category_id": 7, "iscrowd": 0,
                    "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
                })  # fmt: skip
        categories = [{"id": 7, "name": label}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / label / "coco.json").write_text(json.dumps(content))
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def run_lengths(mask: np.ndarray) -> list[int]:
    flat = mask.flatten(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def arguments(world: Path, run: Path, *more: object) -> tuple[str, ...]:
    """`instapipe train` in that world, for `run`."""
    given = (
        "train", "--source-data", world / "sheep/coco.json", "--target-data", world / "giraffe/coco.json",
        "--source", "sheep", "--target", "giraffe", "--config", world / "tiny.yaml", "--output", run, *more,
    )  # fmt: skip
    return tuple(map(str, given))


def train(cli: Cli, world: Path, run: Path, *more: object) -> str:
    """Run it to its end; what it said."""
    ran = cli(*arguments(world, run, *more))
    assert ran.code == 0, ran.err
    return ran.out


def assert_goes_on_exactly(begin: Callable[[], Any], folder: Path) -> None:
    """A run of six steps that is stopped after four and taken up again ends as one that was not stopped."""
    whole = begin()
    told = [each.held_out for each in whole.learn(2, lambda: None)]
    assert [measured is not None for measured in told] == [False, True] * 3
    first = begin()
    for each in first.learn(2, lambda: first.save(folder)):
        if each.step == 4:
            break
    second = begin()
    (path,) = folder.glob("step-*.pt")
    second.restore(torch.load(path, weights_only=True))
    assert second.step == 4
    for _ in second.learn(2, lambda: None):
        pass
    assert_same(whole.state(), second.state(), "state")


def assert_same(one: object, two: object, where: str) -> None:
    if isinstance(one, Tensor):
        assert isinstance(two, Tensor), where
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert isinstance(two, dict), where
        assert one.keys() == two.keys(), where
        for key in one:
            assert_same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert isinstance(two, list), where
        assert len(one) == len(two), where
        for n, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_same(a, b, f"{where}.{n}")
    else:
        assert one == two, where


def write_animals(folder: Path) -> Path:
    """Six photos of one animal each, by turns a sheep and a giraffe: their COCO JSON."""
    size = (200, 280)
    images, annotations = [], []
    for n in range(6):
        blob = (140, 100, 60 - 4 * n, 40)
        worlds.write_photo(folder / "images" / f"{n}.png", worlds.photo_pixels((blob,), None, size=size, seed=n))
        images.append({"id": n, "file_name": f"{n}.png", "height": size[0], "width": size[1]})
        counts = run_lengths(worlds.ellipse(size, blob))
        annotations.append({
            "id": n + 1, "image_id": n, "category_id": 1 + n % 2, "iscrowd": 0,
            "segmentation": {"size": list(size), "counts": counts},
        })  # fmt: skip
    categories = [{"id": 1, "name": "sheep"}, {"id": 2, "name": "giraffe"}]
    path = folder / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
