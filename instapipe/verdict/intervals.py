"""Intervals for shares and for means over few photos: no figure goes without one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""Of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `n`, with its 95 % interval (`low`, `high`) after Wilson (JASA 1927)."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """hits / n; NaN for n = 0."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) in [0, 1]; (0, 1) for n = 0: nothing is known."""
        if not self.n:
            return 0.0, 1.0
        p, z2 = self.hits / self.n, Z * Z
        middle = (p + z2 / (2 * self.n)) / (1 + z2 / self.n)
        reach = Z / (1 + z2 / self.n) * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n * self.n))
        return max(0.0, middle - reach), min(1.0, middle + reach)

    def __str__(self) -> str:
        if not self.n:
            return "none of 0"
        low, high = self.interval
        return f"{100 * self.value:.1f} % of {self.n} [{100 * low:.1f}, {100 * high:.1f}]"

    def record(self) -> dict[str, Any]:
        """For JSON."""
        low, high = self.interval
        value = None if not self.n else round(self.value, 6)
        return {"value": value, "hits": self.hits, "n": self.n, "interval": [round(low, 6), round(high, 6)]}


def bootstrap(
    groups: Sequence[Any],
    statistic: Callable[[list[Any]], float],
    *,
    rng: np.random.Generator,
    draws: int = 1000,
) -> tuple[float, float]:
    """95 % percentile interval of `statistic` over resampled `groups`.

    A group is what is independent of the others: a photo with all its instances, not an instance, since animals of one
    photo fail together. Draws on which the statistic is NaN are left out; (NaN, NaN) where all are.
    """
    if not groups:
        return math.nan, math.nan
    values: NDArray[np.float64] = np.array(
        [statistic([groups[i] for i in rng.integers(0, len(groups), len(groups))]) for _ in range(draws)]
    )
    values = values[~np.isnan(values)]
    if not values.size:
        return math.nan, math.nan
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def half_sample_interval(
    groups: Sequence[Any],
    statistic: Callable[[list[Any]], float],
    *,
    rng: np.random.Generator,
    draws: int = 100,
) -> tuple[float, float]:
    """95 % interval by the delete-half jackknife: value -+ 1.96 x the spread over random halves of `groups`.

    For statistics of pairs (KID, diversity): resampling with replacement would pair things with themselves.
    (NaN, NaN) for fewer than four groups.
    """
    if len(groups) < 4:
        return math.nan, math.nan
    half = len(groups) // 2
    values: NDArray[np.float64] = np.array(
        [statistic([groups[i] for i in rng.choice(len(groups), half, replace=False)]) for _ in range(draws)]
    )
    # Deleting d of n: variance = (n - d) / d x that over the subsets (Shao and Wu, 1989).
    spread = float(np.nanstd(values)) * math.sqrt(half / (len(groups) - half))
    value = statistic(list(groups))
    return value - Z * spread, value + Z * spread
