"""Settings of a training run: `configs/train/*.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from instapipe.config import CompositingConfig, GeneratorConfig, Strict
from instapipe.data.domains import Cutting
from instapipe.data.gate import Gate


class DataSettings(Cutting):
    """Which samples there are, and how they are cut."""

    target_window_scale: float | None = Field(
        None,
        ge=1.0,
        le=4.0,
        description="window_scale of the target's instances, without window_height_scale and least_aspect; none: both "
        "the same. Where the target is the larger animal, a wider window around the source leaves it the room",
    )
    instances_per_step: int = Field(2, ge=1, le=64)
    balance: Literal["none", "match"] = Field(
        "none", description="`match`: instances are pasted in until both domains show as many of them"
    )
    exclude: tuple[str, ...] = Field((), description="file names of photos whose labels are wrong: never learnt from")
    gate: Gate = Field(Gate(), description="which masks are good enough, where photos without masks are segmented")

    def of_target(self) -> DataSettings:
        """How the target's samples are cut."""
        if self.target_window_scale is None:
            return self
        alone = {"window_scale": self.target_window_scale, "window_height_scale": 0.0, "least_aspect": 0.0}
        return self.model_copy(update=alone)


class ProjectedSettings(Strict):
    """Projected discriminators beside the set discriminator (`networks/projected.py`)."""

    backbone: str = "tf_efficientnet_lite0"
    min_side: int = Field(128, ge=32, le=512)
    weight: float = Field(0.5, ge=0, description="of each head's adversarial loss for the generator")


class LossWeights(Strict):
    """Factors of the generator's losses."""

    adversarial: float = Field(1.0, ge=0)
    cycle: float = Field(10.0, ge=0)
    cycle_masks: float = Field(1.0, ge=0, description="share of the masks inside the cycle and identity losses")
    identity: float = Field(10.0, ge=0)
    identity_every: int = Field(1, ge=1, description="identity loss in every n-th step only")
    context: float = Field(10.0, ge=0)
    detach_context: bool = Field(False, description="no gradient from the context loss into the masks")


class TrainConfig(Strict):
    """Everything that a run's result depends on."""

    steps: int = Field(400_000, ge=1, description="samples seen / batch size")
    batch_size: int = Field(1, ge=1, le=1024, description="samples that go through the networks at once")
    accumulate: int = Field(
        1, ge=1, le=1024, description="gradients of so many batches make one step, as of one bigger batch"
    )
    checkpointing: bool = Field(
        False, description="less memory for more time: what is inside the networks is computed again for the gradients"
    )
    seed: int = Field(0, ge=0)
    data: DataSettings = DataSettings()
    generator: GeneratorConfig = GeneratorConfig()
    compositing: CompositingConfig = CompositingConfig()
    discriminator_width: int = Field(64, ge=4, le=256)
    projected: ProjectedSettings | None = None
    losses: LossWeights = LossWeights()
    pool_size: int = Field(50, ge=0)
    augment: bool = Field(False, description="colour and translation on all that discriminators see")
    recomposite_reals: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the real samples cut out and put back the way fakes are made (`matte` only)",
    )
    learning_rate: float = Field(2e-4, gt=0)
    critics_first: int = Field(
        0, ge=0, description="steps in which the discriminators catch up with generators that start from weights"
    )
    betas_generator: tuple[float, float] = (0.5, 0.999)
    betas_discriminator: tuple[float, float] = (0.5, 0.999)
    decay_from: float = Field(0.5, ge=0, le=1, description="share of the run after which the rate falls linearly to 0")
    minutes: float = Field(
        0,
        ge=0,
        description="the run ends by then, the rate having fallen as it would over all steps; 0: by steps alone. What "
        "comes out depends on how fast the machine is",
    )
    ema: float = Field(0.0, ge=0, lt=1, description="moving average of the generators; 0: none")
    ema_seen: int = Field(
        0, ge=0, description="steps that the weights of --from have had: the average's warm-up counts them"
    )
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    held_out: int = Field(8, ge=1, description="photos of each domain kept for the sample grids, never learnt from")
    sample_every: int = Field(500, ge=1)
    save_every: int = Field(500, ge=1)
    validate_every: int = Field(0, ge=0, description="steps between held-out scores, the best kept; 0: none")
    tensorboard: bool = Field(False, description="event files beside the log")
    compile: bool = Field(False, description="torch.compile the generators, where a compiler works")
    keep: int = Field(2, ge=1, description="how many of the newest checkpoints are kept")

    @model_validator(mode="after")
    def _masks_fit(self) -> TrainConfig:
        if self.data.masks == "none" and self.compositing.mode != "whole":
            raise ValueError("data.masks: none needs compositing.mode: whole, there is no mask to composite by")
        return self
