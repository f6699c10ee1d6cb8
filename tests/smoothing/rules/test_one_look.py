"""Rules that end at n samples: coverage, radii and what curtailing saves."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from tests.smoothing.rules.paths import certify, sample
from tests.smoothing.statistics.coverage import CLEAR, FINE, excess

from certus.core import ArgumentError
from certus.smoothing import Gaussian, Smoothed
from certus.smoothing.rules import Fixed, FixedRandomized, Largest, Path, TwoSided
from certus.smoothing.statistics import against_all, lower_bound, randomized_lower_bound

NOISE = Gaussian(1.0)
SHAPES = [[0.9, 0.06, 0.04], [0.45, 0.3, 0.25], [0.4, 0.4, 0.2], [0.97, 0.03]]


@pytest.mark.parametrize("rule", [Fixed(n0=1, n=30), TwoSided(n0=1, n=30), Largest(n0=1, n=8)])
@pytest.mark.parametrize("p", SHAPES)
def test_radii_are_too_large_no_more_often_than_alpha(rule, p):
    alpha, trials = 0.05, 10_000
    lower, upper, _ = certify(rule, p, NOISE, alpha, trials)
    rival = max(p[1:])
    wrong = (lower > p[0]) | (upper < rival)
    assert excess(int(wrong.sum()), trials, alpha) > FINE
    large = NOISE.radius(lower, upper) > NOISE.radius(p[0], rival)
    assert excess(int(large.sum()), trials, alpha) > FINE


@pytest.mark.parametrize("p", [0.6, 0.97])
def test_the_randomized_rule_fails_no_more_often_than_alpha(p):
    """The rule's bound for 10,000 counts and draws; judgements are those bounds."""
    n, alpha, trials = 30, 0.05, 10_000
    rng = np.random.default_rng(0)
    k, uniform = rng.binomial(n, p, trials), rng.random(trials)
    draw = np.maximum(1 - uniform, alpha**0.5)
    bound = randomized_lower_bound(k, n, alpha, draw)
    assert excess(int((bound > p).sum()), trials, alpha) > FINE
    rule, plain = FixedRandomized(n0=1, n=n), Fixed(n0=1, n=n)
    for i in range(50):
        counts = np.array([[k[i], n - k[i]]])
        found, taken = sample(rule, counts, NOISE, alpha, uniform[i])
        assert taken == n
        assert found.lower == pytest.approx(bound[i], abs=1e-13)
        assert found.upper == 1 - found.lower
        assert found.lower >= sample(plain, counts, NOISE, alpha)[0].lower


def test_the_randomized_radius_stays_finite():
    """With chance alpha the exact bound is 1 where all samples hit."""
    path = Path(np.array([1000]), np.array([[1000, 0]]), 0, 1 - 2.0**-53)
    found = FixedRandomized(n=1000).judge(path, NOISE, 1e-3)
    assert found is not None
    assert found.lower == pytest.approx((1e-3 / 1e-3**0.5) ** 1e-3, rel=1e-9)
    assert float(NOISE.radius(found.lower)) < 2.71


def test_two_sided_is_one_look_at_all_classes():
    counts = np.array([[500, 300, 200, 0]])
    found, taken = sample(TwoSided(n0=1, n=1000), counts, NOISE, 1e-3)
    assert (found.lower, found.upper) == tuple(float(v) for v in against_all(counts[0], 0, 1e-3))
    assert taken == 1000
    assert float(NOISE.radius(found.lower, found.upper)) > 0.12
    assert float(NOISE.radius(lower_bound(500, 1000, 1e-3))) == 0  # one-sided it abstains


@pytest.mark.parametrize(
    "p", [[0.2, 0.5, 0.3], [0.4, 0.41, 0.19], [0.5, 0.3, 0.2], [0.3, 0.7], [0.8, 0.2]]
)
def test_largest_answers_as_two_sided_and_stops_where_nothing_can_come(p):
    n, alpha = 240, 0.01
    rule, whole = Largest(n0=1, n=n), TwoSided(n0=1, n=n)
    rng, saved = np.random.default_rng(3), 0
    for _ in range(60):
        steps = np.diff(rule.looks(), prepend=0)
        counts = np.cumsum([rng.multinomial(s, p) for s in steps], 0)
        found, taken = sample(rule, counts, NOISE, alpha)
        full, _ = sample(whole, counts[-1:], NOISE, alpha)
        assert NOISE.radius(found.lower, found.upper) == NOISE.radius(full.lower, full.upper)
        if taken < n:
            assert (found.lower, found.upper) == (0.0, 1.0)
            saved += n - taken
    assert saved > 0 or p[0] >= 0.5
    assert saved == 0 or p[0] < 0.8


