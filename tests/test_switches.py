"""Method switches: configs that say what differs, masks united or withheld, errors added to masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import worlds
from conftest import Cli
from training_worlds import SMALL, networks_of, random_batch, step_of, train, write_world

from instapipe import Pipeline
from instapipe.config import CompositingConfig, read_yaml
from instapipe.data.domains import Cutting, Domain
from instapipe.data.noise import MaskNoise, read_noise
from instapipe.data.samples import Sample
from instapipe.errors import ConfigError, DataError
from instapipe.evaluation.mask_errors import mask_errors
from instapipe.imaging.shown import frame
from instapipe.networks.cards import read_card
from instapipe.networks.weights import load_generator
from instapipe.resources import configs_root
from instapipe.structures import Instances, Mask
from instapipe.training.config import TrainConfig
from instapipe.translation.inpainting import union
from instapipe.translation.step import translate_step

SIZE = worlds.SIZE


def config_of(name: str) -> TrainConfig:
    return read_yaml(configs_root() / "train" / f"{name}.yaml", TrainConfig)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("one-step", {"data.instances_per_step": 4}),
        ("order-random", {"data.order": "random"}),
        ("order-smallest", {"data.order": "smallest"}),
        ("no-context", {"losses.context": 0.0}),
        ("detached-context", {"losses.detach_context": True}),
        ("mean", {"generator.aggregation": "mean"}),
        ("attention", {"generator.aggregation": "attention"}),
        ("mask-noise", {"data.mask_noise": "maskrcnn-animals-1"}),
        ("union-mask", {"data.masks": "union", "data.max_instances": 1, "data.instances_per_step": 1}),
        (
            "cyclegan",
            {
                "data.masks": "none",
                "data.max_instances": 1,
                "data.instances_per_step": 1,
                "losses.context": 0.0,
                "losses.cycle_masks": 0.0,
            },
        ),
    ],
)
def test_a_switch_changes_what_it_says_and_nothing_else(name: str, changed: dict[str, object]) -> None:
    own = flat(config_of(name).model_dump())
    base = flat(config_of("small-data" if name == "mask-noise" else "paper").model_dump())
    assert {key: value for key, value in own.items() if value != base[key]} == changed


def flat(content: dict, prefix: str = "") -> dict:
    out = {}
    for key, value in content.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def test_a_config_based_on_another(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: small-data\ndata: {size: 64}\nprojected: null\n")
    bases = configs_root() / "train"
    config = read_yaml(mine, TrainConfig, {"data.load_size": 80}, bases)
    assert (config.data.size, config.data.load_size, config.data.mode) == (64, 80, "window")
    assert config.projected is None
    (tmp_path / "theirs.yaml").write_text("base: mine\nsteps: 3\n")
    assert read_yaml(tmp_path / "theirs.yaml", TrainConfig, bases=bases).data.size == 64
    for text, message in (
        ("base: smal-data\n", "no base 'smal-data'.*known: .*paper"),
        ("base: mine\n", "no base 'mine'"),
        ("base: small-data\ndata: {sise: 3}\n", "data.sise"),
        ("base: [1]\n", "no base"),
        ("steps: [1\n", "is not YAML"),
        ("steps: 2020-13-45\n", "is not YAML"),
    ):
        mine.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_yaml(mine, TrainConfig, bases=bases)


@pytest.mark.parametrize(
    ("data", "message"), [("{masks: union, mode: window}", "needs mode: photo"), ("{masks: none}", "whole")]
)
def test_switches_that_contradict_each_other(tmp_path: Path, data: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"data: {data}\ncompositing: {{mode: matte}}\n")
    with pytest.raises(ConfigError, match=message):
        read_yaml(path, TrainConfig)


def photo_domain(masks: str, noise: MaskNoise | None = None) -> Domain:
    cutting = Cutting(size=32, load_size=32, max_instances=3, masks=masks)
    samples = []
    for number in range(4):
        shapes = np.zeros((3, 32, 32), dtype=np.bool_)
        shapes[0, 2:14, 2:12], shapes[1, 18:30, 16:30], shapes[2, 4:10, 20 + number : 28] = True, True, True
        samples.append(Sample(np.full((32, 32, 3), 40 * number, np.uint8), shapes, f"{number}.png"))
    return Domain("sheep", cutting, tuple(samples), tuple(samples[:1]), {}, noise=noise)


@pytest.mark.parametrize("order", ["largest", "smallest", "random"])
def test_instances_come_in_the_order_asked_for(order: str) -> None:
    domain = photo_domain("instances")
    domain = replace(domain, cutting=domain.cutting.model_copy(update={"order": order}))
    seen = set()
    for step in range(6):
        for masks in domain.batch(step, 4, seed=2).masks:
            areas = (masks > 0).sum(dim=(1, 2)).tolist()
            seen.add(tuple(int(place) for place in np.argsort(areas)))
    wanted = {"largest": {(2, 1, 0)}, "smallest": {(0, 1, 2)}}
    assert seen == wanted[order] if order in wanted else len(seen) > 2


def test_a_step_starts_from_what_the_one_before_made() -> None:
    """Its image, without gradient, and where that was painted; the critic sees the masks so far."""
    source, target = (
        replace(batch, image=batch.image.float(), masks=batch.masks.float())
        for batch in (random_batch(1, [2, 1]), random_batch(2, [1, 2]))
    )
    networks = networks_of(SMALL)
    step = step_of(SMALL, networks, rate=0.0)
    rollout = step.rollout(source, target, torch.Generator())
    side = rollout.parts[0].sides[0]
    image, painted = source.image, torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    for number in range(2):
        part = slice(number, number + 1)
        given = source.masks[:, part], source.valid[:, part]
        with torch.no_grad():
            made = translate_step(networks.source_to_target, image, *given, SMALL.compositing, painted)
        step.iteration(rollout, range(number, number + 1), 0, torch.Generator())
        assert torch.allclose(side.image, made.image, atol=1e-6)
        assert not side.image.requires_grad
        assert not side.masks.requires_grad
        assert side.masks.shape[1] == side.valid.shape[1] == number + 1
        assert torch.allclose(side.masks[:, number], made.masks[:, 0], atol=1e-6)
        image, painted = made.image, painted | union(made.masks, given[1])
    assert not torch.equal(image[0], source.image[0])


@pytest.mark.parametrize("mode", ["whole", "matte"])
def test_a_detached_context_has_no_say_in_the_masks(mode: str) -> None:
    batch = random_batch(4, [1, 1])
    batch = replace(batch, image=batch.image.float(), masks=batch.masks.float())
    felt = []
    for detach in (False, True):
        losses = {"adversarial": 0, "cycle": 0, "identity": 0, "context": 1, "detach_context": detach}
        config = SMALL.model_copy(
            update={
                "losses": SMALL.losses.model_copy(update=losses),
                "compositing": CompositingConfig.model_validate({"mode": mode}),
            }
        )
        networks = networks_of(config)
        step_of(config, networks, rate=0.0)(batch, batch, 0, torch.Generator().manual_seed(0))
        gradients = [p.grad for p in networks.source_to_target.decoder_mask.parameters() if p.grad is not None]
        felt.append(sum(float(gradient.abs().sum()) for gradient in gradients))
    assert felt[0] > 0
    assert felt[1] == 0


def test_networks_are_shown_the_union_or_nothing() -> None:
    each, union, nothing = (photo_domain(masks).batch(0, 4, seed=1) for masks in ("instances", "union", "none"))
    assert torch.equal(each.image, union.image)
    assert each.valid.sum(dim=1).tolist() == [3] * 4
    assert union.valid.sum(dim=1).tolist() == nothing.valid.sum(dim=1).tolist() == [1] * 4
    assert torch.equal(union.masks[:, 0], each.masks.amax(dim=1))
    assert bool((nothing.masks[:, 0] == torch.from_numpy(frame((32, 32))).float() * 2 - 1).all())
    assert photo_domain("union").counts() == [1] * 4


@pytest.mark.parametrize("augment", [False, True])
def test_without_masks_no_network_learns_from_them(augment: bool) -> None:
    config = SMALL.model_copy(
        update={
            "augment": augment,
            "data": SMALL.data.model_copy(update={"masks": "none", "max_instances": 1}),
            "compositing": CompositingConfig(mode="whole"),
            "losses": SMALL.losses.model_copy(update={"cycle_masks": 0.0, "context": 0.0}),
        }
    )
    networks = networks_of(config)
    before = {name: value.clone() for name, value in networks.named_parameters()}
    batch = random_batch(1, [1, 1], most=1)
    batch = replace(batch, image=batch.image.float(), masks=batch.masks.float())
    step_of(config, networks, rate=1e-2)(batch, batch, 1, torch.Generator().manual_seed(0))
    moved = {name for name, value in networks.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("source_to_target.decoder_image") for name in moved)
    assert any(name.startswith("critic_target.patches.features_image") for name in moved)
    assert not [name for name in moved if "decoder_mask" in name or "features_mask" in name]


@pytest.mark.parametrize("shown", ["union", "none"])
def test_such_weights_are_fed_in_translation_as_in_training(shown: str, tmp_path: Path) -> None:
    """All instances at once, whatever --instances-per-step says, and every pixel as the network makes it of that."""
    weights = worlds.write_weights(tmp_path / "w", mode="whole", size=SIZE)
    card = json.loads((weights / "card.json").read_text())
    (weights / "card.json").write_text(json.dumps({**card, "masks": shown}))
    pixels = worlds.photo_pixels()
    masks = worlds.write_masks(tmp_path / "masks", "photo")
    with Pipeline(
        "sheep", "giraffe", masks=masks, cache=tmp_path / "cache", weights=str(weights), engine="torch",
        precision="float32", instances_per_step=1, device="cpu",
    ) as pipeline:  # fmt: skip
        photo = worlds.write_photo(tmp_path / "photo.png", pixels)
        result = pipeline(photo)
    assert len(result.report["steps"]) == 1
    dense = [worlds.ellipse(SIZE, blob) for blob in worlds.SHEEP]
    given = np.any(dense, axis=0) if shown == "union" else frame(SIZE)
    generator = load_generator(read_card(weights), weights, "source_to_target")
    image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        raw, returned = generator(image, torch.from_numpy(given)[None, None].float() * 2 - 1, torch.ones(1, 1).bool())
    expected = ((raw[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(result.pixels - expected).max() <= 1
    assert len(result.instances) == 3
    for number, mask in zip(result.instances.numbers, result.instances.masks, strict=True):
        answer = returned[0, 0].numpy() >= 0 if shown == "union" else dense[number]
        assert (mask.dense() == answer).mean() > 0.999


def test_an_exported_card_says_what_the_networks_were_shown(cli: Cli, tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    more = ("data.mode=photo", "data.masks=union", "data.max_instances=1", "steps=1", "save_every=1")
    train(cli, world, tmp_path / "run", *(word for each in more for word in ("--set", each)))
    assert cli("weights", "export", tmp_path / "run", "--output", tmp_path / "w-1").code == 0
    assert json.loads((tmp_path / "w-1" / "card.json").read_text())["masks"] == "union"


def test_united_masks_make_one_matte_for_all(tmp_path: Path) -> None:
    """With matte compositing the shared matte is blended once, not once an instance."""
    results = []
    for count in (1, 2):
        weights = worlds.write_weights(tmp_path / f"w{count}", size=SIZE)
        card = json.loads((weights / "card.json").read_text())
        (weights / "card.json").write_text(json.dumps({**card, "masks": "union"}))
        # One mask, or the same shape as two halves.
        whole = worlds.ellipse(SIZE, worlds.SHEEP[0])
        halves = [whole.copy(), whole.copy()]
        halves[0][:, worlds.SHEEP[0][0] :] = halves[1][:, : worlds.SHEEP[0][0]] = False
        folder = tmp_path / f"masks{count}"
        folder.mkdir()
        import cv2

        for number, mask in enumerate([whole] if count == 1 else halves):
            cv2.imwrite(str(folder / f"photo_{number}.png"), mask.astype(np.uint8) * 255)
        photo = worlds.write_photo(tmp_path / f"in{count}" / "photo.png")
        with Pipeline(
            "sheep", "giraffe", masks=folder, cache=tmp_path / "cache", weights=str(weights), engine="torch",
            precision="float32", device="cpu", region="whole",
        ) as pipeline:  # fmt: skip
            results.append(pipeline(photo))
    one, two = results
    assert len(two.instances) == 2
    assert np.array_equal(one.pixels, two.pixels)


NOISE = MaskNoise(
    segmenter="made up", labels=("sheep",), instances=10, drop=0.2, merge=0.1, offset=(-0.1, 0, 0.1), holes=(0, 0, 0.3)
)


def test_noise_is_what_generators_are_given_and_only_that() -> None:
    clean, noisy = photo_domain("instances"), photo_domain("instances", NOISE)
    counts, areas = [], []
    for step in range(40):
        without, batch = clean.batch(step, 4, seed=5), noisy.batch(step, 4, seed=5)
        assert torch.equal(batch.image, without.image)
        assert torch.equal(batch.masks, without.masks)  # what discriminators see as real
        again = noisy.batch(step, 4, seed=5)
        assert torch.equal(batch.given.masks, again.given.masks)
        given = batch.given
        counts.append(given.valid.sum(dim=1))
        for wanted, made in zip(given.right[given.valid], given.masks[given.valid], strict=True):
            areas.append(float((made > 0).sum() / (wanted > 0).sum()))
            assert bool((made > 0).any())
        # What is wanted is made of the batch's own masks: one each, or some together.
        for masks, valid, right in zip(batch.masks, batch.valid, given.right, strict=True):
            for mask in right > 0:
                own = [each > 0 for each in masks[valid] if bool(((each > 0) & mask).any())]
                assert torch.equal(mask, torch.stack([*own, torch.zeros_like(mask)]).any(dim=0))
        assert bool((given.masks[~given.valid] == -1).all())
    share = float(torch.cat(counts).float().mean()) / 3
    assert 0.6 < share < 0.85  # 20 % dropped, about 10 % of the others in another's mask
    assert min(areas) < 0.8
    assert max(areas) > 1.2


def test_content_losses_ask_for_the_masks_without_noise() -> None:
    """Where every returned mask is 0, the cycle loss on masks is |0 - wanted|: 1 for masks, 0 for a wanted 0."""
    config = SMALL.model_copy(update={"compositing": CompositingConfig(mode="whole")})
    batch = random_batch(3, [2, 2])
    batch = replace(batch, image=batch.image.float(), masks=batch.masks.float())
    found = []
    for wanted in (batch.masks, torch.zeros_like(batch.masks)):
        networks = networks_of(config)
        for generator in (networks.source_to_target, networks.target_to_source):
            for parameter in generator.decoder_mask.parameters():
                torch.nn.init.zeros_(parameter)
        source = replace(batch, noisy=replace(batch, wanted=wanted))
        found.append(step_of(config, networks, rate=0.0)(source, batch, 0, torch.Generator().manual_seed(0))[0])
    for name, weight in (("cycle", config.losses.cycle), ("identity", config.losses.identity)):
        less = found[0][f"source/{name}"] - found[1][f"source/{name}"]
        assert less == pytest.approx(weight / 4, rel=1e-3)  # one of four channels, by 1
        assert found[0][f"target/{name}"] == pytest.approx(found[1][f"target/{name}"], rel=1e-6)


def test_noise_that_is_not_there(tmp_path: Path) -> None:
    assert read_noise("maskrcnn-animals-1").instances >= 100
    with pytest.raises(ConfigError, match=r"no mask noise 'nobody'.*maskrcnn-animals-1"):
        read_noise("nobody")
    path = tmp_path / "bad.json"
    path.write_text('{"segmenter": "x", "labels": [], "instances": 1, "drop": 2, "merge": 0, "offset": [0, 0]}')
    with pytest.raises(ConfigError, match="drop"):
        read_noise(str(path))


def instances_of(*boxes: tuple[int, int, int, int]) -> Instances:
    masks = []
    for x0, y0, x1, y1 in boxes:
        dense = np.zeros((100, 100), dtype=np.bool_)
        dense[y0:y1, x0:x1] = True
        masks.append(Mask.from_dense(dense))
    return Instances((100, 100), tuple(masks), ("sheep",) * len(boxes), (1.0,) * len(boxes))


def test_errors_are_measured_as_they_were_made() -> None:
    right = instances_of((10, 10, 40, 40), (60, 10, 90, 40), (10, 60, 40, 90), (45, 60, 60, 75))
    exact = mask_errors([(right, right)], "x")
    assert (exact.drop, exact.merge, exact.instances) == (0, 0, 4)
    assert max(map(abs, exact.offset)) == max(exact.holes) == 0
    # The first grown by 3 pixels, the second smaller by 2.
    made = instances_of((7, 7, 43, 43), (62, 12, 88, 38), (10, 60, 40, 90), (45, 60, 60, 75))
    measured = mask_errors([(right, made)], "x")
    assert (measured.drop, measured.merge) == (0, 0)
    assert measured.offset[-1] == pytest.approx(3 / 30, abs=0.02)
    assert measured.offset[0] == pytest.approx(-2 / 30, abs=0.02)
    # The fourth lies within what was found for the third; in another photo only the first was found.
    swallowed = instances_of((10, 10, 40, 40), (60, 10, 90, 40), (10, 60, 60, 90))
    measured = mask_errors([(right, swallowed), (right, instances_of((10, 10, 40, 40)))], "x")
    assert (measured.instances, measured.merge, measured.drop) == (8, 0.125, 0.375)
    with_hole = right.masks[0].dense().copy()
    with_hole[20:30, 20:30] = False
    holed = Instances((100, 100), (Mask.from_dense(with_hole),), ("sheep",), (1.0,))
    found = mask_errors([(right.select([0]), holed)], "x")
    assert found.holes[0] == pytest.approx(100 / 900, abs=0.02)
    assert abs(found.offset[0]) < 0.02
    with pytest.raises(DataError, match="found none of 4"):
        mask_errors([(right, right.select([]))], "x")


def test_the_command_that_measures(cli: Cli, colour: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(2):
        worlds.write_photo(folder / f"{number}.png", worlds.photo_pixels(seed=number))
        worlds.write_masks(tmp_path / "masks", str(number))
    output = tmp_path / "noise.json"
    arguments = ("data", "noise", "--data", folder, "--masks", tmp_path / "masks", "--class", "sheep", "-o", output)
    ran = cli(*arguments, "--segmenter", colour)
    assert ran.code == 0, ran.err
    assert "on 6 sheep: " in ran.out
    assert read_noise(str(output)).segmenter == colour
