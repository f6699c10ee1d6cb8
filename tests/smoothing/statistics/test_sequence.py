"""Confidence sequences: laws, high precision, and coverage under the worst stopping."""

import mpmath
import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom
from tests.smoothing.statistics.coverage import CLEAR, FINE, ever, excess, grid, walks

from certus.core import ArgumentError
from certus.smoothing.statistics import (
    anytime_interval,
    anytime_lower_bound,
    anytime_p_value,
    anytime_upper_bound,
    log_evidence,
    log_mixture,
    lower_bound,
    union_lower_bound,
    upper_bound,
)

SIZES = [1, 2, 17, 1000, 100_000, 10**7]


def some_counts(n: int) -> np.ndarray:
    ends = np.arange(min(n, 20) + 1)
    middle = np.linspace(0, n, 50).astype(int)
    return np.unique(np.concatenate([ends, n - ends, middle, n - middle]))


@pytest.mark.parametrize("alpha", [0.3, 1e-3, 1e-12])
@pytest.mark.parametrize("n", SIZES)
def test_bounds_invert_their_log_wealth(n, alpha):
    """At a bound the wealth has reached 1 / alpha, a hair inside it has not."""
    k, target = some_counts(n), -np.log(alpha)
    lower, (low, high) = anytime_lower_bound(k, n, alpha), anytime_interval(k, n, alpha)
    some = k > 0
    assert ((lower > 0) == some).all()
    assert ((low > 0) == some).all()
    for bound, wealth in ((lower, log_evidence), (low, log_mixture)):
        assert (wealth(k[some], n, bound[some]) >= target).all()
        inside = np.minimum(bound[some] * (1 + 1e-7), 1 - 1e-16)
        assert (wealth(k[some], n, inside) < target).all()
    other = high < 1
    assert (other <= (k < n)).all()
    assert alpha < 1e-3 or (other == (k < n)).all()  # one failure in 10^7 may prove less than 1e-16
    assert (log_mixture(k[other], n, high[other]) >= target - 1e-8 * n).all()


@pytest.mark.parametrize("alpha", [0.3, 1e-3, 1e-12])
@pytest.mark.parametrize("n", SIZES)
def test_bounds_are_ordered(n, alpha):
    k = some_counts(n)
    lower, upper = anytime_lower_bound(k, n, alpha), anytime_upper_bound(k, n, alpha)
    low, high = anytime_interval(k, n, alpha)
    for rising in (lower, upper, low, high):
        assert (np.diff(rising) >= 0).all()
    assert (lower <= k / n).all()
    assert (k / n <= upper).all()
    assert (lower <= lower_bound(k, n, alpha)).all()  # validity at all times has its price
    assert (low <= lower_bound(k, n, alpha / 2)).all()
    assert (high >= upper_bound(k, n, alpha / 2)).all()
    assert upper == pytest.approx(1 - lower[::-1], abs=1e-15)
    mirrored = anytime_interval(n - k, n, alpha, 2.0, 0.7)
    for one, other in zip(anytime_interval(k, n, alpha, 0.7, 2.0), mirrored[::-1], strict=True):
        assert one == pytest.approx(1 - other, abs=1e-15)


def test_more_samples_of_one_kind_move_the_bounds():
    k = np.arange(1, 60)
    assert (np.diff(anytime_lower_bound(k, k, 0.01)) > 0).all()  # hits only
    assert (np.diff(anytime_lower_bound(5, k + 5, 0.01)) < 0).all()  # misses only
    p = np.linspace(0.01, 0.99, 99)
    assert (np.diff(log_evidence(70, 100, p)) < 0).all()
    assert (np.diff(log_evidence(np.arange(101), 100, 0.6)) > 0).all()
    assert anytime_lower_bound(np.arange(3)[:, None], np.array([5, 9]), 0.1).shape == (3, 2)


