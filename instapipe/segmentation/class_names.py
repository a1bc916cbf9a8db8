"""Names for the outputs of networks that only number them."""

from __future__ import annotations

from pathlib import Path

from instapipe.errors import WeightsError

# fmt: off
COCO_NAMES: tuple[str, ...] = (
    "", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "", "backpack", "umbrella", "", "", "handbag", "tie", "suitcase",
    "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
    "surfboard", "tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana",
    "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "", "dining table", "", "", "toilet", "", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
"""COCO's classes (Lin et al., ECCV 2014) by category id, from 0; "" where an id is not in use. 80 names, 91 ids."""


def names_file(weights: Path) -> Path:
    """Where the class names of `weights` are looked for: one a line, in the order of the network's outputs."""
    return weights.with_suffix(".classes.txt")


def names_beside(weights: Path) -> tuple[str, ...] | None:
    """The names in the :func:`names_file` of `weights`; None where there is none. Raises WeightsError."""
    path = names_file(weights)
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read the class names in {str(path)!r}: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())
