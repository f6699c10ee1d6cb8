"""Ranks against exact rational binomial sums, and order statistics against sorting."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from certus.core import ArgumentError
from certus.smoothing.outputs.order import middle_order, ordered, upper_order


def tail(n: int, p: Fraction, k: int) -> Fraction:
    return sum((comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)), Fraction(0))


@pytest.mark.parametrize("n", [1, 2, 5, 12, 25])
@pytest.mark.parametrize("p", [0.0, 0.03, 0.25, 0.5, 0.8, 0.96, 1.0])
@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001, 1e-9])
def test_the_smallest_rank_that_is_sure_enough(n, p, alpha):
    exact = [tail(n, Fraction(p), k) for k in range(n + 2)]
    expected = min(k for k in range(1, n + 2) if exact[k] <= Fraction(alpha) or p == 0.0)
    assert upper_order(n, p, alpha) == expected


def test_ranks_of_large_samples_grow_with_what_is_asked():
    ranks = [upper_order(100_000, p, 0.001) for p in np.linspace(0, 1, 201)]
    assert ranks == sorted(ranks)
    assert ranks[-1] == 100_001
    assert upper_order(100_000, 0.5, 1e-9) > upper_order(100_000, 0.5, 0.1) > 50_000
    assert upper_order(100_000, 0.5, 1e-3) == pytest.approx(50_000 + 3.09 * 158.1, abs=3)


def test_ordered_is_sorting():
    values = np.random.default_rng(0).normal(size=(30, 2, 3)).astype(np.float32)
    whole = np.sort(values, 0)
    low, first, some, last, high = ordered(values, 0, 1, 17, 30, 31)
    assert (low == -np.inf).all() and (high == np.inf).all()
    for found, k in ((first, 1), (some, 17), (last, 30)):
        assert (found == whole[k - 1]).all()
        assert found.dtype == np.float64
    assert ordered(np.arange(5.0), 2)[0] == 1.0
    assert [middle_order(n, 0.5) for n in (1, 2, 3, 4)] == [1, 1, 2, 2]


@pytest.mark.parametrize(("n", "alpha"), [(0, 0.1), (5, 0.0), (5, 1.0), (5, float("nan"))])
def test_bad_arguments(n, alpha):
    with pytest.raises(ArgumentError):
        upper_order(n, 0.5, alpha)
