"""A rollout on an image of the model's size, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instapipe.imaging.cutting import cut
from instapipe.imaging.seen import resized
from instapipe.imaging.windows import Rectangle
from instapipe.pipeline.placing import masks_of
from instapipe.pipeline.records import StepRecord
from instapipe.structures import BoolMask, Mask, Pixels
from instapipe.translation.again import StepFunction
from instapipe.translation.native import Blend, distance
from instapipe.translation.resampling import enlarged, shrink, shrink_mask


class ModelSurface:
    """The whole photo at the model's size, in floats, as in the paper; back at the photo's size only at the end."""

    def __init__(self, photo: Pixels, frame: Rectangle, model_size: tuple[int, int], settings: Blend) -> None:
        """`frame`: from the photo's top left corner, the photo or a little more, mirrored at its border."""
        self._photo = photo
        self._frame = frame
        self._settings = settings
        self._state = shrink(cut(photo, frame), model_size)
        self._touched: BoolMask | None = None
        self._small: Pixels | None = None
        scale = max(1.0, frame[3] / model_size[0], frame[2] / model_size[1])
        self._seam = settings.seam * scale

    def run(self, window: Rectangle, masks: Sequence[Mask], step: StepFunction) -> StepRecord:
        size = (self._photo.shape[0], self._photo.shape[1])
        model_size = (self._state.shape[0], self._state.shape[1])
        raw, mattes = step(self._state, np.stack([shrink_mask(mask.window(window), model_size) for mask in masks]))
        new = masks_of(mattes, len(masks), window, size)
        where = np.ones(size, dtype=np.bool_)
        if self._settings.background == "exact":
            touched = np.zeros(size, dtype=np.bool_)
            for mask in (*masks, *new):
                touched |= mask.dense()
            where = distance(touched) <= self._seam
        return StepRecord(new, Mask.from_dense(where), None, raw)

    def apply(self, record: StepRecord) -> None:
        if record.state is None:
            raise ValueError("expected a step of the model's size")
        self._state = record.state
        if self._touched is None:
            self._touched = np.zeros(self._photo.shape[:2], dtype=np.bool_)
        x0, y0, x1, y1 = record.changed.box
        self._touched[y0:y1, x0:x1] |= record.changed.crop

    def picture(self) -> Pixels:
        if self._touched is None:
            return self._photo
        return self._composed(self._photo, self._touched, (self._frame[3], self._frame[2]), self._seam)

    def preview(self, side: int) -> Pixels:
        factor = side / max(self._photo.shape[:2])
        if self._touched is None or factor >= 1:
            return self.picture()
        height, width = (max(1, round(length * factor)) for length in self._photo.shape[:2])
        if self._small is None or self._small.shape[:2] != (height, width):
            self._small = resized(self._photo, (height, width))
        touched = shrink_mask(self._touched, (height, width))
        frame = (max(height, round(self._frame[3] * factor)), max(width, round(self._frame[2] * factor)))
        return self._composed(self._small, touched, frame, self._seam * factor)

    def _composed(self, photo: Pixels, touched: BoolMask, frame: tuple[int, int], seam: float) -> Pixels:
        """The state over `photo` (H, W, 3), all at one scale.

        touched: bool (H, W), the old and new masks.  frame: (H, W) of what the state shows.  seam: in pixels.
        """
        height, width = photo.shape[:2]
        out = photo.copy()
        exact = self._settings.background == "exact"
        # Rising from the border of the region to 1 at the depth of the seam, where old and new masks begin.
        weight = np.clip(distance(~touched) / (seam + 1), 0, 1) if exact else np.float32(1)
        for channel in range(3):
            plane = enlarged(np.ascontiguousarray(self._state[:, :, channel]), frame, smooth=True)[:height, :width]
            mixed = weight * plane + (1 - weight) * out[:, :, channel]
            out[:, :, channel] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return out
