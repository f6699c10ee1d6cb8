"""Rounding down: a radius that is computed in floating point must not exceed the one that is proven."""

import numpy as np
from scipy.special import ndtri

# Quantiles and logarithms here are accurate to 2 units in the last place; bounds give way by more.
_SLACK = 8 * float(np.finfo(np.float64).eps)


def below(value: np.ndarray, scale: np.ndarray | float = 0.0) -> np.ndarray:
    """A number at most the true one, where value >= 0 was computed from numbers as large as `scale`.

    Gives way by 8 units in the last place of value + scale; at least 0, and infinity stays.
    """
    finite = np.isfinite(value)
    size = np.where(finite, value, 0.0) + np.where(np.isfinite(scale), scale, 0.0)
    return np.where(finite, np.maximum(0.0, value - _SLACK * size), value)


def halfway(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Half the difference of two quantiles lower > upper of one law, rounded down."""
    with np.errstate(invalid="ignore"):  # inf - inf cannot be: only one of the two may be infinite
        gap = lower / 2 - upper / 2
    return below(gap, np.abs(lower) + np.abs(upper))


def normal_gap(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """(Phi^-1(lower) - Phi^-1(upper)) / 2, rounded down: how many standard deviations are certified."""
    return halfway(ndtri(lower), ndtri(upper))
