"""One training step: the sequential rollout of a batch of both domains, each part of it an optimiser step.

(PAPER.md, "Sequential mini-batch translation" and "Losses".) The step knows networks and losses; it knows no files, no
schedule and no progress.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from instapipe.data.samples import Batch
from instapipe.networks.blocks import frozen
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import losses
from instapipe.training.augment import Augmentation
from instapipe.training.config import TrainConfig
from instapipe.training.critics import Candidate, Critic
from instapipe.training.pool import FakePool
from instapipe.training.recomposite import recomposite
from instapipe.translation.step import StepResult, instance_steps, translate_step

Metrics = dict[str, float]
SIDES = ("source", "target")


class InstaGAN(nn.Module):
    """The two generators and the two critics of a run. A critic is named after the domain it judges."""

    def __init__(self, config: TrainConfig, channels: list[int], rng: torch.Generator) -> None:
        super().__init__()
        self.source_to_target = SetGenerator(config.generator)
        self.target_to_source = SetGenerator(config.generator)
        self.critic_target = Critic(config, channels, rng)
        self.critic_source = Critic(config, channels, rng)


@dataclass(slots=True, eq=False)
class Side:
    """One direction of the cycle while a batch is rolled out.

    batch: the samples this side starts from.  image: what the next step starts from.
    masks, valid: translated so far, (B, n, H, W) and (B, n).
    """

    name: str
    forward: SetGenerator
    backward: SetGenerator
    critic: Critic
    pool: FakePool
    batch: Batch
    image: Tensor
    masks: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a side's generators made in one step."""

    fake: Candidate
    step: StepResult
    losses: dict[str, Tensor]


