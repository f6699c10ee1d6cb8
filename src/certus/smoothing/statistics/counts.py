"""Counts of successes and failures, checked."""

import numpy as np

from certus.core import ArgumentError

Counts = int | np.ndarray


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


def classes(counts: np.ndarray) -> np.ndarray:
    """Counts of K >= 2 classes [..., K] as int64; ArgumentError where one is negative or all are 0."""
    array = integers(counts, "counts")
    if array.ndim == 0 or array.shape[-1] < 2:
        raise ArgumentError(f"counts must be [..., K] with K >= 2 classes, got {array.shape}")
    if (array < 0).any() or (array.sum(-1) < 1).any():
        raise ArgumentError("counts must be >= 0 and not all 0")
    return array
