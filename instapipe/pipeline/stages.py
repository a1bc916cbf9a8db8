"""The stages of one photo: decode, segment, filter. (The steps of the translation are in `rollout`.)

A stage has a name, a version and `inputs`, JSON of everything that changes its result; :func:`through` asks the store
before it runs one. What only a stage needs that runs is imported there: a run that finds everything in the cache
needs no NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instapipe import imaging, masks
from instapipe.errors import MaskError
from instapipe.filtering import Dropped, FilterSettings, Selection, choose
from instapipe.pipeline.keys import DECODE_VERSION, FILTER_VERSION, SEGMENT_VERSION, Json, json_bytes, key_of
from instapipe.pipeline.store import Entry, Store

if TYPE_CHECKING:
    from instapipe.structures import Instances, Photo


def through(store: Store, stage: str, inputs: Json, run: Callable[[], Mapping[str, bytes]]) -> Entry:
    """The stored result of `inputs`, else that of `run`, stored."""
    return store.get(stage, inputs) or store.put(stage, inputs, run())


class PhotoInput:
    """One photo, decoded only when something asks for its pixels."""

    def __init__(self, data: bytes, name: str, digest: str, path: Path | None, *, max_pixels: int) -> None:
        self.name, self.digest, self.path = name, digest, path
        self._data, self._max_pixels = data, max_pixels

    @cached_property
    def photo(self) -> Photo:
        """Raises PhotoError."""
        return imaging.decode_photo(self._data, self.name, max_pixels=self._max_pixels)

    def facts(self, store: Store) -> dict[str, Any]:
        """{"size": [H, W], "notes": [...]}: what later keys and the report need of the decoded photo.

        Its key alone holds the suffix: a note says where that is another format's.
        """

        def run() -> dict[str, bytes]:
            photo = self.photo
            return {"photo.json": json_bytes({"size": list(photo.size), "notes": list(photo.notes)})}

        suffix = Path(self.name).suffix.lower()
        entry = through(store, "decode", {"version": DECODE_VERSION, "photo": self.digest, "suffix": suffix}, run)
        return dict(entry.json("photo.json"))


def from_masks(store: Store, record: masks.Record, size: tuple[int, int], source: str) -> Entry:
    """Instances from masks that the user has; those without a class are of class `source`. Raises MaskError."""

    def run() -> dict[str, bytes]:
        from instapipe.pipeline.formats import instances_files
        from instapipe.structures import Instances

        found = record.decode(size)
        if found.size != size:
            raise MaskError(f"masks are {found.size[1]}x{found.size[0]}, the photo {size[1]}x{size[0]}")
        labels = tuple(label or source for label in found.labels)
        return instances_files(Instances(found.size, found.masks, labels, found.scores, found.numbers))

    inputs = {"version": SEGMENT_VERSION, "masks": record.digest, "size": list(size), "unlabelled": source}
    return through(store, "segment", inputs, run)


def from_segmenter(
    store: Store, photo: PhotoInput, fingerprint: Mapping[str, Any], segment: Callable[[Photo], Instances]
) -> Entry:
    """Unfiltered instances of a segmenter: whatever is asked of the filter later, the network need not run again."""

    def run() -> dict[str, bytes]:
        from instapipe.pipeline.formats import instances_files

        return instances_files(segment(photo.photo))

    inputs = {
        "version": SEGMENT_VERSION,
        "decode": DECODE_VERSION,
        "photo": photo.digest,
        "segmenter": dict(fingerprint),
    }
    return through(store, "segment", inputs, run)


def filtered(store: Store, segmented: Entry, settings: FilterSettings) -> tuple[Selection, Entry]:
    """Which of the segmented instances are translated. Raises MaskError for numbers that the photo does not have."""
    inputs = {
        "version": FILTER_VERSION,
        "instances": key_of(segmented.json("instances.json")),
        "settings": settings.model_dump(mode="json"),
    }

    def run() -> dict[str, bytes]:
        from instapipe.pipeline.formats import read_instances

        selection = choose(read_instances(segmented.files), settings)
        dropped = [{"number": each.number, "reason": each.reason} for each in selection.dropped]
        return {"selection.json": json_bytes({"numbers": list(selection.numbers), "dropped": dropped})}

    entry = through(store, "filter", inputs, run)
    content = entry.json("selection.json")
    dropped = tuple(Dropped(each["number"], each["reason"]) for each in content["dropped"])
    return Selection(tuple(content["numbers"]), dropped), entry
