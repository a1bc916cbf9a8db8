"""A segmenter against photos whose masks are known: what it gets wrong, through the cached stage of translation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from instapipe import imaging
from instapipe.data.photos import AnnotatedPhoto
from instapipe.errors import UnknownClass
from instapipe.filtering import FilterSettings, choose
from instapipe.pipeline import stages
from instapipe.pipeline.formats import read_instances
from instapipe.pipeline.models import Models
from instapipe.pipeline.resolve import Found
from instapipe.pipeline.store import Store
from instapipe.structures import Instances


def predictions(
    photos: Sequence[AnnotatedPhoto], label: str, found: Found, store: Store, device: str
) -> Iterator[tuple[Instances, Instances]]:
    """(listed, predicted) instances of each of `photos`: the predicted ones as translation takes them, by its usual
    filter. What was segmented before comes from the store.

    Raises UnknownClass where the segmenter does not know `label`, PhotoError, MaskError.
    """
    if label not in found.classes:
        raise UnknownClass(f"segmenter {found.name!r} has no class {label!r}; it knows {', '.join(found.classes)}")
    settings = FilterSettings(label=label, max_instances=1000)
    with Models(device) as models:
        for each in photos:
            data = imaging.read_bytes(each.path)
            digest = hashlib.sha256(data).hexdigest()
            photo = stages.PhotoInput(data, str(each.path), digest, each.path, max_pixels=imaging.MAX_PIXELS)
            entry = stages.from_segmenter(
                store, photo, found.fingerprint, lambda decoded: models.segment(found, decoded)
            )
            made = read_instances(entry.files)
            numbers = set(choose(made, settings).numbers)
            masks = tuple(instance.mask for instance in each.decode(made.size))
            listed = Instances(made.size, masks, (label,) * len(masks), (1.0,) * len(masks))
            yield listed, made.select(i for i, number in enumerate(made.numbers) if number in numbers)
