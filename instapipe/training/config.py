"""Settings of a training run: `configs/train/*.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from instapipe.config import CompositingConfig, GeneratorConfig, Strict
from instapipe.data.gate import Gate


class DataSettings(Strict):
    """How samples are cut from the photos.

    `photo`: the whole photo, resized to `load_size` squared, a random crop of `size` (the paper).
    `window`: a square of `window_scale` x the longer side of an instance's box, with a random crop.
    """

    mode: Literal["photo", "window"] = "photo"
    size: int = Field(200, ge=16, le=1024, multiple_of=4, description="side of a training sample, pixels")
    load_size: int = Field(220, ge=16, le=1280, description="side before the random crop, pixels")
    window_scale: float = Field(1.25, ge=1.0, le=4.0)
    max_instances: int = Field(4, ge=1, le=64)
    instances_per_step: int = Field(2, ge=1, le=64)
    order: Literal["largest", "smallest", "random"] = "largest"
    min_side: int = Field(0, ge=0, description="instances whose box has no side this long are not learnt from, pixels")
    max_cut: float = Field(1.0, ge=0, le=1, description="share of the box's outline that may lie on the photo's border")
    max_company: float = Field(
        1.0, ge=0, le=1, description="share of the window that other instances of the class may cover (`window` only)"
    )
    balance: Literal["none", "match"] = Field(
        "none", description="`match`: instances are pasted in until both domains show as many of them"
    )
    exclude: tuple[str, ...] = Field((), description="file names of photos whose labels are wrong: never learnt from")
    gate: Gate = Field(Gate(), description="which masks are good enough, where photos without masks are segmented")

    @model_validator(mode="after")
    def _crop_fits(self) -> DataSettings:
        if self.load_size < self.size:
            raise ValueError(f"load_size {self.load_size} is smaller than size {self.size}")
        return self


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
    batch_size: int = Field(1, ge=1, le=1024)
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
    decay_from: float = Field(
        0.5, ge=0, le=1, description="share of the steps after which the rate falls linearly to 0"
    )
    ema: float = Field(0.0, ge=0, lt=1, description="moving average of the generators; 0: none")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    held_out: int = Field(8, ge=1, description="photos of each domain kept for the sample grids, never learnt from")
    sample_every: int = Field(500, ge=1)
    save_every: int = Field(500, ge=1)
