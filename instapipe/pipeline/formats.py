"""What the stages store, as PNG, NPZ and JSON that people can open. No pickle, nothing that depends on the clock."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instapipe.imaging import encode_image
from instapipe.pipeline.keys import instance_records
from instapipe.structures import Instances, Mask, Pixels


def json_bytes(content: Any) -> bytes:
    """Readable JSON, the same bytes for the same content."""
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as a compressed NPZ."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def npz_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ; object arrays are refused."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def masks_bytes(masks: Sequence[Mask]) -> bytes:
    """Masks as an NPZ: `box_<i>` int32 (4,) and `bits_<i>`, the crop packed eight pixels a byte."""
    arrays: dict[str, NDArray[Any]] = {}
    for index, mask in enumerate(masks):
        arrays[f"box_{index}"] = np.asarray(mask.box, np.int32)
        arrays[f"bits_{index}"] = np.packbits(mask.crop)
    return npz_bytes(arrays)


def read_masks(data: bytes, size: tuple[int, int]) -> tuple[Mask, ...]:
    """Masks of a photo of `size` (H, W) from :func:`masks_bytes`."""
    arrays = npz_arrays(data)
    masks = []
    for index in range(len(arrays) // 2):
        x0, y0, x1, y1 = (int(edge) for edge in arrays[f"box_{index}"])
        height, width = y1 - y0, x1 - x0
        bits = np.unpackbits(arrays[f"bits_{index}"], count=height * width)
        masks.append(Mask(size, (x0, y0, x1, y1), bits.reshape(height, width).astype(np.bool_)))
    return tuple(masks)


def instances_files(instances: Instances) -> dict[str, bytes]:
    """The files of a segmentation: `instances.json` (all but the pixels, with digests) and `masks.npz`."""
    facts = {"size": list(instances.size), "instances": instance_records(instances)}
    return {"instances.json": json_bytes(facts), "masks.npz": masks_bytes(instances.masks)}


def read_instances(files: Mapping[str, bytes]) -> Instances:
    """Instances from :func:`instances_files`."""
    facts = json.loads(files["instances.json"])
    size = (int(facts["size"][0]), int(facts["size"][1]))
    records = facts["instances"]
    return Instances(
        size,
        read_masks(files["masks.npz"], size),
        tuple(record["label"] for record in records),
        tuple(record["score"] for record in records),
        tuple(record["number"] for record in records),
    )


def pixels_bytes(pixels: Pixels) -> bytes:
    """uint8 (H, W, 3) as PNG; an empty patch as nothing."""
    return encode_image(pixels, ".png") if pixels.size else b""


def read_pixels(data: bytes, size: tuple[int, int]) -> Pixels:
    """uint8 (H, W, 3) from :func:`pixels_bytes`."""
    if not data:
        return np.zeros((*size, 3), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("expected a PNG")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
