"""Distances between sets of feature vectors, named by what made the features.

The formulas are those of FID (Heusel et al., 2017) and KID (Binkowski et al., 2018). A value depends on the features at
least as much as on the pictures: `kid` of Inception and `kid` of another network are different quantities, so
results carry the features' name and are never compared across names.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]


def kid(first: Features, second: Features) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 of (n, d) and (m, d) features; NaN for fewer than two.

    All pairs are used (one subset as large as the set): with so few crops, subsets would only add noise.
    """
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return math.nan
    x, y = first.astype(np.float64), second.astype(np.float64)
    within_x, within_y, across = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    inside_x = (within_x.sum() - np.trace(within_x)) / (n * (n - 1))
    inside_y = (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
    return float(inside_x + inside_y - 2 * across.mean())


def fid(first: Features, second: Features) -> float:
    """Frechet distance of Gaussians fitted to (n, d) and (m, d) features; NaN for fewer than two.

    Biased upwards for n, m not much larger than d: print KID before it.
    """
    if min(len(first), len(second)) < 2:
        return math.nan
    x, y = first.astype(np.float64), second.astype(np.float64)
    offset = x.mean(axis=0) - y.mean(axis=0)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # tr sqrt(ab) from the eigenvalues of ab, which are those of a symmetric, positive semidefinite matrix.
    roots = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0, None)).sum()
    return float(offset @ offset + np.trace(a) + np.trace(b) - 2 * roots)


def cosine_distances(first: Features, second: Features) -> NDArray[np.float64]:
    """float64 (n, m), 1 - cosine similarity."""
    x, y = (f.astype(np.float64) for f in (first, second))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    y /= np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-12)
    return np.asarray(1 - x @ y.T, dtype=np.float64)


def nearest(outputs: Features, known: Features) -> NDArray[np.float64]:
    """float64 (n,): each output's cosine distance to the nearest known crop; NaN where nothing is known."""
    if not len(known):
        return np.full(len(outputs), math.nan)
    return np.asarray(cosine_distances(outputs, known).min(axis=1), dtype=np.float64)


def diversity(outputs: Features) -> float:
    """Mean cosine distance of all pairs; 0 where all outputs are one; NaN for fewer than two."""
    n = len(outputs)
    if n < 2:
        return math.nan
    return float(cosine_distances(outputs, outputs).sum() / (n * (n - 1)))


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3, dtype=np.float64)
