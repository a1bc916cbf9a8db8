"""What is evaluated: one photo before and after, with what was there and what the translator says that it made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instapipe.structures import BoolMask, Instances, Mask, Pixels, Translation
from instapipe.verdict.matching import pair


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One translated photo.

    name: the photo's.  before, after: uint8 (H, W, 3).  listed: every instance known to be in the photo before, all
    classes.  made_by: who drew each.  returned: per listed instance the mask that the translator returned, None where
    it was not translated.  extra: returned masks of instances that nobody listed.  changed: where pixels were
    allowed to change; None: nowhere (a copy).  wanted: what its instances should be seen as; None: the target.
    """

    name: str
    before: Pixels
    after: Pixels
    listed: Instances
    returned: tuple[Mask | None, ...]
    made_by: tuple[str, ...] = ()
    extra: tuple[Mask, ...] = ()
    changed: Mask | None = None
    wanted: str | None = None

    def __post_init__(self) -> None:
        if self.before.shape != self.after.shape:
            raise ValueError(f"{self.name}: expected equal sizes, got {self.before.shape} and {self.after.shape}")
        if len(self.returned) != len(self.listed):
            raise ValueError(f"{self.name}: expected {len(self.listed)} returned masks, got {len(self.returned)}")

    def outside(self, seam: int = 0) -> BoolMask:
        """bool (H, W): outside every old and every new mask, grown by `seam` pixels."""
        import cv2

        covered = np.zeros(self.listed.size, dtype=np.bool_)
        for mask in (*self.listed.masks, *(m for m in self.returned if m is not None), *self.extra):
            x0, y0, x1, y1 = mask.box
            covered[y0:y1, x0:x1] |= mask.crop
        if seam:
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * seam + 1, 2 * seam + 1))
            covered = cv2.dilate(covered.astype(np.uint8), kernel) > 0
        return np.asarray(~covered, dtype=np.bool_)


def case_of(
    name: str,
    before: Pixels,
    listed: Instances,
    selected: Instances,
    translation: Translation,
    made_by: tuple[str, ...] = (),
) -> Case:
    """The case of a translation of `selected`, which may be the listed instances or the pipeline's own.

    A returned mask belongs to the selected instance of its number, and that to the listed one that it overlaps best.
    """
    by_number = dict(zip(translation.instances.numbers, translation.instances.masks, strict=True))
    matches = pair(listed, selected)
    returned = tuple(None if match is None else by_number.get(selected.numbers[match]) for match in matches)
    matched = {selected.numbers[match] for match in matches if match is not None}
    extra = tuple(mask for number, mask in by_number.items() if number not in matched)
    return Case(name, before, translation.pixels, listed, returned, made_by, extra, translation.changed)


def copy_case(
    name: str,
    pixels: Pixels,
    listed: Instances,
    source: str,
    made_by: tuple[str, ...] = (),
    wanted: str | None = None,
) -> Case:
    """The photo as it was, its own masks called the translation's.

    The baseline that any measure must fail; or, where `wanted` is the source itself, what the judge makes of real
    animals in the same photos: no translation can be asked for more.
    """
    returned = tuple(m if label == source else None for m, label in zip(listed.masks, listed.labels, strict=True))
    return Case(name, pixels, pixels, listed, returned, made_by, wanted=wanted)
