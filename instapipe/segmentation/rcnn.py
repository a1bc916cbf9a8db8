"""torchvision's Mask R-CNN, part by part: losses in training, and detection without dense masks.

``MaskRCNN.forward`` resizes by itself and pastes N masks at the photo's full size; here a photo is resized once, and
each mask is pasted into its own box.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import maskrcnn_inference

from instapipe.structures import Instances, Mask, Pixels

MIN_SCORE = 0.05
MAX_INSTANCES = 100


def losses(model: MaskRCNN, images: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Losses by name on a batch that has its final size.

    images: float (B, 3, H, W) in [0, 1].  targets: per image ``boxes`` float (N, 4) XYXY, ``labels`` int64 (N,), from
    1, ``masks`` uint8 (N, H, W).
    """
    batch = torch.stack([model.transform.normalize(image) for image in images])
    sizes = [(int(batch.shape[2]), int(batch.shape[3]))] * len(batch)
    features = model.backbone(batch)
    proposals, rpn = model.rpn(ImageList(batch, sizes), features, list(targets))
    _, heads = model.roi_heads(features, proposals, sizes, list(targets))
    return {**rpn, **heads}


@torch.inference_mode()
def detect(model: MaskRCNN, pixels: Pixels, labels: Sequence[str], *, mirrored: bool = False) -> Instances:
    """The instances in a photo, best first, masks at the photo's own resolution.

    model: in eval mode; its transform says the size to work at.  pixels: uint8 (H, W, 3) RGB.  labels: name of every
    class index from 0; an empty name is no class (the background, unused COCO ids).  mirrored: look at the photo
    mirrored as well, and take the mean of both.
    """
    device = next(model.parameters()).device
    height, width = pixels.shape[:2]
    small = resize_for(model, pixels)
    image = torch.tensor(small, device=device).permute(2, 0, 1).float() / 255
    looks = [image, image.flip(-1)] if mirrored else [image]
    views = [model.transform.normalize(look) for look in looks]
    images = model.transform.batch_images(views, model.transform.size_divisible)
    sizes = [(small.shape[0], small.shape[1])] * len(views)
    features = model.backbone(images)
    proposals, _ = model.rpn(ImageList(images, sizes), features)
    if mirrored:
        found = _both_ways(model, features, proposals, sizes[0])
    else:
        (found,), _ = model.roi_heads(features, proposals, sizes)

    scores = found["scores"].float().cpu().numpy()
    names = [labels[int(i)] if int(i) < len(labels) else "" for i in found["labels"]]
    kept = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= MIN_SCORE and names[i]][:MAX_INSTANCES]
    # From the resized photo's pixels to the photo's.
    factors = np.asarray([width / small.shape[1], height / small.shape[0]] * 2)
    boxes = found["boxes"].double().cpu().numpy() * factors
    grids = found["masks"][:, 0].float().cpu().numpy()
    masks = {i: paste(grids[i], boxes[i], (height, width)) for i in kept}
    kept = [i for i in kept if masks[i].area]
    return Instances(
        (height, width),
        tuple(masks[i] for i in kept),
        tuple(names[i] for i in kept),
        tuple(float(scores[i]) for i in kept),
    )


def _both_ways(
    model: MaskRCNN, features: dict[str, Tensor], proposals: Sequence[Tensor], size: tuple[int, int]
) -> dict[str, Tensor]:
    """What torchvision's heads find in a photo and in its mirror image, each proposal of either judged in both.

    features: (2, C, h, w) by level.  proposals: float (N, 4) XYXY of each.  size: (H, W) before padding.
    """
    heads, width = model.roi_heads, size[1]
    sides = [{name: level[side : side + 1] for name, level in features.items()} for side in (0, 1)]
    boxes = torch.cat([proposals[0], _flipped(proposals[1], width)])
    shares, shifts = [], []
    for side, there in zip(sides, (boxes, _flipped(boxes, width)), strict=True):
        logits, shift = heads.box_predictor(heads.box_head(heads.box_roi_pool(side, [there], [size])))
        shares.append(logits.softmax(-1))
        shifts.append(shift)
    # Of (x, y, width, height) of each class, the first points the other way.
    shift = (shifts[0] + shifts[1] * shifts[1].new_tensor([-1.0, 1.0, 1.0, 1.0]).repeat(shares[0].shape[1])) / 2
    logits = torch.stack(shares).mean(0).log()
    (boxes,), (scores,), (labels,) = heads.postprocess_detections(logits, shift, [boxes], [size])
    seen = []
    for side, there in zip(sides, (boxes, _flipped(boxes, width)), strict=True):
        grids = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(side, [there], [size])))
        seen += maskrcnn_inference(grids, [labels])
    return {"boxes": boxes, "scores": scores, "labels": labels, "masks": (seen[0] + seen[1].flip(-1)) / 2}


def _flipped(boxes: Tensor, width: int) -> Tensor:
    """Where boxes (N, 4) XYXY lie in the mirror image of a picture of `width`."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([width - x1, y0, width - x0, y1], dim=-1)


def resize_for(model: MaskRCNN, pixels: Pixels) -> Pixels:
    """`pixels` at the size that the model's transform asks for: short side `min_size`, long side at most `max_size`."""
    height, width = pixels.shape[:2]
    short, long = float(model.transform.min_size[-1]), float(model.transform.max_size)
    scale = min(short / min(height, width), long / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))


def paste(grid: NDArray[np.float32], box: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """One mask head output in its box.

    grid: (M, M), probabilities.  box: (4,) XYXY, pixels of the photo, fractional.  size: (H, W) of the photo.
    Bilinear, with the cells' centres spread over the box and zeros beyond (detectron2's geometry; torchvision rounds
    the box to whole pixels first).
    """
    height, width = size
    cells = grid.shape[0]
    x0, y0, x1, y1 = (float(v) for v in box)
    left, top = max(int(np.floor(x0)), 0), max(int(np.floor(y0)), 0)
    right, bottom = min(int(np.ceil(x1)), width), min(int(np.ceil(y1)), height)
    if right <= left or bottom <= top:
        return Mask.from_crop(size, (0, 0), np.zeros((0, 0), dtype=np.bool_))
    # Where the centre of each pixel lies in the grid, whose outermost cells are followed by a ring of zeros.
    columns = (np.arange(left, right) + 0.5 - x0) / max(x1 - x0, 1e-6) * cells + 0.5
    rows = (np.arange(top, bottom) + 0.5 - y0) / max(y1 - y0, 1e-6) * cells + 0.5
    ringed = np.pad(np.asarray(grid, dtype=np.float32), 1)
    # Bilinear sampling is separable: two small matrices, instead of a map of the box's size.
    crop = weights(rows, cells + 2) @ ringed @ weights(columns, cells + 2).T
    return Mask.from_crop(size, (left, top), crop >= 0.5)


def weights(positions: NDArray[np.float64], cells: int) -> NDArray[np.float32]:
    """Linear interpolation at `positions` (P,) among `cells` values, as a matrix, float32 (P, cells)."""
    inside = np.clip(positions, 0, cells - 1)
    low = np.minimum(np.floor(inside).astype(np.int64), cells - 2)
    share = (inside - low).astype(np.float32)
    matrix = np.zeros((len(positions), cells), dtype=np.float32)
    at = np.arange(len(positions))
    matrix[at, low] = 1 - share
    matrix[at, low + 1] = share
    return matrix
