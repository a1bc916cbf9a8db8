"""What the stages store, as PNG, NPZ and JSON that people can open. No pickle, nothing that depends on the clock."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instapipe import imaging
from instapipe.pipeline.keys import canonical, json_bytes
from instapipe.structures import Instances, Mask, Pixels


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as a compressed NPZ."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def npz_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ; object arrays are refused."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def masks_bytes(size: tuple[int, int], masks: Sequence[Mask]) -> bytes:
    """Masks of a photo of `size` as an NPZ: `size`, and each `box_<i>` and `bits_<i>`, packed 8 pixels a byte."""
    arrays: dict[str, NDArray[Any]] = {"size": np.asarray(size, np.int32)}
    for index, mask in enumerate(masks):
        arrays[f"box_{index}"] = np.asarray(mask.box, np.int32)
        arrays[f"bits_{index}"] = np.packbits(mask.crop)
    return npz_bytes(arrays)


def read_masks(data: bytes, only: Sequence[int] | None = None) -> tuple[Mask, ...]:
    """Masks from :func:`masks_bytes`: all, or those at the indices `only`, without unpacking the others."""
    masks = []
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        size = (int(archive["size"][0]), int(archive["size"][1]))
        for index in range((len(archive.files) - 1) // 2) if only is None else only:
            x0, y0, x1, y1 = (int(edge) for edge in archive[f"box_{index}"])
            bits = np.unpackbits(archive[f"bits_{index}"], count=(y1 - y0) * (x1 - x0))
            masks.append(Mask(size, (x0, y0, x1, y1), bits.reshape(y1 - y0, x1 - x0).astype(np.bool_)))
    return tuple(masks)


def mask_digest(mask: Mask) -> str:
    """sha256 (hex) of a mask: photo size, box and pixels."""
    head = canonical([list(mask.size), list(mask.box)])
    return hashlib.sha256(head + np.packbits(mask.crop).tobytes()).hexdigest()


def instance_records(instances: Instances) -> list[dict[str, Any]]:
    """What keys, plans and reports need to know of each instance, without its pixels."""
    return [
        {
            "number": number,
            "label": label,
            "score": round(float(score), 6),
            "box": list(mask.box),
            "area": mask.area,
            "digest": mask_digest(mask),
        }
        for number, label, score, mask in zip(
            instances.numbers, instances.labels, instances.scores, instances.masks, strict=True
        )
    ]


def instances_files(instances: Instances) -> dict[str, bytes]:
    """The files of a segmentation: `instances.json` (all but the pixels, with digests) and `masks.npz`."""
    facts = {"size": list(instances.size), "instances": instance_records(instances)}
    return {"instances.json": json_bytes(facts), "masks.npz": masks_bytes(instances.size, instances.masks)}


def read_instances(files: Mapping[str, bytes], numbers: Sequence[int] | None = None) -> Instances:
    """Instances from :func:`instances_files`: all, or those of these numbers, in that order."""
    facts = json.loads(files["instances.json"])
    records = facts["instances"]
    place = {record["number"]: index for index, record in enumerate(records)}
    indices = list(range(len(records))) if numbers is None else [place[number] for number in numbers]
    return Instances(
        (int(facts["size"][0]), int(facts["size"][1])),
        read_masks(files["masks.npz"], indices),
        tuple(records[i]["label"] for i in indices),
        tuple(records[i]["score"] for i in indices),
        tuple(records[i]["number"] for i in indices),
    )


def pixels_bytes(pixels: Pixels) -> bytes:
    """uint8 (H, W, 3) as PNG; an empty patch as nothing."""
    return imaging.encode_image(pixels, ".png") if pixels.size else b""


def read_pixels(data: bytes, size: tuple[int, int]) -> Pixels:
    """uint8 (H, W, 3) from :func:`pixels_bytes`."""
    if not data:
        return np.zeros((*size, 3), np.uint8)
    import cv2

    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("expected a PNG")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
