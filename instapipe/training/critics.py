"""What judges one domain: the paper's set discriminator, and projected heads beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from instapipe.networks.blocks import initialise
from instapipe.networks.discriminator import SetDiscriminator
from instapipe.networks.projected import FrozenBackbone, ProjectedHeads
from instapipe.training import losses
from instapipe.training.augment import Augmentation
from instapipe.training.config import TrainConfig


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What a critic looks at. image (B, 3, H, W), masks (B, N, H, W) in [-1, 1], valid (B, N), active bool (B,).

    most: the largest number of valid masks in the batch that this one is a part of.
    """

    image: Tensor
    masks: Tensor
    valid: Tensor
    active: Tensor
    most: int

    def detach(self) -> Candidate:
        """Without gradient."""
        return replace(self, image=self.image.detach(), masks=self.masks.detach())

    def augmented(self, augmentation: Augmentation | None) -> Candidate:
        """Image and masks by the same draw."""
        if augmentation is None:
            return self
        return replace(self, image=augmentation.image(self.image), masks=augmentation.masks(self.masks))

    def union(self) -> Tensor:
        """The soft union of the valid masks, (B, 1, H, W) in [0, 1]."""
        mattes = (self.masks + 1) / 2 * self.valid[:, :, None, None]
        return 1 - (1 - mattes).prod(dim=1, keepdim=True)


class Critic(nn.Module):
    """The discriminators of one domain.

    The backbone is shared between critics and belongs to none of them: it is passed in at each call.
    """

    def __init__(self, config: TrainConfig, channels: list[int], rng: torch.Generator) -> None:
        super().__init__()
        self.patches = SetDiscriminator(config.discriminator_width)
        self.heads = nn.ModuleDict()
        if config.projected is not None:
            self.heads["window"] = ProjectedHeads(channels, rng, mask_channel=True)
            self.heads["instance"] = ProjectedHeads(channels, rng, mask_channel=False)
        initialise(self.patches, rng)
        for heads in self.heads.values():
            assert isinstance(heads, ProjectedHeads)
            initialise(heads.heads, rng)

    def logits(self, candidates: list[Candidate], backbone: FrozenBackbone | None) -> list[list[Tensor]]:
        """The projected heads' logits for all candidates stacked, by head and scale.

        One head sees the whole window with its mask, the other the instance alone on grey. All go through the backbone
        in one batch: small batches leave a CPU's matrix units idle.
        """
        if backbone is None:
            return []
        image = torch.cat([candidate.image for candidate in candidates])
        union = torch.cat([candidate.union() for candidate in candidates])
        both = backbone(torch.cat([image, image * union]))
        parts = {"window": slice(None, len(image)), "instance": slice(len(image), None)}
        return [heads([feature[parts[name]] for feature in both], union) for name, heads in self.heads.items()]

    def generator_loss(self, fake: Candidate, backbone: FrozenBackbone | None, weight: float) -> Tensor:
        """What the generator minimises: LSGAN on the patches plus `weight` x hinge on each scale of each head."""
        (scores,) = self.scores([fake])
        loss = losses.least_squares(scores, 1.0, fake.active)
        for logits in self.logits([fake], backbone):
            loss = loss + weight * losses.hinge_generator(logits, fake.active)
        return loss

    def discriminator_loss(self, real: Candidate, fake: Candidate, backbone: FrozenBackbone | None) -> Tensor:
        """Half the sum over real and fake, as in the original; the heads' hinge losses are added as they are."""
        of_real, of_fake = self.scores([real, fake])
        on_real = losses.least_squares(of_real, 1.0, fake.active)
        on_fake = losses.least_squares(of_fake, 0.0, fake.active)
        loss = 0.5 * (on_real + on_fake)
        for logits in self.logits([real, fake], backbone):
            halves = [scale.chunk(2) for scale in logits]
            loss = loss + losses.hinge_real([half[0] for half in halves], fake.active)
            loss = loss + losses.hinge_fake([half[1] for half in halves], fake.active)
        return loss

    def scores(self, candidates: list[Candidate]) -> tuple[Tensor, ...]:
        """The patch scores (B, 1, h, w) of the set discriminator for one candidate after the other: 1 looks real, 0
        translated."""
        return self.patches.in_a_row([(each.image, each.masks, each.valid, each.most) for each in candidates])
