"""Radii are rounded down, and by little."""

import mpmath as mp
import numpy as np
import pytest

from certus.core.random import derive
from certus.smoothing.noise import IntegerGaussian, Laplace, Uniform
from certus.smoothing.noise.rounding import below, normal_gap


def pairs(count: int) -> np.ndarray:
    """Probabilities (pA, pB): all over, close to 1 and 0, close to each other."""
    rng = np.random.default_rng(derive(7))
    a, b = rng.uniform(size=(2, count))
    kind = rng.integers(4, size=count)
    a = np.where(kind == 1, 1 - 10.0 ** -(1 + 12 * a), a)
    b = np.where(kind == 2, 10.0 ** -(1 + 40 * b), b)
    other = np.where(kind == 3, a * (1 - 10.0 ** -(1 + 13 * b)), a * b)
    return np.stack([a, np.minimum(other, 1 - a)])


def test_below_keeps_infinity_and_sign():
    found = below(np.array([np.inf, 0.0, 1e-18, 1.0]), np.array([np.inf, 1.0, 1.0, 0.0]))
    assert found[0] == np.inf
    assert (found[1:3] == 0).all()
    assert 1 - 1e-14 < found[3] < 1


@pytest.mark.parametrize("law", ["normal", "laplace", "uniform", "integer"])
def test_a_radius_is_below_the_true_one_by_little(law):
    with mp.workdps(90):

        def normal(p):
            return mp.sqrt(2) * mp.erfinv(2 * mp.mpf(p) - 1)

        def laplace(p):
            p = mp.mpf(p)
            return mp.log(2 * p) if p < 0.5 else -mp.log(2 * (1 - p))

        computed, quantile, factor = {
            "normal": (normal_gap, normal, 1.0),
            "laplace": (Laplace(0.7).radius, laplace, 0.7),
            "uniform": (Uniform(0.7).radius, mp.mpf, 2 * 0.7),
            "integer": (IntegerGaussian(0.7).radius, normal, 0.7),
        }[law]
        lower, upper = pairs(80)
        keep = (lower > upper) & (upper > 0)
        for p, q in zip(lower[keep], upper[keep], strict=True):
            found = float(computed(np.array(p), np.array(q)))
            ends = quantile(p), quantile(q)
            true = mp.mpf(factor) * (ends[0] - ends[1]) / 2
            assert found <= true
            assert true - found <= 1e-14 * (abs(ends[0]) + abs(ends[1]))
