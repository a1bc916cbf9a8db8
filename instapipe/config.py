"""Settings and cards as frozen pydantic models; YAML read strictly.

A *card* describes a set of weights: `card.json` in a folder beside its safetensors files. The folders of the installed
`weights/` together are the bundled index.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from instapipe.errors import ConfigError

Direction = Literal["source_to_target", "target_to_source"]
Shown = Literal["instances", "union", "none"]
"""What networks are shown of a photo's masks: each (InstaGAN), all in one (CycleGAN with segmentation), or nothing
(CycleGAN: a frame, the same for every photo, stands where a mask must be)."""
Facing = Literal["any", "right"]
"""How the animals of the training windows look: as photographed, or mirrored so that all look right."""
Placement = Literal["centre", "ground"]
"""Where in its window an animal's box lies: around the middle, or with the feet always at the same height."""
M = TypeVar("M", bound=BaseModel)


def direction_named(text: str) -> Direction:
    """The direction that somebody named. Raises ConfigError."""
    if text == "source_to_target":
        return "source_to_target"
    if text == "target_to_source":
        return "target_to_source"
    raise ConfigError(f"--direction must be source_to_target or target_to_source, got {text!r}")


def opposite(direction: Direction) -> Direction:
    """The way back."""
    return "target_to_source" if direction == "source_to_target" else "source_to_target"


class Strict(BaseModel):
    """Frozen; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GeneratorConfig(Strict):
    """The form of a set generator.

    `paper`: all residual blocks in the encoders, transposed convolutions, instance norm without affine (PAPER.md).
    `resize`: some blocks before and some after the sum, nearest-neighbour upsampling, instance norm with affine.
    """

    form: Literal["paper", "resize"] = "paper"
    width: int = Field(64, ge=4, le=512, description="channels after the first convolution (ngf)")
    encoder_blocks: int = Field(9, ge=0, le=32, description="residual blocks in each encoder")
    decoder_blocks: int = Field(
        0, ge=0, le=32, description="residual blocks in each decoder, after the sum (`resize` only)"
    )
    image_decoder_width: int = Field(
        0, ge=0, le=2048, description="channels at 1/4 resolution in the image decoder; 0: 4 x width (`resize` only)"
    )
    mask_decoder_width: int = Field(0, ge=0, le=2048, description="the same in the mask decoder")
    aggregation: Literal["sum", "mean", "attention"] = "sum"


class CompositingConfig(Strict):
    """How a generated window becomes part of the photo, in training and in translation alike.

    `whole`: the generator's image replaces the window (the paper).
    `matte`: `m * generated + (1 - m) * background`, m the returned masks in [0, 1], softened; background the window
    with the old instances removed: in training by OpenCV's inpainting at the model's size, in translation by patches of
    the photo itself at its own scale (`imaging.filling`).
    """

    mode: Literal["whole", "matte"] = "whole"
    soften: int = Field(3, ge=1, le=15, description="width of the matte's softening, model pixels (odd)")
    dilate: int = Field(5, ge=0, le=31, description="the old mask is grown by this before inpainting, model pixels")
    inpaint_radius: int = Field(3, ge=1, le=15, description="radius of training's inpainting, model pixels")


def plain_name(name: str) -> str:
    """`name`, where it names a file or folder without saying where that is. Raises ValueError."""
    if not name or name.startswith(".") or any(character in name for character in "/\\:\0"):
        raise ValueError("no plain file name: expected the name of a file beside the card")
    return name


FileName = Annotated[str, AfterValidator(plain_name)]
"""Of a file beside a card, no path: whoever copies weights must not be led elsewhere."""


class AttachedFile(Strict):
    """A file beside a card."""

    file: FileName
    sha256: str


class DirectionFile(AttachedFile):
    """One generator's file. dtype: of its weights in the file; they are computed with in float32 and less."""

    dtype: Literal["float16", "float32", "int8"]


class Card(Strict):
    """What every card says: where weights are from, what they measured, and what they may be used for."""

    format: Literal[1] = 1
    name: str
    data: str = ""
    provenance: str = ""
    recipe: str = ""
    steps: int = 0
    hardware: str = ""
    time: str = ""
    quality: dict[str, Any] = {}
    limits: str = ""
    licence: str = ""


