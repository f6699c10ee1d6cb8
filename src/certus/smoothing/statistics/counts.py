"""Counts of successes and failures, checked."""

import numpy as np

from certus.core import ArgumentError, validate

Counts = int | np.ndarray

_LEAST = 1e-100  # below 1e-150 or so the quantile routine answers NaN, farther below too much


def integers(value: Counts, name: str) -> np.ndarray:
    """An integer or integer array as int64; ArgumentError for anything else."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ArgumentError(f"{name} must be an integer or an integer array, got {array.dtype}")
    return array.astype(np.int64)


def binomial(k: Counts, n: Counts) -> tuple[np.ndarray, np.ndarray]:
    """k successes in n trials, broadcast to one shape; ArgumentError unless n >= 1, 0 <= k <= n."""
    hits, trials = np.broadcast_arrays(integers(k, "k"), integers(n, "n"))
    if (trials < 1).any() or (hits < 0).any() or (hits > trials).any():
        raise ArgumentError("a binomial count needs n >= 1 and 0 <= k <= n")
    return hits, trials


def inside(p: float | np.ndarray, name: str) -> np.ndarray:
    """Probabilities strictly between 0 and 1 as float64; ArgumentError for others and for NaN."""
    array = np.asarray(p, dtype=np.float64)
    if not ((array > 0) & (array < 1)).all():
        raise ArgumentError(f"{name} must lie strictly between 0 and 1")
    return array


def level(alpha: float) -> float:
    """An alpha that quantiles can be computed for; ArgumentError for others, and unless 0 < alpha < 1."""
    if validate.probability(alpha, "alpha") < _LEAST:
        raise ArgumentError(
            f"alpha must be at least {_LEAST:g} for each bound (some rules divide it among several), "
            f"got {alpha!r}"
        )
    return alpha


def classes(counts: np.ndarray) -> np.ndarray:
    """Counts of K >= 2 classes [..., K] as int64; ArgumentError where one is negative or all are 0."""
    array = integers(counts, "counts")
    if array.ndim == 0 or array.shape[-1] < 2:
        raise ArgumentError(f"counts must be [..., K] with K >= 2 classes, got {array.shape}")
    if (array < 0).any() or (array.sum(-1) < 1).any():
        raise ArgumentError("counts must be >= 0 and not all 0")
    return array
