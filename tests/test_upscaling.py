"""What is shown larger than it was made: networks that give it detail, how they learn, and what a photo gains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import training_worlds
import worlds
from conftest import Cli
from test_teaching import SIDE, Levels

from instapipe.errors import DataError, WeightsError
from instapipe.networks.projected import FrozenBackbone
from instapipe.networks.upscaler import Upscaler, UpscalerForm, doublings, read_upscaler, softly
from instapipe.training import resumable, upscaling
from instapipe.training.pairs import Windows
from instapipe.training.pieces import PARTS, Part, corner
from instapipe.training.precision import Choice
from instapipe.training.upscaling import Finisher, Upscaling, initialised, softened

FORM = UpscalerForm(width=8, blocks=1)
PAIR = ("--source", "sheep", "--target", "giraffe")
EXACT = ("--engine", "torch", "--precision", "float32")


def trained(scale: float = 0.5) -> Upscaler:
    """An upscaler that adds something."""
    torch.manual_seed(0)
    upscaler = Upscaler(FORM)
    torch.nn.init.normal_(upscaler.out.weight, std=scale)
    return upscaler.eval().requires_grad_(False)


@pytest.fixture
def upscaled_weights(ground_weights: Path, tmp_path: Path) -> Path:
    """The tiny translator with an upscaler."""
    from instapipe.networks.cards import find_card
    from instapipe.networks.weights import with_attached

    trained().write(tmp_path / "upscaler.safetensors")
    card, folder = find_card(str(ground_weights), "translator")
    with_attached(card, folder, "upscaler", tmp_path / "upscaler.safetensors", tmp_path / "upscaled")
    return tmp_path / "upscaled"


def test_one_that_has_learnt_nothing_interpolates() -> None:
    rng = torch.Generator().manual_seed(0)
    image, matte = torch.rand(2, 3, 12, 16, generator=rng) * 2 - 1, torch.rand(2, 1, 12, 16, generator=rng)
    plain, outline = (F.interpolate(each, scale_factor=2, mode="bicubic") for each in (image, matte))
    upscaler = Upscaler(UpscalerForm())
    with torch.inference_mode():
        made, wanted = upscaler(image, matte)
        assert torch.equal(made, plain)
        assert torch.equal(wanted, outline)
        assert torch.equal(upscaler.within(wanted, matte), outline.clamp(0, 1))
        assert not torch.allclose(trained()(image, matte)[0], plain, atol=0.05)


def test_outlines_move_by_the_reach_at_most() -> None:
    """Whatever is wanted: an animal does not come apart, and nothing appears beside it."""
    reach, upscaler = FORM.reach, trained()
    matte = torch.zeros(1, 1, 32, 32)
    matte[..., 8:24, 8:24] = 1
    everywhere = torch.full((1, 1, 64, 64), 9.0)
    for wanted, inner, outer in (
        (everywhere, 16 - reach, 16 - reach - 3),
        (-everywhere, 16 + reach + 2, 16 + reach - 1),
    ):
        there = upscaler.within(wanted, matte)[0, 0] >= 0.5
        assert there[inner : 64 - inner, inner : 64 - inner].all()
        there[outer : 64 - outer, outer : 64 - outer] = False
        assert not there.any()


def test_what_is_made_soft_keeps_its_colour_and_takes_none_from_around_it() -> None:
    matte = torch.zeros(1, 1, 24, 24)
    matte[..., 8:16, 4:20] = 1
    image = torch.where(matte > 0, 0.5, -1.0).expand(1, 3, -1, -1)
    soft, thin = softly(image, matte, 1.2)
    assert torch.allclose(soft[..., 8:16, 4:20], torch.tensor(0.5), atol=0.03)
    assert torch.allclose(thin.sum(), matte.sum(), rtol=1e-4)
    assert 0.3 < float(thin[0, 0, 8, 12]) < 0.7 < float(thin[0, 0, 10, 12])
    assert torch.allclose(softly(image.flip(-1), matte.flip(-1), 1.2)[0].flip(-1), soft, atol=1e-6)


@pytest.mark.parametrize(("scale", "times"), [(0.1, 1), (0.6, 1), (0.7, 2), (1.2, 2), (1.3, 4), (40, 4)])
def test_pixels_are_doubled_until_there_are_some_to_spare(scale: float, times: int) -> None:
    pixels, mattes = np.full((16, 24, 3), 200, np.float32), np.zeros((1, 16, 24), np.float32)
    mattes[:, 4:12, 6:18] = 1
    out, outlines = Upscaler(FORM).enlarge(pixels, mattes, scale)
    assert 2 ** doublings(scale) == times
    assert (out.shape, outlines.shape) == ((16 * times, 24 * times, 3), (1, 16 * times, 24 * times))
    assert (out.dtype, outlines.dtype) == (np.float32, np.float32)
    assert np.abs(out[outlines[0] >= 0.5] - 200).max() < 3, "of its own colour"
    assert abs((outlines >= 0.5).mean() - (mattes >= 0.5).mean()) < 0.03
    nothing = np.zeros_like(mattes)
    assert Upscaler(FORM).enlarge(pixels, nothing, scale)[1] is nothing


def test_of_several_instances_each_has_an_outline_of_its_own() -> None:
    rng = np.random.default_rng(0)
    pixels, mattes = rng.uniform(0, 255, (32, 32, 3)).astype(np.float32), np.zeros((2, 32, 32), np.float32)
    mattes[0, 6:26, 4:14] = mattes[1, 6:26, 18:28] = 1
    both, outlines = trained().enlarge(pixels, mattes, 2)
    for number in (0, 1):
        image, (alone,) = trained().enlarge(pixels, mattes[number : number + 1], 2)
        assert ((alone >= 0.5) == (outlines[number] >= 0.5)).mean() > 0.99
        deep = cv2.erode((alone >= 0.99).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert np.abs(both - image)[deep].mean() < 6


def test_what_is_written_is_read_and_other_files_are_named(tmp_path: Path, grader_file: Path) -> None:
    path, upscaler = tmp_path / "upscaler.safetensors", trained()
    upscaler.write(path)
    again = read_upscaler(path)
    assert again.form == FORM
    image, matte = torch.rand(1, 3, 8, 8) * 2 - 1, torch.rand(1, 1, 8, 8)
    for ours, theirs in zip(again(image, matte), upscaler(image, matte), strict=True):
        assert torch.allclose(ours, theirs, atol=0.05), "kept in 8 bits"
    with pytest.raises(WeightsError, match="is not an upscaler's file"):
        read_upscaler(grader_file)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match="no upscaler in"):
        read_upscaler(path)


def test_a_photo_gains_detail_where_it_is_enlarged(cli: Cli, upscaled_weights: Path, tmp_path: Path) -> None:
    """Nearly the same outlines, same background; `--no-upscale`, and an animal that is small, are as without one."""
    size = (240, 320)
    for name, blob in (("large", (160, 120, 70, 60)), ("small", (160, 120, 5, 4))):
        worlds.write_photo(tmp_path / f"{name}.png", worlds.photo_pixels((blob,), None, size=size))
        worlds.write_masks(tmp_path / f"{name}.masks", name, (blob,), size=size)

    def picture(name: str, weights: Path, *more: object) -> tuple[np.ndarray, dict[str, object], np.ndarray]:
        call = ("translate", tmp_path / f"{name}.png", *PAIR, *EXACT, "--region", "instance", "--json")
        (made,) = cli(*call, "--weights", weights, "-o", f"out{len(more)}-{weights.name}-{name}.png", *more).json
        report = json.loads(Path(made["report"]).read_text())["result"]
        (mask,) = Path(made["picture"]).with_suffix(".masks").glob("*.png")
        return cv2.imread(made["picture"]), report, cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 0

    plain_weights = tmp_path / "ground"
    plain, report, outline = picture("large", plain_weights)
    assert report["weights"]["upscaler"] is None  # type: ignore[index]
    regions = [report["steps"][0]["region"]]  # type: ignore[index]
    fine, report, fine_outline = picture("large", upscaled_weights)
    digest = json.loads((upscaled_weights / "card.json").read_text())["upscaler"]["sha256"]
    assert report["weights"]["upscaler"] == digest  # type: ignore[index]
    near = np.ones((31, 31), np.uint8)
    assert not (fine_outline & ~(cv2.dilate(outline.astype(np.uint8), near) > 0)).any()
    regions.append(report["steps"][0]["region"])  # type: ignore[index]
    differs = (plain != fine).any(axis=2)
    assert differs.sum() > 200
    inside = np.zeros_like(differs)
    for x0, y0, x1, y1 in regions:
        inside[y0:y1, x0:x1] = True
    assert not differs[~inside].any()
    without, report, _ = picture("large", upscaled_weights, "--no-upscale")
    assert report["weights"]["upscaler"] is None  # type: ignore[index]
    assert np.array_equal(without, plain)
    assert np.array_equal(picture("small", upscaled_weights)[0], picture("small", plain_weights)[0])


def test_a_damaged_upscaler_is_named(cli: Cli, upscaled_weights: Path, tmp_path: Path) -> None:
    size, blob = (240, 320), (160, 120, 70, 60)
    worlds.write_photo(tmp_path / "large.png", worlds.photo_pixels((blob,), None, size=size))
    worlds.write_masks(tmp_path / "large.masks", "large", (blob,), size=size)
    path = upscaled_weights / "upscaler.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    ran = cli("translate", tmp_path / "large.png", *PAIR, *EXACT, "--weights", upscaled_weights, "-o", "out.png")
    assert ran.code != 0
    assert "upscaler.safetensors" in ran.err
    ran = cli("weights", "verify", upscaled_weights)
    assert "BAD   upscaled/upscaler.safetensors" in ran.out


def stripes(count: int, side: int, *, soft: float) -> tuple[np.ndarray, np.ndarray]:
    """Discs with stripes, uint8 (N, side, side, 3), and where they are: sharp, or as a generator would paint them."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    disc = (y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.16
    pixels = []
    for _ in range(count):
        wave = np.sin(2 * np.pi * (rng.uniform(5, 7) * x + rng.uniform(-2, 2) * y + rng.random()))
        image = np.where((wave > 0)[..., None], (220, 190, 150), (120, 70, 40)).astype(np.float32)
        if soft:
            image = cv2.GaussianBlur(image, (0, 0), soft)
        pixels.append(np.where(disc[..., None], image, 128).astype(np.uint8))
    return np.stack(pixels), np.repeat(disc[None], count, axis=0)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks for pictures of 32 px, and for few steps."""
    monkeypatch.setattr(resumable, "_WARM", 5)
    monkeypatch.setattr(upscaling, "_AVERAGE", 0.9)
    monkeypatch.setattr(upscaling, "choose_precision", lambda *_: Choice("float32", "as asked"))


def finisher(settings: Upscaling) -> Finisher:
    names = tuple(f"{n}.png" for n in range(48))
    coarse, fine = (Windows(*pair, pair[0], names) for pair in (stripes(48, times * SIDE, soft=0) for times in (2, 4)))
    upscaler = initialised(Upscaler(FORM), 0)
    return Finisher(upscaler, (coarse, fine), FrozenBackbone(Levels(), SIDE), settings, torch.device("cpu"))


@pytest.mark.usefixtures("_small")
def test_soft_stripes_become_sharp_and_stay_where_they_are() -> None:
    run = finisher(Upscaling(steps=80, batch=4, rate=3e-3))
    told = list(run.learn(80, lambda: None))
    assert told[-1].held_out == run.measure()
    painted, discs = stripes(8, SIDE, soft=1.0)
    image = torch.from_numpy(painted.transpose(0, 3, 1, 2).astype(np.float32)) / 127.5 - 1
    matte = torch.from_numpy(discs.astype(np.float32))[:, None]
    inside = F.interpolate(matte, scale_factor=2, mode="nearest")
    with torch.inference_mode():
        soft, thin = softly(image, matte, run.average.form.soft)
        fine, wanted = run.average(soft, thin)
    plain = F.interpolate(soft, scale_factor=2, mode="bicubic", align_corners=False)
    steep = [(each.diff(dim=3).abs() * inside[..., 1:]).mean() for each in (plain, fine)]
    assert steep[1] > 1.3 * steep[0]
    assert ((F.avg_pool2d(fine, 8) - F.avg_pool2d(image, 4)) * F.avg_pool2d(matte, 4)).abs().mean() < 0.1
    outlines = run.average.within(wanted, thin) >= 0.5
    assert (outlines == (inside >= 0.5)).float().mean() > 0.97
    assert told[0].losses.keys() == {"pixels", "features", "textures", "outline", "beyond", "undecided"}
    picture = run.picture()
    assert picture.shape[1] == 6 * 4 * SIDE
    assert picture.std() > 0


@pytest.mark.usefixtures("_small")
def test_a_run_that_was_stopped_goes_on_exactly(tmp_path: Path) -> None:
    settings = Upscaling(steps=6, batch=4, rate=1e-3)
    training_worlds.assert_goes_on_exactly(lambda: finisher(settings), tmp_path)


@pytest.mark.usefixtures("_small")
def test_too_few_instances_are_named() -> None:
    pair = stripes(2, 2 * SIDE, soft=0)
    few = Windows(*pair, pair[0], ("a.png", "b.png"))
    with pytest.raises(
        DataError, match=r"windows of large enough instances of the target can be learnt from, of which"
    ):
        Finisher(Upscaler(FORM), (few, few), FrozenBackbone(Levels(), SIDE), Upscaling(), torch.device("cpu"))


@pytest.mark.parametrize("part", sorted(set(PARTS)))
def test_pieces_show_the_instance_and_lie_in_the_window(part: Part) -> None:
    mask = np.zeros((64, 48), np.bool_)
    mask[30:33, 20:26] = True
    rng = np.random.default_rng(0)
    corners = [corner(part, mask, 32, rng) for _ in range(200)]
    assert all(0 <= y <= 32 and 0 <= x <= 16 for y, x in corners)
    assert all(mask[y : y + 32, x : x + 32].any() for y, x in corners)
    assert len(set(corners)) > 3
    assert {corner(part, np.zeros_like(mask), 48, rng)[1] for _ in range(9)} == {0}, "of nothing, somewhere"


def test_pieces_show_what_they_are_called_after() -> None:
    """Of an animal that looks to the right: its head is above on the right, its feet below."""
    mask = np.zeros((128, 128), np.bool_)
    mask[60:85, 20:90] = mask[20:70, 80:90] = mask[20:30, 85:105] = mask[80:115, 25:30] = mask[80:115, 80:85] = True
    head, feet = np.zeros_like(mask), np.zeros_like(mask)
    head[20:30, 90:105], feet[105:115] = mask[20:30, 90:105], mask[105:115]
    rng = np.random.default_rng(0)
    wanted: tuple[tuple[Part, np.ndarray, int, float], ...] = (("head", head, 32, 0.9), ("legs", feet, 72, 0.4))
    for part, shown, side, share in wanted * 50:
        y, x = corner(part, mask, side, rng)
        assert shown[y : y + side, x : x + side].sum() > share * shown.sum()


def test_real_instances_are_shown_as_soft_as_painted_ones() -> None:
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    soft = softened(images, np.random.default_rng(0))
    assert soft.shape == images.shape
    assert soft.diff(dim=3).abs().mean() < 0.8 * images.diff(dim=3).abs().mean()
    assert (soft.mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))).abs().max() < 0.02


@pytest.mark.usefixtures("_small")
def test_weights_get_an_upscaler(cli: Cli, ground_weights: Path, whole_weights: Path, tmp_path: Path) -> None:
    """From weights to the same weights with one; a second call makes nothing anew."""
    photos = training_worlds.write_animals(tmp_path / "photos")
    train = (
        "train-upscaler", "--target-data", photos, "--weights", ground_weights,
        "--output", tmp_path / "run", "--views", 2, "--steps", 2, "--batch", 2, "--device", "cpu",
    )  # fmt: skip
    ran = cli(*train, "--export", tmp_path / "after")
    assert ran.code == 0, ran.err
    assert "distance from photos" in ran.out
    ran = cli("weights", "verify", tmp_path / "after")
    assert (ran.code, "good  after/upscaler.safetensors" in ran.out) == (0, True)
    before, after = (json.loads((path / "card.json").read_text()) for path in (ground_weights, tmp_path / "after"))
    assert before["directions"] == after["directions"]
    assert "The upscaler: 2 steps of 2 pieces of" in after["provenance"]
    assert after["recipe"]
    pictures = sorted(path.name for path in (tmp_path / "run/samples").iterdir())
    assert pictures == ["step-00000.png", "step-00002.png"]
    shutil.rmtree(tmp_path / "after")
    ran = cli(*train, "--export", tmp_path / "after")
    assert ran.code == 0, "the run is done, its upscaler is written once more"
    assert json.loads((tmp_path / "after/card.json").read_text())["upscaler"] == after["upscaler"]
    ran = cli(*train, "--export", tmp_path / "after")
    assert (ran.code, "never overwritten" in ran.err) == (2, True)
    ran = cli(*train, "--rate", 0.1, "--export", tmp_path / "third")
    assert (ran.code, "with rate 0.0002, not 0.1" in ran.err) == (2, True)
    ran = cli(*train[:4], whole_weights, *train[5:], "--export", tmp_path / "third")
    assert (ran.code, "make no outlines" in ran.err) == (2, True)
    assert not (tmp_path / "third").exists()
