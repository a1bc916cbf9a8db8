"""The networks of a run: loaded when first needed, used by one thread alone, whatever the number of workers.

One thread, because the order of the threads must not change a result, two networks at once on the same cores are slower
than one after the other, and a thread pool per caller (as OpenMP makes them) costs memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from instapipe.config import Direction
from instapipe.errors import UsageError
from instapipe.pipeline.resolve import Found, Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from instapipe.networks.grader import Grader
    from instapipe.networks.upscaler import Upscaler
    from instapipe.segmentation import Segmenter
    from instapipe.structures import Instances, Photo
    from instapipe.translation.engine import Translator

T = TypeVar("T")


class Models:
    """Segmenter, translators, grader and upscaler of one run. A context manager: at its end the thread is gone."""

    def __init__(self, device: str, artefacts: Path | None = None) -> None:
        """artefacts: where compiled networks are kept (Store.artefacts); None: nowhere."""
        self._device = device
        self._artefacts = artefacts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="instapipe-model")
        self._segmenter: Segmenter | None = None
        self._translators: dict[Direction, Translator] = {}
        self._grader: Grader | None = None
        self._upscaler: Upscaler | None = None

    def __enter__(self) -> Models:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the call in progress, forget the others."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def call(self, function: Callable[[], T]) -> T:
        """`function` on the networks' thread."""
        return self._thread.submit(function).result()

    def segment(self, found: Found, photo: Photo) -> Instances:
        """Unfiltered instances. Raises UsageError where the segmenter's files have gone."""

        def run() -> Instances:
            if self._segmenter is None:
                if found.gone is not None:
                    raise UsageError(f"segmenter {found.name!r} must run, but {found.gone}") from found.gone
                from instapipe.segmentation import load_segmenter

                self._segmenter = load_segmenter(found.name, device=self._device)
            return self._segmenter.segment(photo)

        return self.call(run)

    def step(
        self,
        weights: Weights,
        direction: Direction,
        engine: dict[str, str],
        pixels: NDArray[np.float32],
        masks: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One step of a translator; see again.StepFunction. Raises WeightsError where its files have gone."""

        def run() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            if direction not in self._translators:
                if weights.folder is None:
                    raise weights.gone or UsageError(f"weights {weights.card.name!r} are gone")
                from instapipe.translation.engine import Translator

                self._translators[direction] = Translator(
                    weights.card,
                    weights.folder,
                    direction,
                    device=self._device,
                    engine=engine["engine"],
                    precision=engine["precision"],
                    artefacts=self._artefacts,
                )
            return self._translators[direction].step(pixels, masks)

        return self.call(run)

    def grade(self, weights: Weights, mattes: NDArray[np.float32]) -> float:
        """What the weights' grader says of mattes, float32 (n, h, w) in [0, 1]: the worst's, 0 broken to 2 sound.

        Raises WeightsError where its file has gone.
        """

        def run() -> float:
            if self._grader is None:
                if weights.folder is None or weights.grader is None:
                    raise weights.gone or UsageError(f"weights {weights.card.name!r} have no grader")
                from instapipe.networks.devices import resolve_device
                from instapipe.networks.grader import load_grader

                self._grader = load_grader(weights.grader, weights.folder, resolve_device(self._device))
            return self._grader.grade(mattes)

        return self.call(run)

    def upscale(
        self, weights: Weights, pixels: NDArray[np.float32], mattes: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See upscaler.Upscaler.enlarge. Raises WeightsError where its file has gone."""

        def run() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            if self._upscaler is None:
                if weights.folder is None or weights.upscaler is None:
                    raise weights.gone or UsageError(f"weights {weights.card.name!r} have no upscaler")
                from instapipe.networks.devices import resolve_device
                from instapipe.networks.upscaler import load_upscaler

                self._upscaler = load_upscaler(weights.upscaler, weights.folder, resolve_device(self._device))
            return self._upscaler.enlarge(pixels, mattes, scale)

        return self.call(run)

    def choose_engine(self, weights: Weights, engine: str, precision: str) -> dict[str, str]:
        """What `auto` means for these weights on this machine: {"engine", "precision", "reason"}.

        Raises WeightsError, EngineError.
        """

        def run() -> dict[str, str]:
            if weights.folder is None:
                raise weights.gone or UsageError(f"weights {weights.card.name!r} are gone")
            from instapipe.translation import engine as engines

            choice = engines.choose(
                weights.card, weights.folder, weights.direction, self._device, engine, precision, self._artefacts
            )
            return {"engine": choice.engine, "precision": choice.precision, "reason": choice.reason}

        return self.call(run)
