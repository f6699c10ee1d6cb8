"""Rules that look again and again: coverage, when they stop, and what stopping is worth."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import ndtr
from tests.smoothing.rules.paths import certify, sample
from tests.smoothing.statistics.coverage import FINE, excess

from certus.core import ArgumentError
from certus.smoothing import Gaussian
from certus.smoothing.rules import AtRadius, Fixed, Path, Precision
from certus.smoothing.rules.schedule import growing
from certus.smoothing.statistics import (
    anytime_interval,
    anytime_lower_bound,
    log_evidence,
    lower_bound,
)

NOISE = Gaussian(1.0)


@pytest.mark.parametrize(
    ("rule", "p"),
    [
        (AtRadius(radius=0.5, n=128), 0.69),  # just below the bar .6915: a certificate is false
        (AtRadius(radius=1.5, n=192), 0.93),
        (Precision(width=1.3, n=128), 0.9),
    ],
)
def test_bounds_of_sequential_rules_fail_no_more_often_than_alpha(rule, p):
    alpha, trials = 0.1, 10_000
    lower, upper, taken = certify(rule, [p, 1 - p], NOISE, alpha, trials)
    assert excess(int((lower > p).sum()), trials, alpha) > FINE
    assert (upper == 1 - lower).all()
    assert len(np.unique(taken)) > 1
    # The mistake: the bound of one look at each of them, until it is content.
    steps = np.diff(rule.looks(), prepend=0)
    hits = np.cumsum(np.random.default_rng(0).binomial(steps, p, (trials, len(steps))), 1)
    repeated = (lower_bound(hits, np.array(rule.looks()), alpha) > p).any(1)
    assert excess(int(repeated.sum()), trials, alpha) < FINE


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.2, 0.01])
@pytest.mark.parametrize("p", [[0.5, 0.3, 0.2], [0.84, 0.1, 0.06], [0.95, 0.05]])
@pytest.mark.parametrize("rule", [AtRadius(radius=1.0, n=512), Precision(width=0.9, n=256)])
def test_coverage_of_sequential_rules_with_more_looks(rule, p, alpha):
    lower, upper, _ = certify(rule, p, NOISE, alpha)
    assert excess(int((lower > p[0]).sum()), len(lower), alpha) > FINE
    assert (upper >= max(p[1:]))[lower <= p[0]].all()


@pytest.mark.parametrize(("radius", "alpha"), [(0.5, 1e-3), (1.0, 1e-3), (1.0, 1e-12), (2.0, 0.1)])
def test_at_radius_stops_exactly_where_the_evidence_says(radius, alpha):
    """Every count of some looks against the three log wealths; certified means at least the radius."""
    rule, need = AtRadius(radius=radius, n=2000), -np.log(alpha)
    bar = NOISE.threshold(radius)
    for taken in (32, 64, 320, 1152, 2000):
        for hits in {
            *range(0, taken + 1, 1 + taken // 20),
            *range(int(taken * bar), taken + 1, 1 + taken // 99),
        }:
            path = Path(np.array([taken]), np.array([[hits, taken - hits]]), 0, 0.5)
            found = rule.judge(path, NOISE, alpha)
            proof = log_evidence(hits, taken, bar) >= need
            doubt = log_evidence(taken - hits, taken, 1 - bar) >= need
            hope = log_evidence(hits + 2000 - taken, 2000, bar) >= need
            assert (found is None) == (not proof and not doubt and bool(hope) and taken < 2000)
            if found is not None:
                assert (float(NOISE.radius(found.lower)) >= radius) == proof
                assert found.lower == pytest.approx(float(anytime_lower_bound(hits, taken, alpha)))


def test_at_radius_decides_as_a_fixed_number_of_samples_does():
    """On the same draws: the same decision wherever the question is not close, far sooner."""
    alpha, trials = 1e-3, 60
    rule, fixed = AtRadius(radius=1.0, n=10_000), Fixed(n=10_000)
    rng = np.random.default_rng(4)
    for p, expected in ((0.5, False), (0.78, False), (0.9, True), (0.99, True)):
        spent = []
        for _ in range(trials):
            steps = np.diff(rule.looks(), prepend=0)
            hits = np.cumsum(rng.binomial(steps, p))
            counts = np.stack([hits, np.array(rule.looks()) - hits], 1)
            found, taken = sample(rule, counts, NOISE, alpha)
            last, _ = sample(fixed, counts[-1:], NOISE, alpha)
            assert (float(NOISE.radius(found.lower)) >= 1.0) == expected
            assert (float(NOISE.radius(last.lower)) >= 1.0) == expected
            spent.append(taken)
        assert np.median(spent) < 1500


def test_at_radius_reports_the_largest_bound_when_it_gives_up():
    rule = AtRadius(radius=2.0, n=1024)
    looks = np.array(rule.looks())
    hits = np.minimum(looks, 60) + np.maximum(looks - 60, 0) // 2
    found, taken = sample(rule, np.stack([hits, looks - hits], 1), NOISE, 0.01)
    seen = looks <= taken
    assert found.lower == anytime_lower_bound(hits[seen], looks[seen], 0.01).max()
    assert taken < 1024
    assert found.lower > 0.5


def test_a_radius_that_n_samples_cannot_prove_is_given_up_at_once():
    _, taken = sample(AtRadius(radius=3.0, n=1000), np.array([[32, 0]] * 99), NOISE, 1e-3)
    assert taken == 32
    with pytest.raises(ArgumentError, match="no number of samples certifies radius 9"):
        sample(AtRadius(radius=9.0, n=1000), np.array([[32, 0]] * 99), NOISE, 1e-3)


@pytest.mark.parametrize("p", [0.3, 0.75, 0.9])
def test_precision_stops_at_the_first_look_that_is_precise_enough(p):
    """Against the definition, without the shortcut that spares most intervals."""
    width, alpha = 0.5, 0.01
    rule, rng = Precision(width=width, n=8192), np.random.default_rng(6)
    looks = np.array(rule.looks())
    for _ in range(40):
        hits = np.cumsum(rng.binomial(np.diff(looks, prepend=0), p))
        found, taken = sample(rule, np.stack([hits, looks - hits], 1), NOISE, alpha)
        low, high = anytime_interval(hits, looks, alpha)
        enough = NOISE.radius(high) - NOISE.radius(low) <= width
        assert taken == looks[enough.argmax()]
        assert enough.any()
        assert found.lower == low[: enough.argmax() + 1].max()
        assert taken < 2000


def test_the_precise_radius_brackets_the_true_one():
    p, width, alpha, trials = 0.85, 2.0, 0.1, 10_000
    lower, _, taken = certify(Precision(width=width, n0=1, n=64), [p, 1 - p], NOISE, alpha, trials)
    gap = float(NOISE.radius(p)) - NOISE.radius(lower)[taken < 64]
    wrong = (gap < 0) | (gap > width)
    assert len(gap) > trials / 4
    assert excess(int(wrong.sum()), trials, alpha) > FINE


def test_hits_only_never_have_a_precise_gaussian_radius():
    rule = Precision(width=0.5, n=400)
    looks = np.array(rule.looks())
    found, taken = sample(rule, np.stack([looks, 0 * looks], 1), NOISE, 0.01)
    assert taken == 400
    assert found.lower > 0.97


def test_looks_do_not_depend_on_chance_and_end_at_n():
    for n in (1, 31, 32, 33, 64, 65, 1000, 100_000):
        looks = growing(n)
        assert looks[-1] == n
        assert list(looks) == sorted(set(looks))
        assert all(look % 32 == 0 for look in looks[:-1])
        late = [b / a for a, b in pairwise(looks) if a >= 512]
        assert max(late, default=1) <= 1.126
    assert len(growing(100_000)) < 60


def test_the_schedule_costs_little():
    """Mean samples against looking at each: the overshoot is at most a look."""
    p, bar, n = 0.9, float(ndtr(1.0)), 1600
    hits = np.cumsum(np.random.default_rng(8).random((300, n)) < p, 1)
    every = (log_evidence(hits, np.arange(1, n + 1), bar) >= np.log(1000)).argmax(1) + 1
    looks = np.array(growing(n))
    some = (log_evidence(hits[:, looks - 1], looks, bar) >= np.log(1000)).argmax(1)
    assert 1 < looks[some].mean() / every.mean() < 1.2


@pytest.mark.parametrize(
    "make",
    [
        lambda: AtRadius(radius=0.0),
        lambda: AtRadius(radius=float("inf")),
        lambda: AtRadius(radius=float("nan")),
        lambda: AtRadius(radius=1.0, n=10),
        lambda: Precision(width=-1.0),
        lambda: Precision(width=0.1, n0=5, n=4),
        lambda: AtRadius(radius=1.0).judge(
            Path(np.array([32]), np.array([[32, 0]]), 0, 0.5), NOISE, 1.0
        ),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ArgumentError):
        make()
