"""Binomial bounds against exact sums in rational arithmetic, and their coverage."""

from fractions import Fraction
from math import comb

import mpmath
import numpy as np
import pytest

from certus.core import ArgumentError
from certus.smoothing import accuracy_interval, agreement_p_value, lower_bound, upper_bound


def tail(k: int, n: int, p: Fraction) -> Fraction:
    """P(X >= k) for X ~ Binomial(n, p), exactly."""
    return sum((comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)), Fraction(0))


CASES = [(1, 1), (1, 7), (5, 7), (7, 7), (30, 60), (59, 60), (60, 60), (1, 90), (51, 100)]


@pytest.mark.parametrize("alpha", [0.3, 1e-3, 1e-9])
@pytest.mark.parametrize(("k", "n"), CASES)
def test_lower_bound_inverts_the_exact_tail(k, n, alpha):
    """At the bound the tail is at most alpha, and a hair above it is more: sound and tight."""
    bound = Fraction(float(lower_bound(k, n, alpha)))
    assert 0 < bound < Fraction(k, n)
    assert tail(k, n, bound) <= Fraction(alpha)
    assert tail(k, n, bound * (1 + Fraction(1, 10**9))) > Fraction(alpha)


@pytest.mark.parametrize("alpha", [0.3, 1e-3, 1e-9])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 50), (1, 7), (30, 60), (59, 60), (49, 100)])
def test_upper_bound_inverts_the_exact_tail(k, n, alpha):
    bound = Fraction(float(upper_bound(k, n, alpha)))
    assert Fraction(k, n) < bound <= 1
    assert 1 - tail(k + 1, n, bound) <= Fraction(alpha)
    inside = 1 - (1 - bound) * (1 + Fraction(1, 10**9)) - Fraction(1, 2**51)
    assert 1 - tail(k + 1, n, inside) > Fraction(alpha)


@pytest.mark.parametrize(
    ("k", "n", "alpha"),
    [
        (99_000, 100_000, 1e-3),
        (50_500, 100_000, 1e-3),
        (9_999_999, 10_000_000, 1e-6),
        (3, 10**6, 0.1),
    ],
)
def test_large_counts_against_high_precision(k, n, alpha):
    """The tail summed term by term with 40 digits, until terms vanish."""
    with mpmath.workdps(40):
        p = mpmath.mpf(float(lower_bound(k, n, alpha)))
        ratio, log = p / (1 - p), mpmath.loggamma
        term = mpmath.exp(
            log(n + 1)
            - log(k + 1)
            - log(n - k + 1)
            + k * mpmath.log(p)
            + (n - k) * mpmath.log1p(-p)
        )
        total, i = mpmath.mpf(0), k
        while i <= n and term > total * mpmath.mpf(10) ** -25:
            total += term
            term *= ratio * (n - i) / (i + 1)
            i += 1
        assert alpha * (1 - 1e-4) < total <= alpha


def test_ends_and_shapes():
    assert lower_bound(0, 10, 0.05) == 0
    assert upper_bound(10, 10, 0.05) == 1
    assert lower_bound(10, 10, 0.05) == pytest.approx(0.05**0.1, rel=1e-11)
    grid = lower_bound(np.arange(11)[:, None], np.array([10, 20]), 0.05)
    assert grid.shape == (11, 2)
    assert grid.dtype == np.float64
    assert (np.diff(grid, axis=0) > 0).all()
    assert grid[7, 1] == lower_bound(7, 20, 0.05)


@pytest.mark.parametrize("p", [0.02, 0.5, 0.87])
def test_exact_coverage(p):
    """Summed over every outcome, the chance of a bound above the truth is at most alpha."""
    n, alpha = 40, 0.05
    k = np.arange(n + 1)
    chance = np.array([comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)])
    assert chance[lower_bound(k, n, alpha) > p].sum() <= alpha
    assert chance[upper_bound(k, n, alpha) < p].sum() <= alpha
    assert chance[k / n > p].sum() > 5 * alpha  # the empirical frequency is no bound


def test_agreement_is_the_exact_two_sided_test():
    for top, second in [(0, 0), (1, 0), (5, 5), (7, 3), (3, 7), (40, 12), (60, 59)]:
        total, most = top + second, max(top, second)
        exact = min(Fraction(1), 2 * tail(most, total, Fraction(1, 2)))
        assert agreement_p_value(top, second) == pytest.approx(float(exact), rel=1e-10)
    many = agreement_p_value(np.array([1000, 10]), np.array([0, 0]))
    assert many[0] == pytest.approx(2.0**-999, rel=1e-9)
    assert many[1] == pytest.approx(2.0**-9, rel=1e-9)


def test_accuracy_interval():
    low, high = accuracy_interval(81, 263)  # Newcombe 1998, table I
    assert (round(low, 4), round(high, 4)) == (0.2527, 0.3676)
    assert accuracy_interval(0, 20)[0] == 0
    assert accuracy_interval(20, 20)[1] == 1
    assert accuracy_interval(10, 20, 0.99)[0] < accuracy_interval(10, 20)[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: lower_bound(5, 4, 0.1),
        lambda: lower_bound(-1, 4, 0.1),
        lambda: lower_bound(0, 0, 0.1),
        lambda: lower_bound(1, 4, 0.0),
        lambda: lower_bound(1, 4, 1.0),
        lambda: lower_bound(1, 4, float("nan")),
        lambda: lower_bound(1.5, 4, 0.1),
        lambda: lower_bound(np.array([1, 9]), 4, 0.1),
        lambda: upper_bound(5, 4, 0.1),
        lambda: accuracy_interval(1, 2, 1.0),
        lambda: agreement_p_value(-1, 2),
        lambda: agreement_p_value(3, -2),
        lambda: agreement_p_value(0.5, 2),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ArgumentError):
        call()