@pytest.mark.parametrize("shape", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("k", "n", "p"), [(1, 1, 0.3), (7, 9, 0.5), (90, 100, 0.8), (3, 50, 0.2)])
def test_wealth_is_the_mixture_it_claims_to_be(k, n, p, shape):
    """Numerical integration of the likelihood ratio over the alternatives."""

    def ratio(q):
        return (q / p) ** k * ((1 - q) / (1 - mpmath.mpf(p))) ** (n - k)

    above = mpmath.quad(
        lambda s: ratio(1 - s * (1 - p)) * shape * s ** (shape - 1), [0, 0.01, 0.1, 0.5, 1]
    )
    assert float(log_evidence(k, n, p, shape)) == pytest.approx(float(mpmath.log(above)), abs=1e-6)
    a, b = shape, 1.5
    density = mpmath.beta(a, b)
    both = mpmath.quad(
        lambda q: ratio(q) * q ** (a - 1) * (1 - q) ** (b - 1) / density, [0, 0.05, 0.5, 0.95, 1]
    )
    assert float(log_mixture(k, n, p, a, b)) == pytest.approx(float(mpmath.log(both)), abs=1e-6)


@pytest.mark.parametrize(("k", "n", "p"), [(99_000, 100_000, 0.985), (5 * 10**6, 10**7, 0.499)])
def test_rounding_is_on_the_safe_side(k, n, p):
    """The wealth in 60 digits is never below the computed one, and hardly above it."""
    with mpmath.workdps(60):
        likelihood = k * mpmath.log(mpmath.mpf(p)) + (n - k) * mpmath.log(1 - mpmath.mpf(p))
        logs = mpmath.loggamma(k + 0.5) + mpmath.loggamma(n - k + 0.5) - mpmath.loggamma(n + 1)
        both = logs - mpmath.log(mpmath.pi) - likelihood
        assert 0 < float(both - mpmath.mpf(float(log_mixture(k, n, p)))) < 1e-8 + 2e-13 * n
        # The integral from p on is all but exp(-100) of the whole here.
        logs = mpmath.loggamma(k + 1) + mpmath.loggamma(n - k + 1) - mpmath.loggamma(n + 2)
        one = logs - likelihood - mpmath.log(1 - mpmath.mpf(p))
        room = float(one - mpmath.mpf(float(log_evidence(k, n, p))))
        assert 0 < room < 1e-8 + 2e-13 * n


SIZE = 120
RATES = [0.02, 0.5, 0.84, 0.99]


@pytest.mark.parametrize("alpha", [0.2, 0.001])
def test_no_look_is_ever_wrong_too_often(alpha):
    """Exact chances that any of 120 looks violates: whoever stops at the worst look fails as often."""
    k, n, real = grid(SIZE)
    one_sided = [anytime_lower_bound(k, n, alpha, s) for s in (0.5, 1.0)]
    low, high = anytime_interval(k, n, alpha)
    upper, fixed = anytime_upper_bound(k, n, alpha), lower_bound(k, n, alpha)
    for p in RATES:
        for lower in one_sided:
            assert ever(real & (lower > p), p) <= alpha
        assert ever(real & (upper < p), p) <= alpha
        assert ever(real & ((low > p) | (high < p)), p) <= alpha
        small = real & (anytime_p_value(k, n, p) <= alpha)
        assert ever(small, p) <= alpha
        # The mistakes: bounds for one look at all looks, and the empirical frequency.
        assert ever(real & (fixed > p), p) > 1.5 * alpha or alpha ** (1 / SIZE) < p
        assert ever(real & (k > n * p), p) > 0.7
    assert ever(real & (one_sided[1] > 0.5), 0.5) > alpha / 10  # not vacuous


