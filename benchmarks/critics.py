"""Do a run's discriminators know their samples by heart?

    python benchmarks/critics.py RUN --data FOLDER [--checkpoint FILE]

Scores of the target's discriminators, the same crops and augmentation as in training: for windows of
`FOLDER/instances_train.json` that were learnt from, for windows of real targets that no run has seen
(`instances_val.json` and the run's held-out photos), and for translated sources of both. `memorised` is
(learnt - unseen) / (learnt - translated unseen): 0 where unseen animals look as real as those learnt from, 1 where they
look as false as translated ones.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from instapipe.cli.train import without
from instapipe.data.domains import Domain, cut_domain, cut_samples
from instapipe.data.photos import AnnotatedPhoto, read_photos
from instapipe.data.samples import Sample
from instapipe.networks.backbone import pretrained_features
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import checkpoint
from instapipe.training.augment import Augmentation
from instapipe.training.config import DataSettings
from instapipe.training.critics import Candidate
from instapipe.training.record import settings_of
from instapipe.training.step import InstaGAN
from instapipe.translation.step import translate_step

JUDGES = ("patches", "window", "instance")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="instead of the run's newest")
    parser.add_argument("--repeats", type=int, default=4, help="crops and augmentations drawn of every window")
    given = parser.parse_args()
    settings, config = settings_of(given.run)
    if config.projected is None:
        raise SystemExit(f"{given.run}: the run has no projected discriminators")
    state = checkpoint.load(given.checkpoint) if given.checkpoint else checkpoint.load_latest(given.run / "checkpoints")
    if state is None:
        raise SystemExit(f"{given.run} holds no checkpoint")
    features = pretrained_features(config.projected.backbone)
    backbone = FrozenBackbone(features, config.projected.min_side)
    networks = InstaGAN(config, list(features.channels), torch.Generator())
    networks.load_state_dict(state["networks"])
    networks.eval()

    def photos(split: str, label: str) -> list[AnnotatedPhoto]:
        listed = read_photos(given.data / f"instances_{split}.json", label)
        return without(listed, config.data.exclude) if split == "train" else listed

    def both(label: str, cutting: DataSettings) -> tuple[Domain, list[Sample]]:
        """What was learnt from, and windows that no run has seen."""
        learnt = cut_domain(photos("train", label), label, cutting, held_out=config.held_out, seed=config.seed)
        unseen = [sample for photo in photos("val", label) for sample in cut_samples(photo, cutting, {})]
        return learnt, unseen + list(learnt.held_out)

    def scores(domain: Domain, samples: Sequence[Sample], generator: SetGenerator | None = None) -> Tensor:
        """(views, 3): the mean score of every view by patches, window heads and instance heads."""
        rng = torch.Generator().manual_seed(0)
        rows = []
        shown = replace(domain, learning=tuple(samples))
        for number in range(math.ceil(len(samples) * given.repeats / 8)):
            batch = shown.batch(number, 8, seed=config.seed)
            image, masks = batch.image, batch.masks
            if generator is not None:
                step = translate_step(generator, image, masks, batch.valid, config.compositing)
                image, masks = step.image, step.masks
            active = batch.valid.any(dim=1)
            seen = Candidate(image, masks, batch.valid, active, int(batch.valid.sum(dim=1).max()))
            seen = seen.augmented(Augmentation.sample(len(image), rng) if config.augment else None)
            critic = networks.critic_target
            heads = [
                torch.stack([scale.flatten(1).mean(dim=1) for scale in scales]).mean(dim=0)
                for scales in critic.logits([seen], backbone)
            ]
            rows.append(torch.stack([critic.scores([seen])[0].flatten(1).mean(dim=1), *heads], dim=1))
        return torch.cat(rows)

    target, unseen_targets = both(settings["target"], config.data.of_target())
    source, unseen_sources = both(settings["source"], config.data)
    there = networks.source_to_target
    with torch.no_grad():
        table = {
            "real, learnt from": (len(target.learning), scores(target, target.learning)),
            "real, unseen": (len(unseen_targets), scores(target, unseen_targets)),
            "translated, learnt from": (len(source.learning), scores(source, source.learning, there)),
            "translated, unseen": (len(unseen_sources), scores(source, unseen_sources, there)),
        }
    print(f"{given.run} at step {state['step']}, {given.repeats} views of each window")
    print("| windows | N | " + " | ".join(f"{name} (share that looks real)" for name in JUDGES) + " |")
    print("|---" * (2 + len(JUDGES)) + "|")
    middles = torch.tensor([0.5, 0.0, 0.0])
    for name, (count, values) in table.items():
        mean, real = values.mean(dim=0).tolist(), (values > middles).float().mean(dim=0).tolist()
        cells = " | ".join(f"{m:.2f} ({r:.0%})" for m, r in zip(mean, real, strict=True))
        print(f"| {name} | {count} | {cells} |")
    learnt, unseen, _, false = (values.mean(dim=0) for _, values in table.values())
    memorised = ((learnt - unseen) / (learnt - false)).tolist()
    print("| memorised | | " + " | ".join(f"{value:.2f}" for value in memorised) + " |")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
