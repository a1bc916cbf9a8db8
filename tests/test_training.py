"""Training: losses, batches against singles, overfitting, exact resume, and the command line from photos on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import worlds
from conftest import Cli
from torch import Tensor
from training_worlds import SMALL, arguments, assert_same, networks_of, random_batch, step_of, train, write_world

from instapipe.config import CompositingConfig, read_yaml
from instapipe.data.samples import Batch
from instapipe.errors import OutputError, TrainingError
from instapipe.networks.blocks import fixed_spectral_norm
from instapipe.networks.cards import find_card
from instapipe.networks.devices import bfloat16_handicap
from instapipe.networks.weights import load_generator
from instapipe.resources import configs_root
from instapipe.training import checkpoint, losses
from instapipe.training.augment import Augmentation
from instapipe.training.config import DataSettings, TrainConfig
from instapipe.training.ema import average_of, update_average
from instapipe.training.loop import learning_rate
from instapipe.training.pool import FakePool
from instapipe.training.precision import choose_precision


@pytest.mark.parametrize("mode", ["whole", "matte"])
def test_a_batch_is_the_mean_of_its_samples(mode: str) -> None:
    """Losses and gradients of the first iteration, spectral-norm vectors fixed, pool off; one sample has run out."""
    config = SMALL.model_copy(update={"compositing": CompositingConfig.model_validate({"mode": mode})})
    source, target = random_batch(1, [2, 1, 0]), random_batch(2, [1, 2, 2])
    results = []
    for split in (False, True):
        networks = networks_of(config).double()
        step = step_of(config, networks, rate=0.0)
        parts = [slice(n, n + 1) for n in range(3)] if split else [slice(0, 3)]
        gradients: dict[str, Tensor] = {}
        metrics: dict[str, float] = {}
        for part in parts:
            one, two = (Batch(b.image[part], b.masks[part], b.valid[part]) for b in (source, target))
            for parameter in networks.parameters():
                parameter.grad = None
            with fixed_spectral_norm(networks):
                rollout = step.rollout(one, two, torch.Generator())
                found = step.iteration(rollout, range(1), 0, torch.Generator())
            for name, parameter in networks.named_parameters():
                if parameter.grad is not None:
                    gradients[name] = gradients.get(name, torch.zeros(1)) + parameter.grad / len(parts)
            for name, value in found.items():
                metrics[name] = metrics.get(name, 0.0) + value / len(parts)
        results.append((metrics, gradients))
    (batch_metrics, batch_gradients), (single_metrics, single_gradients) = results
    assert batch_metrics == pytest.approx(single_metrics, rel=1e-5)
    assert batch_gradients.keys() == single_gradients.keys()
    for name, gradient in batch_gradients.items():
        # Losses are summed in float32, hence not closer.
        difference = float((gradient - single_gradients[name]).norm())
        assert difference <= 1e-5 * max(1e-2, float(gradient.norm())), name


def test_overfit_one_pair() -> None:
    """200 steps on one pair of photos: cycle and context losses fall, the returned mask becomes the target's."""
    config = SMALL.model_copy(
        update={"data": DataSettings(size=32, load_size=32, max_instances=1, instances_per_step=1)}
    )
    networks = networks_of(config)
    step = step_of(config, networks, rate=1e-3)
    source, target = (bar(wide) for wide in (True, False))
    history = [step(source, target, n, torch.Generator().manual_seed(n))[0] for n in range(200)]
    first, last = history[:10], history[-10:]
    for name in ("source/cycle", "target/cycle", "source/context", "target/context"):
        before, after = (np.mean([metrics[name] for metrics in part]) for part in (first, last))
        assert after < 0.8 * before, (name, before, after)
    with torch.no_grad():
        _, masks = networks.source_to_target(source.image, source.masks, source.valid)
    returned, wanted, given = masks > 0, target.masks > 0, source.masks > 0
    assert iou(returned, wanted) > iou(returned, given)
    assert iou(returned, wanted) > 0.5


