"""Contact sheets: many photos small, outlines drawn, a line of text below each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instapipe.imaging import outlines, thumbnail
from instapipe.structures import Instances, Pixels

COLUMNS = 6
SIDE = 200
MOST = 90
"""Tiles of one sheet: more are not looked at, and 90 make a picture of 1200 x 3360."""
_CHARACTERS = 26
"""That fit below a tile."""


def tile(pixels: Pixels, instances: Instances, caption: str) -> Pixels:
    """`pixels`, uint8 (H, W, 3), small, with the outlines of `instances`; the caption is cut to fit."""
    short = caption if len(caption) <= _CHARACTERS else f"{caption[: _CHARACTERS - 2]}.."
    return thumbnail(pixels, outlines(instances, SIDE), short, SIDE)


def contact_sheet(tiles: Sequence[Pixels]) -> Pixels:
    """uint8 (H, W, 3): the first MOST of `tiles`, in rows of COLUMNS. At least one is needed."""
    if not tiles:
        raise ValueError("a contact sheet needs at least one tile")
    pictures = list(tiles[:MOST])
    columns = min(COLUMNS, len(pictures))
    pictures += [np.full_like(pictures[0], 24)] * (-len(pictures) % columns)
    return np.vstack([np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)])