@pytest.mark.parametrize("p", RATES)
def test_simulated_coverage_under_the_worst_stopping(p):
    trials, alpha = 10_000, 0.05
    k, n, _ = grid(SIZE)
    lower, repeated = anytime_lower_bound(k, n, alpha), lower_bound(k, n, alpha)
    low, high = anytime_interval(k, n, alpha)
    paths, at = walks(trials, SIZE, p, seed=3), np.arange(1, SIZE + 1)
    failures = int((lower[at, paths] > p).any(1).sum())
    assert excess(failures, trials, alpha) > FINE
    assert failures / trials == pytest.approx(
        ever((lower > p) & (k <= n) & (np.arange(SIZE + 1)[:, None] > 0), p), abs=0.01
    )
    wrong = (low[at, paths] > p) | (high[at, paths] < p)
    assert excess(int(wrong.any(1).sum()), trials, alpha) > FINE
    mistaken = int((repeated[at, paths] > p).any(1).sum())
    assert excess(mistaken, trials, alpha) < CLEAR or p == 0.99  # hits alone reach no 0.99 so soon
    looks = np.array([4, 8, 16, 32, 64, 96, 120])
    union = union_lower_bound(paths[:, looks - 1], looks, np.arange(1, 8), alpha)
    assert excess(int((union > p).any(1).sum()), trials, alpha) > FINE


def median(wealth, bar: float, p: float, most: int) -> int:
    """Number of samples by which the wealth has reached 1000 with chance 1/2, looking at each: exact."""
    n = np.arange(1, most + 1)
    low, high = np.floor(n * bar).astype(int), n + 1
    while (low + 1 < high).any():
        middle = np.minimum((low + high) // 2, n)
        reached = (wealth(middle, n, bar) >= np.log(1000)) | (low + 1 >= high)
        low, high = (
            np.where(reached, low, middle),
            np.where(reached & (low + 1 < high), middle, high),
        )
    mass, gone = np.zeros(most + 2), 0.0
    mass[0] = 1.0
    for t in range(1, most + 1):
        mass[1 : t + 1] = mass[1 : t + 1] * (1 - p) + mass[:t] * p
        mass[0] *= 1 - p
        gone += mass[high[t - 1] : t + 1].sum()
        mass[high[t - 1] :] = 0.0
        if gone >= 0.5:
            return t
    raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("p", "two_sided", "one_sided", "published"),
    [(0.87, 3105, 2475, 2561), (0.90, 640, 510, 534), (0.95, 153, 130, 164), (0.99, 55, 53, 55)],
)
def test_median_samples_to_certify_radius_sigma(p, two_sided, one_sided, published):
    """Exact; the published medians come from few simulated runs and agree to their noise only."""
    bar = float(ndtr(1.0))
    assert median(log_mixture, bar, p, 3500) == two_sided
    assert median(log_evidence, bar, p, 3500) == one_sided
    assert two_sided == pytest.approx(published, rel=0.22)


@pytest.mark.parametrize(
    "call",
    [
        lambda: anytime_lower_bound(3, 2, 0.1),
        lambda: anytime_lower_bound(0, 0, 0.1),
        lambda: anytime_lower_bound(1, 2, 0.0),
        lambda: anytime_lower_bound(1, 2, 1.0),
        lambda: anytime_lower_bound(1, 2, float("nan")),
        lambda: anytime_lower_bound(1, 2, 0.1, 0.0),
        lambda: anytime_lower_bound(1.5, 2, 0.1),
        lambda: anytime_interval(1, 2, 0.1, -1.0),
        lambda: anytime_interval(1, 2, 2.0),
        lambda: log_evidence(1, 2, 0.0),
        lambda: log_evidence(1, 2, 1.0),
        lambda: log_evidence(1, 2, float("nan")),
        lambda: log_mixture(1, 2, 0.5, 0.5, 0.0),
        lambda: union_lower_bound(1, 2, 0, 0.1),
        lambda: anytime_p_value(1, 2, -0.5),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ArgumentError):
        call()


def test_a_look_of_a_union_bound_fails_with_its_share_of_alpha():
    """By the exact tail; the shares of all looks add up to alpha, 1 / (j (j + 1)) being telescopic."""
    look, n = np.arange(1, 12), 500
    bound = union_lower_bound(np.full_like(look, 450), np.full_like(look, n), look, 0.01)
    spent = binom.sf(449, n, bound)
    np.testing.assert_allclose(spent, 0.01 * (1 / look - 1 / (look + 1)), rtol=1e-6)
    assert spent.sum() < 0.01
