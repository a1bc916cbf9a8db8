"""Settings of the compact Mask R-CNN and of its training. No torch."""

from __future__ import annotations

from pydantic import Field

from instapipe.config import Strict


class CompactSettings(Strict):
    """The form of a compact Mask R-CNN; kept in the card of its weights."""

    backbone: str = Field("tf_efficientnet_lite0", description="timm name; see networks/backbone.py")
    channels: int = Field(96, ge=8, le=512, description="channels of the feature pyramid")
    box_width: int = Field(256, ge=8, le=2048, description="width of the two hidden layers of the box head")
    mask_width: int = Field(64, ge=8, le=512, description="channels of the mask head")
    mask_layers: int = Field(3, ge=1, le=8, description="3x3 convolutions of the mask head before it upsamples")
    mask_grid: int = Field(20, ge=7, le=56, description="cells of the mask head's input; the mask has twice as many")
    short_side: int = Field(288, ge=64, le=2048, description="a photo is resized to this for the network")
    long_side: int = Field(480, ge=64, le=4096, description="but to no longer side than this")
    mirrored: bool = Field(False, description="look at each photo mirrored as well, and take the mean of both")


class AugmentSettings(Strict):
    """What is done to a training photo."""

    scale: tuple[float, float] = Field((0.6, 1.8), description="longer side of the photo over side of the canvas")
    flip: float = Field(0.5, ge=0, le=1)
    colour: float = Field(0.3, ge=0, le=1, description="range of brightness, contrast and saturation")
    grey: float = Field(0.05, ge=0, le=1, description="share of photos without colour")
    blur: float = Field(0.15, ge=0, le=1, description="share of photos blurred or made blocky")
    paste: float = Field(0.5, ge=0, le=1, description="share of photos that get instances of other photos")
    pasted: tuple[int, int] = Field((1, 4), description="how many")
    neighbours: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of them that are copies of an animal that is there, beside it or another of its class",
    )
    pasted_side: tuple[float, float] = Field((0.12, 0.6), description="longer side of a pasted one over the canvas")


class CardTexts(Strict):
    """What only a person knows about the weights, for their card."""

    data: str = ""
    provenance: str = ""
    limits: str = ""
    licence: str = ""


class SegmenterTraining(Strict):
    """`instapipe train-segmenter`."""

    network: CompactSettings = CompactSettings()
    augment: AugmentSettings = AugmentSettings()
    margin: float = Field(
        0.0, ge=0, le=0.5, description="room around a mask in the box that is learnt, over the mask's side"
    )
    steps: int = Field(2000, ge=1)
    batch: int = Field(4, ge=1, le=256)
    canvas: tuple[int, ...] = Field((256, 320), description="sides of the square canvases; each step draws one")
    learning_rate: float = Field(6e-4, gt=0)
    backbone_rate: float = Field(0.3, ge=0, le=1, description="learning rate of the backbone over that of the rest")
    frozen_levels: int = Field(1, ge=0, le=3, description="levels of the backbone that keep their ImageNet weights")
    weight_decay: float = Field(0.03, ge=0)
    warmup: int = Field(100, ge=0, description="steps of linear warm-up; a cosine to zero follows")
    clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.998, ge=0, lt=1, description="averaging of the weights that are kept")
    keep: float = Field(
        0.0, ge=0, lt=1, description="share of the weights that a run started from in those that it exports"
    )
    checkpoint_every: int = Field(250, ge=1)
    card: CardTexts = CardTexts()
