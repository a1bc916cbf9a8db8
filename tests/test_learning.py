"""Does it learn? Lying bars become standing ones, in a generated world; the long form is benchmarks/learning.py."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import bar_learning as learning
import bar_world as world
import numpy as np
import pytest
import torch

from instapipe.networks.blocks import initialise
from instapipe.networks.generator import SetGenerator

LEAST = {"masks": 0.6, "pixels": 0.5, "kept": 0.8}
"""What the short form asks for; the long form asks for more (bar_learning.Scores.learnt)."""


def passes(scores: learning.Scores) -> bool:
    return all(asdict(scores)[name] >= least for name, least in LEAST.items()) and scores.background <= 0.03


@pytest.fixture(scope="module")
def scenes() -> list[world.Scene]:
    return learning.unseen(0)


def test_it_learns(scenes: list[world.Scene], tmp_path: Path) -> None:
    """Sixty of the long form's 96 steps, through the loop of `instapipe train`, with one of three seeds at least.

    So short a run falls apart now and then, and rounding decides with which seed: another processor draws anew. What
    cannot learn passes with none.
    """
    tried = []
    for seed in range(3):
        config = learning.settings(steps=60, seed=seed)
        generator = learning.learn(config, learning.domains(config, seed), tmp_path / str(seed))
        tried.append(learning.score(scenes, learning.translated(generator, config, scenes)))
        if passes(tried[-1]):
            return
    pytest.fail("\n".join(map(str, tried)))


def test_baselines_fail(scenes: list[world.Scene]) -> None:
    config = learning.settings()
    generator = SetGenerator(config.generator)
    initialise(generator, torch.Generator().manual_seed(0))
    untrained = learning.score(scenes, learning.translated(generator.eval(), config, scenes))
    copied, recoloured = (learning.score(scenes, made(scenes)) for made in (learning.copied, learning.recoloured))
    assert copied.masks == recoloured.masks == pytest.approx(0.2)
    for baseline in (untrained, copied, recoloured):
        assert not passes(baseline), baseline
        assert baseline.masks < LEAST["masks"] / 2
        assert baseline.pixels < LEAST["pixels"] / 2


def test_the_right_answer_passes(scenes: list[world.Scene]) -> None:
    """The measures themselves: standing bars where bars lay, painted as the other domain is."""
    made = [(scene.photo(False), scene.masks(False)) for scene in scenes]
    scores = learning.score(scenes, made)
    assert scores.learnt()
    assert scores.masks == 1.0
    assert scores.pixels > 0.98
    one_short = [(picture, np.concatenate([masks[:-1], masks[-1:] & False])) for picture, masks in made]
    assert learning.score(scenes, one_short).masks < 0.9


def test_the_domains_differ_in_shape_and_colour_only() -> None:
    scenes = [world.scene(seed) for seed in range(200)]
    counts = np.bincount([len(scene.bars) for scene in scenes], minlength=world.MOST + 1)
    assert counts[0] == 0
    assert counts[1:].min() >= 10
    overlapping = 0
    for scene in scenes:
        lying, standing = scene.masks(True), scene.masks(False)
        assert (lying.sum(axis=(1, 2)) == standing.sum(axis=(1, 2))).all()
        assert world.iou(lying[0], standing[0]) == pytest.approx(0.2, abs=1e-9)
        overlapping += int((lying.sum(axis=0) > 1).any())
    assert overlapping >= 30
