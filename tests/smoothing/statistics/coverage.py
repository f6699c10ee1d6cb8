"""How often bounds fail: exact chances by dynamic programming, and simulated rates judged exactly."""

import numpy as np
from scipy.special import bdtrc

FINE, CLEAR = 1e-4, 1e-12


def excess(failures: int, trials: int, rate: float) -> float:
    """Chance of at least so many failures if they had the promised rate.

    A sound method must not be refuted (above FINE), a mistaken one must be, clearly (below CLEAR).
    """
    return float(bdtrc(failures - 1, trials, rate)) if failures else 1.0


def ever(violated: np.ndarray, p: float) -> float:
    """Chance that a path of successes of probability p ever visits a marked place.

    violated [N + 1, N + 1] bool: [t, k] is marked where k successes among t samples violate something.
    """
    size = len(violated) - 1
    mass, gone = np.zeros(size + 1), 0.0
    mass[0] = 1.0
    for t in range(1, size + 1):
        mass[1 : t + 1] = mass[1 : t + 1] * (1 - p) + mass[:t] * p
        mass[0] *= 1 - p
        gone += mass[violated[t]].sum()
        mass[violated[t]] = 0.0
    return gone


def grid(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (k, n) with k <= n <= size [size + 1, size + 1], and where they are real (elsewhere 0 of 1)."""
    n, k = np.mgrid[: size + 1, : size + 1]
    real = (k <= n) & (n > 0)
    return np.where(real, k, 0), np.where(real, n, 1), real


def walks(trials: int, size: int, p: float, seed: int) -> np.ndarray:
    """Successes after each of `size` samples, [trials, size]."""
    draws = np.random.default_rng(seed).random((trials, size)) < p
    return np.cumsum(draws, 1, dtype=np.int32)
