"""The engines on the bundled weights: fast paths stay within what is said of them, on windows of a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from instapipe.config import TranslatorCard
from instapipe.imaging import read_photo
from instapipe.networks.cards import bundled
from instapipe.networks.weights import load_generator
from instapipe.translation.engines.artefacts import Artefacts
from instapipe.translation.engines.backends import PRECISIONS, why_not
from instapipe.translation.engines.choice import MASK_AGREEMENT, MEAN_ERROR, mask_agreement
from instapipe.translation.engines.probes import probe_window
from instapipe.translation.engines.run import build
from instapipe.translation.resampling import shrink

REAL_PHOTO = Path(__file__).resolve().parent / "data" / "demo" / "sheep.jpg"
TRANSLATORS = [(card, folder) for card, folder in bundled() if isinstance(card, TranslatorCard)]
FAST = [(e, p) for e in ("torch", "openvino", "onnx") for p in PRECISIONS[e] if why_not(e, p) is None]


@pytest.mark.parametrize(("engine", "precision"), FAST)
@pytest.mark.parametrize(("card", "folder"), TRANSLATORS, ids=[card.name for card, _ in TRANSLATORS])
def test_within_the_stated_error(card: TranslatorCard, folder: Path, engine: str, precision: str) -> None:
    generator = load_generator(card, folder, "source_to_target")
    size = card.size or (96, 96)
    photo = read_photo(REAL_PHOTO).pixels
    made = build(generator, "bundled", "cpu", engine, precision, Artefacts(None))
    for number in range(2):
        _, masks = probe_window(size, card.instances_per_step, number)
        half = photo.shape[1] // 2
        window = shrink(np.ascontiguousarray(photo[:, number * half : (number + 1) * half]), size)
        image = np.ascontiguousarray(window.transpose(2, 0, 1) / np.float32(127.5) - np.float32(1))
        valid = torch.ones(1, len(masks), dtype=torch.bool)
        with torch.inference_mode():
            exact = generator(torch.from_numpy(image)[None], torch.from_numpy(masks)[None], valid)
        expected, got = [value[0].numpy() for value in exact], made.run(image, masks)
        differences = [np.abs(a - b) for a, b in zip(expected, got, strict=True)]
        if precision == "float32":
            assert max(d.max() for d in differences) < 1e-3
        else:
            assert differences[0].mean() <= MEAN_ERROR
            assert min(mask_agreement(a, b) for a, b in zip(expected[1], got[1], strict=True)) >= MASK_AGREEMENT
