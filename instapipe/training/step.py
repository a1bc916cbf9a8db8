"""One training step: the sequential rollout of a batch of both domains, each part of it an optimiser step.

(PAPER.md, "Sequential mini-batch translation" and "Losses".) The step knows networks and losses; it knows no files, no
schedule and no progress.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from instapipe.data.samples import Batch
from instapipe.networks.blocks import Vectors, frozen
from instapipe.networks.generator import SetGenerator
from instapipe.networks.projected import FrozenBackbone
from instapipe.training import losses
from instapipe.training.augment import Augmentation
from instapipe.training.config import TrainConfig
from instapipe.training.critics import Candidate, Critic
from instapipe.training.pool import FakePool
from instapipe.training.recomposite import recomposite
from instapipe.training.rollout import Part, Rollout, Side
from instapipe.training.team import Team
from instapipe.translation.inpainting import union
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


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a side's generators made in one step."""

    fake: Candidate
    step: StepResult
    losses: dict[str, Tensor]


class TrainingStep:
    """Call it with a batch of each domain; it advances networks, optimisers and pools, and returns the losses of every
    sequential iteration, already multiplied by their weights.

    The batch is divided evenly among the processes of the `team`, and there into `config.accumulate` parts. Whatever
    the division, the result is that of the whole batch at once, up to rounding: losses are means over a fixed number of
    samples, draws are made for the whole batch, and the spectral-norm vectors take as many power iterations in every
    part as they would in the whole.
    """

    def __init__(
        self,
        config: TrainConfig,
        networks: InstaGAN,
        optimizer_generators: Optimizer,
        optimizer_critics: Optimizer,
        pools: dict[str, FakePool],
        backbone: FrozenBackbone | None = None,
        bfloat16: bool = False,
        team: Team | None = None,
    ) -> None:
        self.config = config
        self.networks = networks
        self.optimizer_generators = optimizer_generators
        self.optimizer_critics = optimizer_critics
        self.pools = pools
        self.backbone = backbone
        self.bfloat16 = bfloat16
        self.device = next(networks.parameters()).device
        self.team = team or Team(self.device)

    def __call__(self, source: Batch, target: Batch, step: int, rng: torch.Generator) -> list[Metrics]:
        """One batch of each domain, whole, on the CPU; `rng` (CPU, the same in all processes) feeds augmentation and
        pools. The losses returned are those of this process's samples."""
        rollout = self.rollout(source, target, rng)
        longest = max(int(valid.sum(dim=1).max()) for valid in rollout.valid.values())
        history = []
        for chosen in instance_steps(longest, self.config.data.instances_per_step):
            # The last step may reach over the padding: content losses are means over a fixed number of channels.
            chosen = range(chosen.start, chosen.start + self.config.data.instances_per_step)
            history.append(self.iteration(rollout, chosen, step, rng))
        return history

    def rollout(self, source: Batch, target: Batch, rng: torch.Generator) -> Rollout:
        """The batch before its first iteration. Real samples keep all their masks; some are put back together the way
        fakes are made."""
        size = len(source.image)
        share = self.config.recomposite_reals if self.config.compositing.mode == "matte" else 0.0
        chosen = {name: torch.rand(size, generator=rng) < share if share else None for name in SIDES}
        valid = {"source": source.given.valid, "target": target.given.valid}
        shown = {"source": source.valid, "target": target.valid}
        parts = []
        for where in self._division(size):
            one, two = source.part(where).to(self.device), target.part(where).to(self.device)
            reals = {}
            for name, batch, other in (("source", one, two), ("target", two, one)):
                draw = chosen[name]
                image = batch.image if draw is None else recomposite(batch, other, self.config.compositing, draw[where])
                active = torch.ones(len(image), dtype=torch.bool, device=image.device)
                masks, there = self._judged(batch.masks, batch.valid)
                reals[name] = Candidate(image, masks, there, active, _most(shown[name]))
            parts.append(Part(where, self._sides(one.given, two.given), reals))
        return Rollout(parts, valid, size)

    def iteration(self, rollout: Rollout, chosen: range, step: int, rng: torch.Generator) -> Metrics:
        """Generator step, then discriminator step, then hand over to the next iteration."""
        draws = [
            Augmentation.sample(rollout.size, rng) if self.config.augment else None for _ in SIDES for _ in range(3)
        ]
        metrics: Metrics = {}
        outcomes: list[list[Outcome]] = []
        self.optimizer_generators.zero_grad(set_to_none=True)
        with frozen(self.networks.critic_source, self.networks.critic_target):
            for number, draw in enumerate(draws[0::3]):
                outcomes.append(self._generators(rollout, number, chosen, draw, step, metrics))
        self._advance(self.optimizer_generators)
        self.optimizer_critics.zero_grad(set_to_none=True)
        running = [number for number, made in enumerate(outcomes) if made]
        for number in running:
            self._critics(rollout, number, outcomes[number], draws[3 * number + 1 : 3 * number + 3], rng, metrics)
        self._advance(self.optimizer_critics)
        for number in running:
            for part, outcome in zip(rollout.parts, outcomes[number], strict=True):
                side = part.sides[number]
                side.image, side.masks = outcome.step.image.detach(), outcome.fake.masks.detach()
                side.valid = outcome.fake.valid
        return metrics

    def _division(self, size: int) -> list[slice]:
        """The parts of this process."""
        own, count = self.team.own(size), self.config.accumulate
        each = (own.stop - own.start) // count
        if each * count * self.team.size != size:
            raise ValueError(f"a batch of {size} cannot be divided among {self.team.size} x {count}")
        return [slice(own.start + k * each, own.start + (k + 1) * each) for k in range(count)]

    def _sides(self, source: Batch, target: Batch) -> tuple[Side, Side]:
        net = self.networks
        generators = (net.source_to_target, net.target_to_source)
        critics = (net.critic_target, net.critic_source)
        one, two = (
            Side(name, there, back, critic, batch, batch.image, batch.masks[:, :0], batch.valid[:, :0])
            for name, there, back, critic, batch in zip(
                SIDES, generators, generators[::-1], critics, (source, target), strict=True
            )
        )
        return one, two

    def _generators(
        self,
        rollout: Rollout,
        number: int,
        chosen: range,
        draw: Augmentation | None,
        step: int,
        metrics: Metrics,
    ) -> list[Outcome]:
        """There and back for one side, with its gradients; nothing where the whole batch has run out."""
        whole = rollout.valid[SIDES[number]]
        if not bool(whole[:, chosen.start : chosen.stop].any()):
            return []
        made = []
        for part in self._in_turn(rollout, number):
            side = part.sides[number]
            outcome = self._translate(side, chosen, _of(draw, part), step, _most(whole[:, : chosen.stop]))
            total = sum(outcome.losses.values(), start=torch.zeros((), device=self.device)) / len(rollout.parts)
            if total.requires_grad:  # no sample of this part may be left
                total.backward()  # type: ignore[no-untyped-call]
            for name, value in outcome.losses.items():
                _add(metrics, f"{side.name}/{name}", value, rollout)
            made.append(outcome)
        return made

    def _critics(
        self,
        rollout: Rollout,
        number: int,
        outcomes: list[Outcome],
        draws: list[Augmentation | None],
        rng: torch.Generator,
        metrics: Metrics,
    ) -> None:
        """The gradients of the critic that judges what one side made."""
        judged = SIDES[1 - number]
        fakes = self._pooled(rollout, judged, [outcome.fake.detach() for outcome in outcomes], rng)
        for part, fake in zip(self._in_turn(rollout, number), fakes, strict=True):
            real = part.reals[judged].augmented(_of(draws[0], part))
            with self._autocast():
                loss = part.sides[number].critic.discriminator_loss(
                    real, fake.augmented(_of(draws[1], part)), self.backbone
                )
            (loss / len(rollout.parts)).backward()  # type: ignore[no-untyped-call]
            _add(metrics, f"critic_{judged}", loss, rollout)

    def _in_turn(self, rollout: Rollout, number: int) -> Iterator[Part]:
        """Part after part; the critic of side `number` starts each from the same spectral-norm vectors."""
        vectors = Vectors(rollout.parts[0].sides[number].critic) if len(rollout.parts) > 1 else None
        for place, part in enumerate(rollout.parts):
            if vectors is not None and place:
                vectors.restore()
            yield part

    def _pooled(self, rollout: Rollout, judged: str, fakes: list[Candidate], rng: torch.Generator) -> list[Candidate]:
        """Each part's fakes, some exchanged for past ones. All processes keep the same pool of everyone's fakes."""
        pool = self.pools[judged]
        if not pool.size:
            return fakes
        image, masks, valid, active = (
            self.team.gather(torch.cat([getattr(fake, name) for fake in fakes]))
            for name in ("image", "masks", "valid", "active")
        )
        image, masks, valid = pool.exchange(image, masks, valid, active, rng)
        places = [part.where for part in rollout.parts]
        return [
            Candidate(image[where], masks[where], valid[where], fake.active, _most(valid))
            for where, fake in zip(places, fakes, strict=True)
        ]

    def _advance(self, optimizer: Optimizer) -> None:
        self.team.average_gradients(p for group in optimizer.param_groups for p in group["params"])
        optimizer.step()

    def _translate(self, side: Side, chosen: range, draw: Augmentation | None, step: int, most: int) -> Outcome:
        """There and back, with the losses of this side's generators."""
        masks, valid = _take(side.batch.masks, -1.0, chosen), _take(side.batch.valid, False, chosen)
        wanted = _take(side.batch.right, -1.0, chosen)
        active = valid.any(dim=1)
        config, weights = self.config, self.config.losses
        painted = union(side.masks, side.valid)
        with self._autocast():
            there = translate_step(side.forward, side.image, masks, valid, config.compositing, painted)
            # Without masks, the frame that stands for them goes both ways as it is.
            returned = masks if config.data.masks == "none" else there.masks
            back = translate_step(side.backward, there.image, returned, valid, config.compositing, painted)
            so_far = self._judged(torch.cat([side.masks, there.masks], dim=1), torch.cat([side.valid, valid], dim=1))
            fake = Candidate(there.image, *so_far, active, most)
            weight = config.projected.weight if config.projected else 0.0
            out = {
                "adversarial": weights.adversarial
                * side.critic.generator_loss(fake.augmented(draw), self.backbone, weight)
            }
            out["cycle"] = weights.cycle * losses.cycle_consistency(
                side.image, wanted, back.image, back.masks, active, weights.cycle_masks
            )
            if weights.identity and step % weights.identity_every == 0:
                same = translate_step(side.backward, side.image, masks, valid, config.compositing, painted)
                out["identity"] = weights.identity * losses.cycle_consistency(
                    side.image, wanted, same.image, same.masks, active, weights.cycle_masks
                )
            if weights.context:
                out["context"] = weights.context * self._context(side, wanted, there, active)
        return Outcome(fake, there, out)

    def _judged(self, masks: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The masks that a critic sees: none where the run is to have none."""
        return (masks[:, :0], valid[:, :0]) if self.config.data.masks == "none" else (masks, valid)

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
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)


def _take(values: Tensor, padding: float | bool, chosen: range) -> Tensor:
    """values[:, chosen], padded where `chosen` reaches over the end."""
    part = values[:, chosen.start : chosen.stop]
    missing = len(chosen) - part.shape[1]
    if missing:
        part = torch.cat([part, part.new_full((part.shape[0], missing, *part.shape[2:]), padding)], dim=1)
    return part


def _of(draw: Augmentation | None, part: Part) -> Augmentation | None:
    return None if draw is None else draw.part(part.where)


def _most(valid: Tensor) -> int:
    """The largest number of masks that a sample has, of valid (B, N)."""
    return int(valid.sum(dim=1).max())


def _add(metrics: Metrics, name: str, value: Tensor, rollout: Rollout) -> None:
    """The part's loss as its share of the mean over all parts."""
    metrics[name] = metrics.get(name, 0.0) + float(value.detach()) / len(rollout.parts)