class TranslatorCard(Card):
    """What there is to know about a pair of set generators."""

    kind: Literal["translator"] = "translator"
    source: str
    target: str
    generator: GeneratorConfig
    compositing: CompositingConfig = CompositingConfig()
    size: tuple[int, int] | None = Field(None, description="(H, W) of the windows that the weights work at; none: any")
    window_scale: float = Field(1.25, ge=1.0, le=4.0, description="window side / longer side of the instances' box")
    window_height_scale: float = Field(
        0, ge=0, le=4.0, description="window height / height of the instances' box, at least: room above a front view"
    )
    least_aspect: float = Field(
        0, ge=0, le=4.0, description="width / height of the instances' box at least, as shown: front views are widened"
    )
    target_window_scale: float | None = Field(
        None,
        ge=1.0,
        le=4.0,
        description="window_scale of what the way back starts from, without window_height_scale and least_aspect; "
        "none: both the same",
    )
    target_size: tuple[int, int] | None = Field(
        None,
        description="(H, W) of windows of photos for the way back, round trips stay at `size`; none: both the same",
    )
    target_round_trips: int = Field(
        0, ge=0, le=4, description="after how many round trips what the way back makes of a photo's instance is taken"
    )
    placement: Placement = Field("centre", description="where in its window the box of the instances lies")
    instances_per_step: int = Field(2, ge=1, le=64)
    masks: Shown = Field("instances", description="what the generators are shown of the masks, as in training")
    facing: Facing = Field("any", description="`right`: windows are mirrored so that the animal looks right, and back")
    also_from: tuple[str, ...] = Field(
        (), description="classes that it was never trained on, but measured to translate into the target"
    )
    directions: dict[Direction, DirectionFile]
    grader: AttachedFile | None = Field(
        None, description="what chooses, by outline, among several tries of `source_to_target`; none: nothing does"
    )
    upscaler: AttachedFile | None = Field(
        None, description="what gives detail to what `source_to_target` made where it is enlarged; none: nothing does"
    )

    @property
    def files(self) -> list[AttachedFile]:
        """All that lie beside the card."""
        return [*self.directions.values(), *(each for each in (self.grader, self.upscaler) if each is not None)]

    def size_of(self, direction: Direction) -> tuple[int, int] | None:
        """(H, W) of the windows that a direction starts from; None: any."""
        return self.target_size if direction == "target_to_source" and self.target_size else self.size

    @property
    def paints_outlines(self) -> bool:
        """Whether each instance gets an outline of its own, feet on the ground: what a grader can choose by."""
        return self.placement == "ground" and self.compositing.mode == "matte" and self.masks == "instances"


class SegmenterCard(Card):
    """What there is to know about a segmenter's weights."""

    kind: Literal["segmenter"] = "segmenter"
    architecture: Literal["compact_maskrcnn"] = "compact_maskrcnn"
    settings: dict[str, Any] = {}
    classes: tuple[str, ...]
    file: FileName
    sha256: str
    dtype: Literal["float16", "float32"]


def explain(error: ValidationError, where: str) -> str:
    """One line out of pydantic's many."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "(top level)"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    got = f"; got {first['input']!r}" if first["type"] != "missing" else ""
    return f"{where}: {field}: {first['msg']}{got}{more}"


def read_yaml(path: Path, model: type[M], overrides: dict[str, Any] | None = None, bases: Path | None = None) -> M:
    """`path` as a `model`; `overrides` (dotted names allowed) win over the file.

    A file may name another one, `base: NAME`, and say only what differs: `NAME.yaml` beside it or in the folder
    `bases`, or a path. Raises ConfigError for a missing file, bad YAML, unknown fields and values out of range.
    """
    content = _content(path, bases, ())
    for name, value in (overrides or {}).items():
        put(content, name, value)
    return build(model, content, f"config {str(path)!r}")


def parse_yaml(text: str | bytes) -> Any:
    """What `text` says, as data. Raises ValueError where it is no YAML: PyYAML raises errors of many kinds."""
    import yaml

    try:
        return yaml.safe_load(text)
    except Exception as error:
        raise ValueError(str(error)) from error


def _content(path: Path, bases: Path | None, above: tuple[Path, ...]) -> dict[str, Any]:
    """The mapping in `path`, laid over those that it is based on; `above`: the files that led here."""

    try:
        content = parse_yaml(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"cannot read config {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"config {str(path)!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config {str(path)!r} must be a mapping of settings, got {type(content).__name__}")
    base = content.pop("base", None)
    if base is None:
        return content
    above = (*above, path.resolve())
    folders = [path.parent] if bases is None else [path.parent, bases]
    found = [place for folder in folders for place in (folder / f"{base}.yaml", folder / str(base)) if place.is_file()]
    found = [place for place in found if place.resolve() not in above]
    if not found:
        known = ", ".join(sorted({each.stem for folder in folders for each in folder.glob("*.yaml")} - {path.stem}))
        raise ConfigError(f"config {str(path)!r}: no base {base!r} that is not based on it; known: {known or 'none'}")
    return _laid_over(_content(found[0], bases, above), content)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` where it says something, else `below`; groups of settings are merged."""
    merged = dict(below)
    for name, value in above.items():
        before = merged.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _laid_over(before or {}, value) if both else value
    return merged


def build(model: type[M], content: dict[str, Any], where: str) -> M:
    """`content` as a `model`; raises ConfigError."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(explain(error, where)) from error


def put(content: dict[str, Any], name: str, value: Any) -> None:
    """Set the dotted `name` in nested mappings."""
    *parents, last = name.split(".")
    for parent in parents:
        below = content.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"setting {name!r}: {parent!r} is no group of settings")
        content = below
    content[last] = value