def test_largest_never_gives_up_what_could_still_be_certified():
    """All samples to come are hits, from every count of every look on."""
    rule, whole = Largest(n0=1, n=60), TwoSided(n0=1, n=60)
    gone = 0
    for taken in rule.looks()[:-1]:
        for hits in range(taken + 1):
            counts = np.array([[hits, taken - hits, 0]])
            left = np.array([[60 - taken, 0, 0]])
            found = rule.judge(Path(np.array([taken]), counts, 0, 0.5), NOISE, 0.01)
            best, _ = sample(whole, counts + left, NOISE, 0.01)
            assert (found is None) == bool(NOISE.radius(best.lower, best.upper) > 0)
            gone += found is not None
    assert gone > 0


@pytest.mark.parametrize("n", [1, 2, 3, 17, 100_000])
def test_looks_of_largest(n):
    looks = Largest(n0=1, n=n).looks()
    assert looks[-1] == n
    assert list(looks) == sorted(set(looks))
    assert looks[0] >= 1
    assert len(looks) <= 16


def test_mistakes_are_refuted_by_the_same_simulation():
    p, n, alpha, trials = [0.6, 0.4], 60, 0.05, 10_000
    counts = np.random.default_rng(1).multinomial(n, p, trials)
    assert excess(int((counts[:, 0] / n > 0.6).sum()), trials, alpha) < CLEAR
    half = np.random.default_rng(2).binomial(n // 2, 0.6, trials)
    again = half + np.random.default_rng(3).binomial(n // 2, 0.6, trials)
    best = np.maximum(lower_bound(half, n // 2, alpha), lower_bound(again, n, alpha))
    assert excess(int((best > 0.6).sum()), trials, alpha) < CLEAR


@pytest.mark.parametrize("rule", [Fixed, FixedRandomized, TwoSided, Largest])
def test_bad_arguments(rule):
    with pytest.raises(ArgumentError):
        rule(n0=10, n=5)
    with pytest.raises(ArgumentError):
        rule(n=0)
    path = Path(np.array([100_000]), np.array([[100_000, 0]]), 0, 0.5)
    with pytest.raises(ArgumentError):
        rule().judge(path, NOISE, 0.0)


@pytest.mark.parametrize(
    "rule",
    [Fixed(n0=1, n=10), TwoSided(n0=1, n=10), Largest(n0=1, n=10), FixedRandomized(n0=1, n=10)],
)
@pytest.mark.parametrize("alpha", [9e-101, 1e-200, 1e-300, 5e-324])
def test_levels_that_cannot_be_computed_are_refused_in_words(rule, alpha):
    path = Path(np.array([10]), np.array([[9, 1, 0]]), 0, 0.3)
    with pytest.raises(ArgumentError, match="alpha must be at least 1e-100"):
        rule.judge(path, NOISE, alpha)


@pytest.mark.parametrize("alpha", [1e-100, 3e-100, 1e-30])
def test_the_smallest_levels_are_kept_exactly(alpha):
    """P(X >= k) in whole numbers, for the bound as the binary fraction that it is."""
    for n in (1, 10, 40):
        for k in range(1, n + 1):
            p = Fraction(float(lower_bound(k, n, alpha)))
            tail = sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
            assert Fraction(alpha) * Fraction(99, 100) < tail <= Fraction(alpha), (n, k)


def test_such_levels_are_refused_before_any_sample_is_taken():
    def module(rows):
        raise AssertionError("nothing should be asked")

    with pytest.raises(ArgumentError, match="alpha must be at least 1e-100"):
        Smoothed(module, NOISE, 3).certify(torch.zeros(1, 2), alpha=1e-200, rule=TwoSided())
