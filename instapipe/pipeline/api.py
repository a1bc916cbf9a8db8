"""The Python interface: what `instapipe translate` does, in four lines.

::

    from instapipe import Pipeline

    with Pipeline("sheep", "giraffe") as pipeline:
        result = pipeline("photo.jpg")
    result.save("giraffes.png")
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from instapipe import imaging
from instapipe.config import build
from instapipe.errors import UsageError
from instapipe.pipeline.jobs import single_job
from instapipe.pipeline.models import Models
from instapipe.pipeline.outputs import Written, picture_bytes
from instapipe.pipeline.runner import Outcome, Runner
from instapipe.pipeline.settings import TranslateSettings
from instapipe.pipeline.store import Store, default_root
from instapipe.structures import Instances, Mask, Pixels


@dataclass(frozen=True)
class Result:
    """One translated photo. name: of the photo.  target: the class that was asked for."""

    outcome: Outcome = field(repr=False)
    name: str
    target: str

    @property
    def translated(self) -> bool:
        """False where the photo had no instance: its pixels are unchanged then, but for what .jpg loses."""
        return self.outcome.status == "translated"

    @property
    def hits(self) -> tuple[str, ...]:
        """The stages that came whole from the cache: of segment, filter, translate."""
        return self.outcome.hits

    @property
    def report(self) -> dict[str, Any]:
        """The `result` block of the report."""
        return self.outcome.result

    @cached_property
    def pixels(self) -> Pixels:
        """uint8 (H, W, 3), RGB, sRGB, upright, the photo's size."""
        return imaging.decode_photo(picture_bytes(self.outcome.files), self.name).pixels

    @cached_property
    def instances(self) -> Instances:
        """The translated masks, in the order of translation, with the numbers of their sources."""
        height, width = self.outcome.result["photo"]["size"]
        records = {record["number"]: record for record in self.outcome.result["instances"]}
        numbers = [number for step in self.outcome.result["steps"] for number in step["numbers"]]
        masks: dict[int, Mask] = {}
        for name, data in self.outcome.files.items():
            match = re.fullmatch(r".+_(\d+)\.png", name)
            if match is not None:
                grey = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))
                masks[int(match[1])] = Mask.from_dense(grey > 127)
        return Instances(
            (height, width),
            tuple(masks[number] for number in numbers),
            (self.target,) * len(numbers),
            tuple(records[number]["score"] for number in numbers),
            tuple(numbers),
        )

    def save(self, path: str | os.PathLike[str] | None = None) -> Written:
        """Write picture, masks, filmstrip and report; without a path as the command would name them.

        The ending must be that of the picture: .png, unless the pipeline was called with another `suffix`.
        Raises OutputError, UsageError.
        """
        job = single_job(Path(self.name), None if path is None else os.fspath(path), self.target)
        if f"picture{job.picture.suffix.lower()}" not in self.outcome.files:
            raise UsageError(f"the picture is no {job.picture.suffix!r}; call the pipeline with that suffix")
        return self.outcome.write(job.picture)


class Pipeline:
    """Segment, filter and translate photos from class `source` to class `target`.

    `settings` are the fields of TranslateSettings (weights, segmenter, region, background, score, order, keep...);
    masks: masks that you have, in any of the known formats; cache: a folder (the user's own unless given).
    Networks are loaded when they are first needed and kept. Raises UsageError for what is wrong with the request.
    """

    def __init__(
        self,
        source: str,
        target: str,
        *,
        masks: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = build(TranslateSettings, {"source": source, "target": target, **settings}, "Pipeline")
        self.store = Store(Path(cache).expanduser() if cache is not None else default_root())
        self._models = Models(self.settings.device, self.store.artefacts)
        try:
            self._runner = Runner(
                self.settings, self.store, self._models, mask_source=None if masks is None else Path(masks)
            )
        except BaseException:
            self._models.close()
            raise

    def __call__(self, photo: str | os.PathLike[str] | bytes | Pixels, *, suffix: str = ".png") -> Result:
        """Translate a photo: a path, encoded bytes, or pixels, uint8 (H, W, 3) RGB. Raises InputError."""
        if isinstance(photo, np.ndarray):
            data, name, path = imaging.encode_image(photo, ".png"), "photo.png", None
        elif isinstance(photo, bytes):
            data, name, path = photo, "photo.png", None
        else:
            path = Path(photo).expanduser().absolute()
            data, name = imaging.read_bytes(path), str(path)
        return Result(self._runner.process(data, name, path, suffix.lower()), name, self.settings.target)

    def close(self) -> None:
        """Let the networks go."""
        self._models.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
