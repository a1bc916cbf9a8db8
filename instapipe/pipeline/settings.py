"""What a translation is asked to be: the options of `instapipe translate`, in one frozen model."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from instapipe.config import Strict
from instapipe.errors import ConfigError
from instapipe.filtering import FilterSettings, Order, area_in_pixels
from instapipe.imaging.windows import MOST_TRIES

DEFAULT_SCORE = 0.5
Region = Literal["auto", "whole", "instance"]


class TranslateSettings(Strict):
    """Also the form of `configs/translate/*.yaml`; options on the command line win over the file."""

    source: str = Field(min_length=1, description="class that is translated")
    target: str = Field(min_length=1, description="class that it becomes")
    weights: str | None = Field(None, description="translator: a bundled name or a path; none: by the pair of classes")
    segmenter: str | None = Field(None, description="segmenter: a name or a path; none: a bundled one with the class")
    region: Region = Field("auto", description="auto: instance where the photo is larger than the model, else whole")
    background: Literal["natural", "exact"] = Field("natural", description="exact: only masks and a seam may change")
    seam: int = Field(5, ge=0, le=64, description="width of the seam of an exact background, model pixels")
    size: tuple[int, int] | None = Field(None, description="(H, W) that the model works at; none: the weights' own")
    device: str = Field("auto", description="cpu, cuda or auto")
    engine: str = Field("auto", description="what runs the generator")
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field("auto", description="of the generator")
    instances_per_step: int | None = Field(None, ge=1, le=64, description="none: as the weights were trained")
    tries: int | None = Field(
        None,
        ge=1,
        le=MOST_TRIES,
        description="translations of an instance, by several windows and round trips, of which the best outline stays; "
        "none: 19 where the weights have a grader (8 without a way back), else 1",
    )
    upscale: bool = Field(
        True,
        description="give detail to what is enlarged, where the weights have an upscaler",
    )
    score: float | None = Field(
        None, ge=0.0, le=1.0, description="lowest score; none: 0.5 for a segmenter's masks, 0 for masks that were given"
    )
    min_area: str = Field("0", description="smallest mask: pixels (400) or a share of the photo (0.5%)")
    duplicates: float = Field(0.8, gt=0.0, le=1.0, description="masks with more IoU than this are one instance")
    order: Order = Field("size", description="what is translated first")
    seed: int = Field(0, ge=0, description="of --order random")
    max_instances: int = Field(20, ge=0, description="at most this many a photo")
    keep: tuple[int, ...] | None = Field(None, description="only these numbers")
    drop: tuple[int, ...] = Field((), description="not these numbers")

    @field_validator("size")
    @classmethod
    def _size(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not all(8 <= side <= 4096 for side in value):
            raise ValueError("sides must be 8 to 4096 pixels")
        return value

    @field_validator("min_area")
    @classmethod
    def _min_area(cls, value: str) -> str:
        area_in_pixels(value, (1, 1))
        return value

    def filter(self, *, given: bool) -> FilterSettings:
        """The part that chooses instances; `given`: of masks that the user has. Raises ConfigError."""
        usual = 0.0 if given else DEFAULT_SCORE
        return FilterSettings(
            label=self.source,
            score=usual if self.score is None else self.score,
            min_area=self.min_area,
            duplicates=self.duplicates,
            order=self.order,
            seed=self.seed,
            max_instances=self.max_instances,
            keep=self.keep,
            drop=self.drop,
        )


def parse_size(text: str) -> tuple[int, int]:
    """ "240x320" -> (240, 320), height first. Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text)
    if match is None:
        raise ConfigError(f"size must be HEIGHTxWIDTH, such as 240x320, got {text!r}")
    return int(match[1]), int(match[2])


def parse_numbers(text: str) -> tuple[int, ...]:
    """ "1,3" -> (1, 3). Raises ConfigError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"instances must be numbers such as 1,3, got {text!r}")
    return tuple(int(part) for part in parts)
