"""Randomized Clopper-Pearson: exact level, published figures, limits."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom
from tests.smoothing.statistics.coverage import CLEAR, FINE, excess

from certus.core import ArgumentError
from certus.smoothing.statistics import lower_bound, randomized_lower_bound

DRAWS = (np.arange(5000) + 0.5) / 5000


def tail(k: int, n: int, p: Fraction) -> Fraction:
    return sum((comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)), Fraction(0))


@pytest.mark.parametrize("alpha", [0.3, 1e-3, 1e-12])
@pytest.mark.parametrize("draw", [2.0**-10, 0.3, 1.0])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 7), (7, 7), (0, 40), (39, 40), (40, 40)])
def test_it_inverts_the_randomized_tail(k, n, draw, alpha):
    """At the bound the tail is at most alpha, a hair above it is more: sound and tight."""
    bound = Fraction(float(randomized_lower_bound(k, n, alpha, draw)))
    part = Fraction(draw)

    def level(p: Fraction) -> Fraction:
        return part * tail(k, n, p) + (1 - part) * tail(k + 1, n, p)

    assert bound == 0 or level(bound) <= Fraction(alpha)
    above = bound * (1 + Fraction(1, 10**9)) + Fraction(1, 10**12)
    assert above >= 1 or level(above) > Fraction(alpha)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("p", [0.1, 0.6, 0.99])
def test_it_fails_exactly_as_often_as_alpha(p, alpha):
    """Summed over all counts and a grid of draws. Clopper and Pearson's bound fails less often."""
    n = 12
    k = np.arange(n + 1)
    chance = binom.pmf(k, n, p)
    fails = (randomized_lower_bound(k[:, None], n, alpha, DRAWS[2::5]) > p).mean(1)
    assert float(chance @ fails) == pytest.approx(alpha, abs=5e-4)
    assert float(chance @ (lower_bound(k, n, alpha) > p)) < alpha


@pytest.mark.parametrize(("n", "p", "alpha"), [(100, 0.8, 0.05), (30, 0.97, 0.01), (1, 0.6, 0.2)])
def test_simulated_coverage(n, p, alpha):
    trials = 20_000
    rng = np.random.default_rng(1)
    k, draw = rng.binomial(n, p, trials), 1.0 - rng.random(trials)
    failures = int((randomized_lower_bound(k, n, alpha, draw) > p).sum())
    assert excess(failures, trials, alpha) > FINE
    assert excess(trials - failures, trials, 1 - alpha) > FINE  # nor does it fail less often
    # The mistake: the best of ten draws.
    best = randomized_lower_bound(k, n, alpha, 1.0 - rng.random((10, trials)).max(0))
    assert excess(int((best > p).sum()), trials, alpha) < CLEAR


@pytest.mark.parametrize(
    ("k", "n", "fixed", "mean"),
    [
        (99, 100, 1.349, 1.395),
        (100, 100, 1.5005, 1.590),
        (1000, 1000, 2.463, 2.530),
        (10_000, 10_000, 3.199, 3.254),
        (100_000, 100_000, 3.811, 3.856),
    ],
)
def test_published_mean_radii(k, n, fixed, mean):
    """In sigma, at alpha .001; the means were simulated, and hold to their noise."""
    assert float(ndtri(lower_bound(k, n, 1e-3))) == pytest.approx(fixed, abs=6e-4)
    radii = ndtri(randomized_lower_bound(k, n, 1e-3, DRAWS))
    assert float(radii.mean()) == pytest.approx(mean, abs=4e-3)
    assert (radii >= ndtri(lower_bound(k, n, 1e-3))).all()


def test_it_lies_between_the_bounds_of_neighbouring_counts():
    n = np.array([1, 5, 60])[:, None, None]
    k = np.arange(60)[:, None]
    k = np.minimum(k, n - 1)
    draw = np.array([1e-9, 0.2, 0.7, 1.0])
    bound = randomized_lower_bound(k, n, 0.01, draw)
    assert bound.shape == (3, 60, 4)
    assert (bound >= lower_bound(k, n, 0.01)).all()
    assert (bound <= lower_bound(k + 1, n, 0.01) * (1 + 1e-11)).all()
    assert (np.diff(bound, axis=-1) <= 0).all()  # falls with the draw
    assert (np.diff(bound[2], axis=0) >= 0).all()  # rises with k
    whole = randomized_lower_bound(np.arange(61), 60, 0.01, 1.0)
    assert whole == pytest.approx(lower_bound(np.arange(61), 60, 0.01), rel=1e-11)
    assert 1 - 1e-12 < randomized_lower_bound(9, 9, 0.01, 0.001) < 1  # no bound but a finite radius


@pytest.mark.parametrize("draw", [0.0, -0.1, 1.1, float("nan")])
def test_bad_draws(draw):
    with pytest.raises(ArgumentError, match="draw"):
        randomized_lower_bound(1, 2, 0.1, draw)


@pytest.mark.parametrize(
    ("k", "n", "alpha"), [(3, 2, 0.1), (1, 2, 0.0), (1, 2, 1.0), (0.5, 2, 0.1)]
)
def test_bad_arguments(k, n, alpha):
    with pytest.raises(ArgumentError):
        randomized_lower_bound(k, n, alpha, 0.5)
