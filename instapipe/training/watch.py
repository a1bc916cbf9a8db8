"""Losses that run away: told, never a reason to stop."""

from __future__ import annotations

from collections import deque
from statistics import median

from instapipe.training.step import Metrics

PATIENCE = 100
"""Steps in a row before anything is said."""
MEMORY = 500
WON = 0.01
"""A discriminator's loss below this: it is never wrong (chance is 0.25 for the set discriminator alone)."""
MULTIPLE = 5.0


class Watch:
    """Sees every step's losses; speaks once when something lasts, and again only after it was over."""

    def __init__(self) -> None:
        self._totals: deque[float] = deque(maxlen=MEMORY)
        self._lasting: dict[str, int] = {}

    def __call__(self, metrics: Metrics) -> list[str]:
        """What there is to say after this step."""
        told = []
        for name, value in metrics.items():
            if name.startswith("critic_") and self._lasts(name, value < WON):
                told.append(
                    f"warning: {name} has been under {WON} for {PATIENCE} steps: that discriminator is never "
                    "wrong, the generator learns little from it; more data, augment: true or recomposite_reals help"
                )
        total = sum(value for name, value in metrics.items() if name.startswith(("source/", "target/")))
        usual = median(self._totals) if len(self._totals) >= PATIENCE else None
        # A hinge loss may be around 0 or below: the multiple counts from 1 on.
        away = usual is not None and total > usual + (MULTIPLE - 1) * max(1.0, abs(usual))
        if self._lasts("generators", away):
            told.append(
                f"warning: the generators' losses have been over {MULTIPLE:g} times their usual {usual:.2f} for "
                f"{PATIENCE} steps: the run may be diverging; a smaller learning_rate helps"
            )
        if not away:
            self._totals.append(total)
        return told

    def _lasts(self, name: str, now: bool) -> bool:
        self._lasting[name] = self._lasting.get(name, 0) + 1 if now else 0
        return self._lasting[name] == PATIENCE
