"""COCO's run-length encoding: column by column, runs of 0 and 1 in turn, beginning with 0.

Two forms: `counts` as a list of ints (uncompressed), or as a string of 6-bit characters (compressed, the form of
pycocotools). Counts are checked against the size before a mask is allocated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from instapipe.errors import MaskError
from instapipe.masks.records import Size, integer, shorten
from instapipe.structures import BoolMask

MAX_PIXELS = 2**30
CHARACTERS_PER_COUNT = 7  # 5 bits each: enough for MAX_PIXELS and a sign


def rle_size(rle: dict[str, Any], where: str) -> Size:
    """(H, W) as the encoding states it. Raises MaskError."""
    size = rle.get("size")
    if not isinstance(size, list) or len(size) != 2:
        raise MaskError(f"{where}: RLE size: expected [height, width], got {shorten(size)}")
    height, width = (integer(side, f"{where}: RLE size", least=1, most=2**20) for side in size)
    if height * width > MAX_PIXELS:
        raise MaskError(f"{where}: RLE size {height}x{width} is absurdly large")
    return height, width


def decode(rle: dict[str, Any], where: str) -> BoolMask:
    """Bool (H, W). Raises MaskError, naming `where`, unless the runs add up to exactly H x W."""
    height, width = rle_size(rle, where)
    counts = rle.get("counts")
    if isinstance(counts, str | bytes):
        text = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
        runs = _unpack(text, height * width, where)
    elif isinstance(counts, list):
        if len(counts) > height * width + 1:
            raise MaskError(f"{where}: RLE has {len(counts):,} counts for {height * width:,} pixels")
        runs = [integer(count, f"{where}: RLE count", most=height * width) for count in counts]
    else:
        raise MaskError(f"{where}: RLE counts: expected a string or a list, got {shorten(counts)}")
    if sum(runs) != height * width:
        raise MaskError(f"{where}: RLE counts add up to {sum(runs):,}, the size {height}x{width} is {height * width:,}")
    values = np.zeros(len(runs), dtype=np.bool_)
    values[1::2] = True
    flat: BoolMask = np.repeat(values, runs)
    return np.ascontiguousarray(flat.reshape((width, height)).T)


def _unpack(text: bytes, pixels: int, where: str) -> list[int]:
    """Runs out of the compressed form: little-endian groups of 5 bits, from the fourth on relative to two before."""
    if len(text) > CHARACTERS_PER_COUNT * (pixels + 1):
        raise MaskError(f"{where}: RLE of {len(text):,} characters for {pixels:,} pixels")
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = character - 48
        if not 0 <= group < 64:
            raise MaskError(f"{where}: RLE has a character that does not belong there: {bytes([character])!r}")
        if shift >= 5 * CHARACTERS_PER_COUNT:
            raise MaskError(f"{where}: RLE count {len(runs)} is absurdly large")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if not 0 <= value <= pixels:
            raise MaskError(f"{where}: RLE count {len(runs)} is {value:,}, the photo has {pixels:,} pixels")
        runs.append(value)
        value = shift = 0
    if shift:
        raise MaskError(f"{where}: RLE is cut off")
    return runs


def runs_of(mask: BoolMask) -> NDArray[np.int64]:
    """The lengths of the runs of `mask` (H, W), column by column; the first is of 0 and may be empty."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate(([0], edges, [flat.size]))
    runs = np.diff(bounds)
    return np.concatenate(([0], runs)) if flat.size and flat[0] else runs


def encode_list(mask: BoolMask) -> dict[str, Any]:
    """The uncompressed form."""
    return {"size": [int(side) for side in mask.shape], "counts": [int(run) for run in runs_of(mask)]}


def encode(mask: BoolMask) -> dict[str, Any]:
    """The compressed form, as JSON takes it."""
    from pycocotools import mask as coco

    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in packed["size"]], "counts": packed["counts"].decode("ascii")}
