"""Betting sequences: coverage under the worst stopping, stakes that look at the future, limits."""

import numpy as np
import pytest
from tests.smoothing.statistics.coverage import CLEAR, FINE, excess

from certus.core import ArgumentError
from certus.smoothing.statistics import (
    anytime_lower_bound,
    betting_lower_bound,
    betting_upper_bound,
    lower_bound,
)

LOOKS = np.array([4, 8, 16, 32, 64])


def paths(p: float, trials: int = 10_000) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.cumsum(rng.binomial(np.diff(LOOKS, prepend=0), p, (trials, len(LOOKS))), 1)


@pytest.mark.parametrize(("p", "alpha"), [(0.5, 0.05), (0.9, 0.2), (0.97, 0.01)])
def test_no_look_is_wrong_too_often(p, alpha):
    hits = paths(p)
    rows, copies = np.unique(hits, axis=0, return_counts=True)
    for wrong in (
        betting_lower_bound(rows, LOOKS, alpha) > p,
        betting_upper_bound(rows, LOOKS, alpha) < p,
    ):
        assert excess(int(copies[wrong.any(1)].sum()), len(hits), alpha) > FINE
    repeated = lower_bound(rows, LOOKS, alpha) > p
    if p < 0.97:  # hits alone reach it too late
        assert excess(int(copies[repeated.any(1)].sum()), len(hits), alpha) < CLEAR


def test_wealth_has_reached_the_stake_at_the_bound():
    """By hand for two blocks: the stake of the second follows from the first."""
    alpha, first, second = 0.1, (9, 10), (39, 40)
    bound = betting_lower_bound(np.array([9, 39]), np.array([10, 40]), alpha)

    def wealth(p: float) -> float:
        result = 1.0
        for rate, (k, n), at in ((0.5, first, 10), (10 / 12, (30, 30), 40)):
            plug_in = np.sqrt(2 * np.log(1 / alpha) / (rate * (1 - rate) * at * np.log(1 + at)))
            bet = min(plug_in, 0.9 / p)
            result *= (1 + bet * (1 - p)) ** k * (1 - bet * p) ** (n - k)
        return result

    assert second[0] == 39
    assert wealth(bound[1]) == pytest.approx(1 / alpha, rel=1e-9)
    assert wealth(bound[1]) >= 1 / alpha
    assert wealth(bound[1] + 1e-6) < 1 / alpha


def test_limits_and_shapes():
    looks = np.array([64, 1024, 16384])
    for alpha in (0.3, 1e-12):
        none = betting_lower_bound(np.zeros(3, int), looks, alpha)
        assert (none == 0).all()
        every = betting_lower_bound(looks, looks, alpha)
        assert (np.diff(every) > 0).all()
        assert every[-1] < 1
    many = betting_lower_bound(np.stack([looks, looks // 2]), looks, 0.01)
    assert many.shape == (2, 3)
    assert (many[1] < many[0]).all()
    assert betting_upper_bound(looks // 2, looks, 0.01) == pytest.approx(1 - many[1], abs=1e-12)
    # In the long run it is as good as the mixture, to a factor in the width.
    width = 0.5 - many[1, -1]
    assert width < 1.5 * (0.5 - float(anytime_lower_bound(8192, 16384, 0.01)))
    assert betting_lower_bound(np.array([1]), np.array([1]), 0.6) > 0


@pytest.mark.parametrize(
    ("hits", "taken", "alpha"),
    [
        ([3, 2], [4, 8], 0.1),
        ([1, 6], [4, 8], 0.1),
        ([1, 2], [4, 4], 0.1),
        ([5, 6], [4, 8], 0.1),
        ([1, 2], [4, 8], 0.0),
        (1, 4, 0.1),
    ],
)
def test_bad_arguments(hits, taken, alpha):
    with pytest.raises(ArgumentError):
        betting_lower_bound(np.array(hits), np.array(taken), alpha)