def bar(wide: bool) -> Batch:
    """A red horizontal bar, or a blue vertical one, on grey."""
    masks = -torch.ones(1, 1, 32, 32)
    rows, columns = (slice(11, 20), slice(3, 29)) if wide else (slice(3, 29), slice(11, 20))
    masks[..., rows, columns] = 1
    colour = torch.tensor([0.8, -0.6, -0.6] if wide else [-0.6, -0.6, 0.8])[None, :, None, None]
    rng = torch.Generator().manual_seed(int(wide))
    image = torch.where(masks > 0, colour, 0.2 * torch.rand(1, 3, 32, 32, generator=rng))
    return Batch(image, masks, torch.ones(1, 1, dtype=torch.bool))


def iou(one: Tensor, two: Tensor) -> float:
    return float((one & two).sum()) / float((one | two).sum())


def test_context_weight_is_background_before_and_after() -> None:
    """The union, as the paper's prose and code have it, not the intersection of its printed formula."""
    before, after = -torch.ones(1, 2, 1, 4), -torch.ones(1, 2, 1, 4)
    before[0, 0, 0, 1] = 1
    after[0, 1, 0, 2] = 1
    after[0, 0, 0, 3] = 0  # half covered
    assert losses.context_weight(before, after).flatten().tolist() == [1.0, 0.0, 0.0, 0.5]
    image = torch.zeros(1, 3, 1, 4)
    value = losses.context_preserving(image, image + 1, losses.context_weight(before, after), torch.ones(1).bool())
    assert float(value) == pytest.approx(1.5 / 4)  # over all pixels, not over the weight's sum


def test_cycle_is_a_mean_over_image_and_mask_channels() -> None:
    image, masks = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, 2)
    active = torch.ones(1).bool()
    value = losses.cycle_consistency(image, masks, image + 1, masks + 3, active)
    assert float(value) == pytest.approx((3 * 1 + 2 * 3) / 5)
    assert float(losses.cycle_consistency(image, masks, image + 1, masks, ~active)) == 0


def test_augmentation_moves_image_and_masks_alike() -> None:
    image = torch.zeros(3, 3, 32, 32)
    image[:, :, 10:20, 8:16] = 1
    masks = (image[:, :1] > 0).float()
    draw = Augmentation.sample(3, torch.Generator().manual_seed(4))
    moved_image, moved_masks = draw.image(image), draw.masks(masks)
    for n in range(3):
        bright = moved_image[n].mean(dim=0)
        inside, outside = bright[moved_masks[n, 0] > 0], bright[moved_masks[n, 0] == 0]
        assert inside.numel() == 80
        assert inside.min() > outside.max()
    assert not torch.equal(moved_masks, masks)


def test_pool_keeps_image_and_masks_together() -> None:
    pool, rng = FakePool(3), torch.Generator().manual_seed(0)
    seen = set()
    for n in range(40):
        image, masks, valid = torch.full((2, 3, 4, 4), n), torch.full((2, 1, 4, 4), n), torch.ones(2, 1).bool()
        image, masks, _ = pool.exchange(image, masks, valid, torch.ones(2).bool(), rng)
        assert torch.equal(image[:, 0], masks[:, 0])
        seen.update((n - image[:, 0, 0, 0]).tolist())
    assert 0 in seen
    assert max(seen) > 0
    again = FakePool(3)
    again.load_state_dict(pool.state_dict(), torch.device("cpu"))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(again.kept, pool.kept, strict=True))