class TrainingStep:
    """Call it with a batch of each domain; it advances networks, optimisers and pools, and returns the losses of every
    sequential iteration, already multiplied by their weights."""

    def __init__(
        self,
        config: TrainConfig,
        networks: InstaGAN,
        optimizer_generators: Optimizer,
        optimizer_critics: Optimizer,
        pools: dict[str, FakePool],
        backbone: FrozenBackbone | None = None,
        bfloat16: bool = False,
    ) -> None:
        self.config = config
        self.networks = networks
        self.optimizer_generators = optimizer_generators
        self.optimizer_critics = optimizer_critics
        self.pools = pools
        self.backbone = backbone
        self.bfloat16 = bfloat16

    def __call__(self, source: Batch, target: Batch, step: int, rng: torch.Generator) -> list[Metrics]:
        """One batch of each domain; `rng` (CPU) feeds augmentation and pools."""
        sides = self._sides(source, target)
        reals = self._reals(source, target, rng)
        longest = max(int(batch.valid.sum(dim=1).max()) for batch in (source, target))
        history = []
        for chosen in instance_steps(longest, self.config.data.instances_per_step):
            # The last step may reach over the padding: content losses are means over a fixed number of channels.
            chosen = range(chosen.start, chosen.start + self.config.data.instances_per_step)
            history.append(self._iteration(sides, reals, chosen, step, rng))
        return history

    def _sides(self, source: Batch, target: Batch) -> list[Side]:
        net = self.networks
        empty = [batch.masks[:, :0] for batch in (source, target)]
        none = [batch.valid[:, :0] for batch in (source, target)]
        return [
            Side(
                "source",
                net.source_to_target,
                net.target_to_source,
                net.critic_target,
                self.pools["target"],
                source,
                source.image,
                empty[0],
                none[0],
            ),
            Side(
                "target",
                net.target_to_source,
                net.source_to_target,
                net.critic_source,
                self.pools["source"],
                target,
                target.image,
                empty[1],
                none[1],
            ),
        ]

    def _reals(self, source: Batch, target: Batch, rng: torch.Generator) -> dict[str, Candidate]:
        """Real samples keep all their masks; some are put back together the way fakes are made."""
        share = self.config.recomposite_reals if self.config.compositing.mode == "matte" else 0.0
        out = {}
        for name, batch, other in (("source", source, target), ("target", target, source)):
            image = recomposite(batch, other, self.config.compositing, share, rng) if share else batch.image
            active = torch.ones(len(image), dtype=torch.bool, device=image.device)
            out[name] = Candidate(image, batch.masks, batch.valid, active)
        return out

    def _iteration(
        self, sides: list[Side], reals: dict[str, Candidate], chosen: range, step: int, rng: torch.Generator
    ) -> Metrics:
        """Generator step, then discriminator step, then hand over to the next iteration."""
        draws = [
            Augmentation.sample(len(side.image), rng) if self.config.augment else None
            for side in sides
            for _ in range(3)
        ]
        metrics: Metrics = {}
        outcomes: list[Outcome | None] = []
        self.optimizer_generators.zero_grad(set_to_none=True)
        with frozen(self.networks.critic_source, self.networks.critic_target):
            for side, draw in zip(sides, draws[0::3], strict=True):
                outcome = self._translate(side, chosen, draw, step)
                outcomes.append(outcome)
                if outcome is not None:
                    total = sum(outcome.losses.values(), start=torch.zeros((), device=side.image.device))
                    total.backward()  # type: ignore[no-untyped-call]
                    metrics |= {f"{side.name}/{name}": float(value.detach()) for name, value in outcome.losses.items()}
        self.optimizer_generators.step()
        self.optimizer_critics.zero_grad(set_to_none=True)
        for side, outcome, on_real, on_fake in zip(sides, outcomes, draws[1::3], draws[2::3], strict=True):
            if outcome is None:
                continue
            judged = "target" if side.name == "source" else "source"
            fake = outcome.fake.detach()
            pooled = Candidate(*side.pool.exchange(fake.image, fake.masks, fake.valid, rng), fake.active)
            with self._autocast():
                loss = side.critic.discriminator_loss(
                    reals[judged].augmented(on_real), pooled.augmented(on_fake), self.backbone
                )
            loss.backward()  # type: ignore[no-untyped-call]
            metrics[f"critic_{judged}"] = float(loss.detach())
        self.optimizer_critics.step()
        for side, outcome in zip(sides, outcomes, strict=True):
            if outcome is not None:
                side.image, side.masks, side.valid = (
                    outcome.step.image.detach(),
                    outcome.fake.masks.detach(),
                    outcome.fake.valid,
                )
        return metrics

    def _translate(self, side: Side, chosen: range, draw: Augmentation | None, step: int) -> Outcome | None:
        """There and back, with the losses of this side's generators; None where the whole batch has run out."""
        masks, valid = _take(side.batch.masks, -1.0, chosen), _take(side.batch.valid, False, chosen)
        active = valid.any(dim=1)
        if not bool(active.any()):
            return None
        config, weights = self.config, self.config.losses
        with self._autocast():
            there = translate_step(side.forward, side.image, masks, valid, config.compositing)
            back = translate_step(side.backward, there.image, there.masks, valid, config.compositing)
            fake = Candidate(
                there.image, torch.cat([side.masks, there.masks], dim=1), torch.cat([side.valid, valid], dim=1), active
            )
            weight = config.projected.weight if config.projected else 0.0
            out = {
                "adversarial": weights.adversarial
                * side.critic.generator_loss(fake.augmented(draw), self.backbone, weight)
            }
            out["cycle"] = weights.cycle * losses.cycle_consistency(
                side.image, masks, back.image, back.masks, active, weights.cycle_masks
            )
            if weights.identity and step % weights.identity_every == 0:
                same = translate_step(side.backward, side.image, masks, valid, config.compositing)
                out["identity"] = weights.identity * losses.cycle_consistency(
                    side.image, masks, same.image, same.masks, active, weights.cycle_masks
                )
            if weights.context:
                out["context"] = weights.context * self._context(side, masks, there, active)
        return Outcome(fake, there, out)

    def _context(self, side: Side, masks: Tensor, there: StepResult, active: Tensor) -> Tensor:
        if self.config.compositing.mode == "matte":
            # What lies outside the matte is exact already; this keeps the generator's own edges in line with it.
            weight = 1 - there.matte
            reference = there.background
        else:
            weight = losses.context_weight(masks, there.masks)
            reference = side.image
        if self.config.losses.detach_context:
            weight = weight.detach()
        return losses.context_preserving(reference, there.raw, weight, active)

    def _autocast(self) -> torch.autocast:
        device = next(self.networks.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.bfloat16)


def _take(values: Tensor, padding: float | bool, chosen: range) -> Tensor:
    """values[:, chosen], padded where `chosen` reaches over the end."""
    part = values[:, chosen.start : chosen.stop]
    missing = len(chosen) - part.shape[1]
    if missing:
        part = torch.cat([part, part.new_full((part.shape[0], missing, *part.shape[2:]), padding)], dim=1)
    return part
