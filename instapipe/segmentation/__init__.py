"""Photos to instances: the :class:`Segmenter` protocol, the adapters, and the registry that finds them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from instapipe.structures import Instances, Photo

__all__ = ["Segmenter", "load_segmenter"]


class Segmenter(Protocol):
    """Finds all instances of all its classes in a photo."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that its labels come from."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """JSON of everything that decides the result; weights by digest, never by path."""
        ...

    def segment(self, photo: Photo) -> Instances:
        """Unfiltered: all classes, score at least 0.05, at most 100, best first; masks at the photo's resolution."""
        ...


def load_segmenter(name: str, *, device: str = "cpu") -> Segmenter:
    """The segmenter called `name`, with its weights, ready to run; see :mod:`instapipe.segmentation.registry`.

    Raises WeightsError where there is none, or its weights are missing or damaged.
    """
    from instapipe.segmentation import registry

    return registry.load(name, device=device)