def test_pool_keeps_fakes_of_several_sequential_steps() -> None:
    """Later steps show more masks: padded where they meet; what was not translated now is neither kept nor replaced."""
    pool, rng = FakePool(2), torch.Generator().manual_seed(0)
    for count in (1, 3, 2, 3, 1, 2):
        image, masks, valid = torch.zeros(2, 3, 4, 4), torch.zeros(2, count, 4, 4), torch.ones(2, count).bool()
        idle = torch.tensor([True, False])
        _, got, there = pool.exchange(image, masks, valid, idle, rng)
        assert got.shape[:2] == there.shape
        assert there[1].sum() == count
        assert (got[~there] == -1).all()
    assert len(pool.kept) == 2
    again = FakePool(2)
    again.load_state_dict(pool.state_dict(), torch.device("cpu"))
    for one, two in zip(again.kept, pool.kept, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_average_follows_and_forgets_its_start() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = average_of(network)
    torch.nn.init.constant_(network.weight, 5.0)
    for step in range(1, 60):
        update_average(average, network, decay=0.999, step=step)
    assert float(average.weight.detach()) == pytest.approx(5.0, abs=0.05)


def test_rate_is_constant_then_linear_to_zero() -> None:
    config = TrainConfig(steps=100, decay_from=0.5, learning_rate=0.1)
    assert [round(learning_rate(config, step / 100), 4) for step in (0, 49, 50, 75, 100)] == [0.1, 0.1, 0.1, 0.05, 0.0]


@pytest.mark.parametrize(
    ("bfloat16", "precision", "runs"),
    [(0.25, "bfloat16", 4), (2.0, "float32", 4), (20.0, "float32", 1)],
    ids=["faster", "slower", "far slower: tried once"],
)
def test_precision_is_measured(bfloat16: float, precision: str, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    tried: list[str] = []

    def trial(precision: str) -> None:
        nonlocal now
        tried.append(precision)
        now += bfloat16 if precision == "bfloat16" else 1.0

    monkeypatch.setattr("instapipe.training.precision.time.perf_counter", lambda: now)
    monkeypatch.setattr("instapipe.training.precision.bfloat16_handicap", lambda _: 1.0)
    choice = choose_precision("auto", trial, torch.device("cpu"))
    assert choice.precision == precision
    assert f"{1 / bfloat16:.2f} times as fast" in choice.reason
    assert tried.count("bfloat16") == runs


def test_where_one_convolution_says_enough_no_step_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU without any bfloat16 a trial would take minutes."""

    def trial(_: str) -> None:
        raise AssertionError

    monkeypatch.setattr("instapipe.training.precision.bfloat16_handicap", lambda _: 70.0)
    choice = choose_precision("auto", trial, torch.device("cpu"))
    assert (choice.precision, "70 times as long in bfloat16" in choice.reason) == ("float32", True)


def test_the_handicap_of_bfloat16_is_measured_in_one_thread() -> None:
    before = torch.get_num_threads()
    assert bfloat16_handicap(torch.device("cpu")) > 0
    assert torch.get_num_threads() == before


def test_a_precision_that_was_asked_for_is_not_measured() -> None:
    def trial(_: str) -> None:
        raise AssertionError

    assert choose_precision("bfloat16", trial, torch.device("cpu")).precision == "bfloat16"


@pytest.mark.parametrize("path", sorted((configs_root() / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_bundled_configs_load(path: Path) -> None:
    assert read_yaml(path, TrainConfig).steps >= 1


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="No space left on device"):
        checkpoint.save(tmp_path, 2, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    monkeypatch.undo()

    def broken(*_: object) -> None:
        """As torch's writer tells of a full disk."""
        try:
            full()
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 1")  # noqa: B904

    monkeypatch.setattr("torch.save", broken)
    with pytest.raises(OutputError, match=r"step-00000002\.pt': No space left on device"):
        checkpoint.save(tmp_path, 2, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    monkeypatch.undo()
    (tmp_path / "step-00000003.pt").write_bytes(b"cut off")
    with pytest.raises(TrainingError, match="cannot read checkpoint"):
        checkpoint.load_latest(tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Its files."""
    return write_world(tmp_path / "world")


def test_train_export_translate(cli: Cli, world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    out = train(cli, world, run)
    assert "sheep: 9 samples to learn from, 3 held out" in out
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"source/cycle", "target/adversarial", "critic_source", "critic_target"} <= lines[0].keys()
    grids = sorted(path.name for path in (run / "samples").iterdir())
    assert grids[0] == "00000000-source_to_target.png"
    assert len(grids) == 6
    assert cli("weights", "export", run, "--output", tmp_path / "w-1").code == 0
    card = json.loads((tmp_path / "w-1" / "card.json").read_text())
    assert (card["source"], card["target"], card["steps"], card["size"]) == ("sheep", "giraffe", 6, [32, 32])
    photo = worlds.write_photo(tmp_path / "photo.png")
    masks = worlds.write_masks(tmp_path / "masks", "photo")
    ran = cli(
        "translate", photo, "--source", "giraffe", "--target", "sheep", "--weights", tmp_path / "w-1",
        "--masks", masks, "--output", tmp_path / "out.png",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert (tmp_path / "out.png").is_file()


def test_a_run_starts_from_weights(cli: Cli, world: Path, tmp_path: Path) -> None:
    """--from: while the discriminators catch up the generators stay what they were; then they learn."""
    train(cli, world, tmp_path / "first", "--steps", "2")
    assert cli("weights", "export", tmp_path / "first", "--output", tmp_path / "w-1").code == 0
    out = train(cli, world, tmp_path / "second", "--from", tmp_path / "w-1", "--steps", "3",
                "--set", "critics_first=2", "--set", "save_every=2")  # fmt: skip
    assert "source_to_target, target_to_source start from w-1 (2 steps)" in out
    card, folder = find_card(str(tmp_path / "w-1"), "translator")
    begun = load_generator(card, folder, "source_to_target").state_dict()
    after = [
        torch.load(path, weights_only=True)["networks"]
        for path in checkpoint.found(tmp_path / "second" / "checkpoints")
    ]
    name = next(name for name, value in begun.items() if value.ndim == 4)
    same, learnt = (state[f"source_to_target.{name}"] for state in after)
    assert torch.equal(same, begun[name])
    assert not torch.equal(learnt, begun[name])
    assert cli("weights", "export", tmp_path / "second", "--output", tmp_path / "w-2").code == 0
    assert "started from w-1 (2 steps)" in json.loads((tmp_path / "w-2" / "card.json").read_text())["provenance"]
    refused = cli(
        "train", "--source-data", world / "sheep/coco.json", "--target-data", world / "giraffe/coco.json",
        "--source", "sheep", "--target", "giraffe", "--config", world / "tiny.yaml", "--output", tmp_path / "third",
        "--from", tmp_path / "w-1", "--set", "generator.width=12",
    )  # fmt: skip
    assert refused.code == 1
    assert "--set generator.width=4" in refused.err


def test_a_run_starts_from_another_run(cli: Cli, world: Path, tmp_path: Path) -> None:
    """--from RUN: its networks, not their averages, and its critics too; the averages go on from its own."""
    train(cli, world, tmp_path / "first", "--steps", "2")
    out = train(cli, world, tmp_path / "second", "--from", tmp_path / "first", "--steps", "1",
                "--set", "critics_first=1", "--set", "save_every=1", "--set", "ema_seen=100000")  # fmt: skip
    assert "critic_source, critic_target, source_to_target, target_to_source start from first (2 steps)" in out
    begun, after = (checkpoint.load_latest(tmp_path / name / "checkpoints") for name in ("first", "second"))
    assert begun is not None
    assert after is not None
    generators = [name for name in begun["networks"] if not name.startswith("critic_")]
    assert all(torch.equal(after["networks"][name], begun["networks"][name]) for name in generators)
    for direction, average in after["averages"].items():
        for name, value in average.items():
            before, own = begun["averages"][direction][name], begun["networks"][f"{direction}.{name}"]
            torch.testing.assert_close(value, before.lerp(own, 1 - 0.999) if value.is_floating_point() else before)
    assert any(
        not torch.equal(begun["averages"][n.partition(".")[0]][n.partition(".")[2]], begun["networks"][n])
        for n in generators
    )
    initial = json.loads((tmp_path / "second" / "config.json").read_text())["initial"]
    assert (initial["name"], initial["steps"]) == ("first", 2)


def test_excluded_photos_are_not_learnt_from(cli: Cli, world: Path, tmp_path: Path) -> None:
    name = json.loads((world / "sheep/coco.json").read_text())["images"][0]["file_name"]
    out = train(cli, world, tmp_path / "run", "--steps", "1", "--set", f"data.exclude=[{name}]")
    assert "sheep: 6 samples to learn from, 3 held out" in out  # three fewer


def test_resume_is_exact(cli: Cli, world: Path, tmp_path: Path) -> None:
    """Stopped after three of six steps and resumed: bit-identical networks, averages, optimisers and pools."""
    train(cli, world, tmp_path / "whole")
    train(cli, world, tmp_path / "halves", "--set", "save_every=3")
    for path in checkpoint.found(tmp_path / "halves" / "checkpoints"):
        if path.name != "step-00000003.pt":
            path.unlink()  # as if it had been killed after step 3
    out = train(cli, world, tmp_path / "halves", "--resume")
    assert "resumed at step 3" in out
    one, two = (checkpoint.load_latest(tmp_path / name / "checkpoints") for name in ("whole", "halves"))
    assert one is not None
    assert two is not None
    assert one["step"] == two["step"] == 6
    for part in ("networks", "averages", "optimizers", "pools"):
        assert_same(one[part], two[part], part)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "halves")]
    first, second = ([{**json.loads(line), "seconds": 0} for line in log] for log in logs)
    assert first == second


def test_a_run_ends_by_the_clock(cli: Cli, world: Path, tmp_path: Path) -> None:
    """`minutes`: so far as it came is kept and shown, the rate has fallen by then, and there is nothing to resume."""
    by_the_clock = ("--steps", "100000", "--set", "minutes=0.01", "--set", "decay_from=0")
    train(cli, world, tmp_path / "run", *by_the_clock)
    state = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert state is not None
    assert 0 < state["step"] < 100000
    assert state["seconds"] >= 0.6
    assert list((tmp_path / "run" / "samples").glob(f"{state['step']:08d}-*.png"))
    rates = [group["lr"] for optimizer in state["optimizers"] for group in optimizer["param_groups"]]
    assert all(rate < TrainConfig().learning_rate for rate in rates) or state["step"] == 1
    train(cli, world, tmp_path / "run", *by_the_clock, "--resume")
    again = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert again is not None
    assert again["step"] == state["step"]


def test_a_run_is_not_overwritten_and_keeps_its_settings(cli: Cli, world: Path, tmp_path: Path) -> None:
    call = arguments(world, tmp_path / "run")
    assert cli(*call, "--steps", "1", "--set", "save_every=1").code == 0
    again = cli(*call)
    assert again.code == 1
    assert "add --resume" in again.err
    other = cli(*call, "--resume", "--seed", "5")
    assert other.code == 1
    assert "another seed" in other.err
    nothing = cli(*call[:-1], tmp_path / "empty", "--resume")
    assert nothing.code == 1
    assert "no run to resume" in nothing.err
    unknown = cli(*call[:9], "--config", "nope", "--output", tmp_path / "x")
    assert unknown.code == 2
    assert "small-data" in unknown.err
    bad = cli(*call, "--set", "data.sise=3")
    assert bad.code == 2
    assert "data.sise" in bad.err
    for value in ("[1", "2020-13-45", "!!bool perhaps"):
        bad = cli(*call, "--set", f"data.size={value}")
        assert (bad.code, bad.err.count("\n")) == (2, 1), bad.err
        assert bad.err.startswith(f"error: --set 'data.size={value}'")
    missing = cli("train", *call[1:6], "unicorn", *call[7:-1], tmp_path / "y")
    assert missing.code == 1
    assert "no class 'unicorn'; it has: sheep" in missing.err
