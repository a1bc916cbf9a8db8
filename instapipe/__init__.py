"""Translate the instances in photos from one class to another, and keep the background.

`Pipeline` does what `instapipe translate` does; see :mod:`instapipe.pipeline.api`. Importing the package imports
nothing heavy: what is named in `__all__` is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instapipe.later import later

if TYPE_CHECKING:
    from instapipe.errors import InstapipeError
    from instapipe.pipeline.api import Pipeline, Result
    from instapipe.structures import Instances, Mask, Photo

__all__ = ["Instances", "InstapipeError", "Mask", "Photo", "Pipeline", "Result", "__version__"]
__version__ = "0.1.0"

__getattr__ = later(
    __name__,
    {
        "Instances": "instapipe.structures",
        "InstapipeError": "instapipe.errors",
        "Mask": "instapipe.structures",
        "Photo": "instapipe.structures",
        "Pipeline": "instapipe.pipeline.api",
        "Result": "instapipe.pipeline.api",
    },
)
