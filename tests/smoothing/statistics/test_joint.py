"""Claims about many certificates at once, for inputs with samples of their own and with shared ones."""

import numpy as np
import pytest
from scipy.stats import binom
from tests.smoothing.statistics.coverage import CLEAR, FINE, excess

from certus.core import ArgumentError
from certus.smoothing.statistics import count_lower_bound, holm, p_value, rate_lower_bound

TRIALS = 10_000


def test_p_value_is_the_binomial_tail():
    k, n = np.arange(31), 30
    for p in (0.01, 0.5, 0.97):
        assert p_value(k, n, p) == pytest.approx(binom.sf(k - 1, n, p), rel=1e-9)
    assert p_value(0, 30, 0.5) == 1
    assert p_value(30, 30, 1e-12) > 0  # small, not lost


@pytest.mark.parametrize("shared", [False, True])
def test_claims_kept_by_holm_hold_together(shared):
    """Ten inputs exactly at their bar and ten far above it."""
    n, bar, alpha = 100, 0.8, 0.05
    rng, p = np.random.default_rng(0), np.repeat([bar, 0.97], 10)
    draws = rng.random((TRIALS, 1 if shared else 20))
    k = binom.ppf(np.broadcast_to(draws, (TRIALS, 20)), n, p).astype(int)
    rows, copies = np.unique(k, axis=0, return_counts=True)
    values = p_value(rows, n, bar)
    kept = np.array([holm(row) for row in values]) <= alpha
    false = kept[:, :10].any(1)
    assert excess(int(copies[false].sum()), TRIALS, alpha) > FINE
    assert (copies[kept[:, 10:].all(1)]).sum() > TRIALS / 4  # not vacuous
    plain = (values <= alpha)[:, :10].any(1)
    if not shared:
        assert excess(int(copies[plain].sum()), TRIALS, alpha) < CLEAR


def test_holm_by_hand():
    assert holm(np.array([0.03, 0.01, 0.04, 0.005])) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm(np.array([0.2])).tolist() == [0.2]
    assert holm(np.array([])).shape == (0,)


@pytest.mark.parametrize("independent", [True, False])
def test_count_bound_is_the_smallest_count_that_is_possible(independent):
    for m, alpha, delta in [(10, 0.05, 0.13), (60, 0.2, 0.011), (300, 0.0013, 0.01)]:
        for certified in {0, 1, m // 2, m - 1, m}:
            truly = count_lower_bound(certified, m, alpha, delta, independent=independent)
            for t in range(certified):
                if independent:
                    chance = binom.sf(certified - t - 1, m - t, alpha)
                else:
                    chance = (m - t) * alpha / (certified - t)
                assert (chance > delta) == (t >= truly), (m, certified, t)


@pytest.mark.parametrize("truly", [0, 30, 95])
def test_count_bound_holds(truly):
    """False certificates as often as alpha allows; all at once where samples are shared."""
    m, alpha, delta = 100, 0.05, 0.1
    rng = np.random.default_rng(1)

    def failures(false: np.ndarray, independent: bool) -> int:
        low = [
            count_lower_bound(truly + f, m, alpha, delta, independent=independent)
            for f in range(m - truly + 1)
        ]
        return int((np.array(low)[false] > truly).sum())

    apart = rng.binomial(m - truly, alpha, TRIALS)
    together = np.where(rng.random(TRIALS) < alpha, m - truly, 0)
    assert excess(failures(apart, True), TRIALS, delta) > FINE
    assert excess(failures(together, False), TRIALS, delta) > FINE
    # Markov's inequality is met with equality: f false at once, with chance (m - t) alpha / f.
    f = int((m - truly) * alpha / delta)
    worst = np.where(rng.random(TRIALS) < (m - truly) * alpha / max(f, 1), f, 0)
    assert excess(failures(worst, False), TRIALS, delta) > FINE
    # Believing all certificates is a mistake.
    assert truly == 95 or excess(int((apart > 0).sum()), TRIALS, delta) < CLEAR


def test_the_independent_count_bound_does_not_hold_for_shared_samples():
    m, alpha, delta = 100, 0.05, 0.01
    low = count_lower_bound(m, m, alpha, delta, independent=True)
    assert low > 0  # yet with no true input all are certified at once with chance alpha > delta
    assert count_lower_bound(m, m, alpha, delta, independent=False) == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_rate_bound_holds_for_a_population(share):
    m, alpha, delta = 200, 0.02, 0.1
    rng = np.random.default_rng(2)
    good = rng.binomial(m, share, TRIALS)
    apart = good + rng.binomial(m - good, alpha)
    together = np.where(rng.random(TRIALS) < alpha, m, good)
    for counts, independent in ((apart, True), (together, False)):
        low = np.array(
            [rate_lower_bound(c, m, alpha, delta, independent=independent) for c in range(m + 1)]
        )
        assert (np.diff(low) >= 0).all()
        assert excess(int((low[counts] > share).sum()), TRIALS, delta) > FINE
    raw = counts / m > share  # the observed rate is no bound
    assert share == 0 or excess(int(raw.sum()), TRIALS, delta) < CLEAR
    assert rate_lower_bound(190, 200, 0.001, 0.05, independent=True) > 0.9
    assert rate_lower_bound(200, 200, 0.4, 0.1, independent=False) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: p_value(1, 2, 1.0),
        lambda: holm(np.array([0.1, 1.2])),
        lambda: holm(np.array([0.1, float("nan")])),
        lambda: holm(np.array([[0.1]])),
        lambda: count_lower_bound(3, 2, 0.1, 0.1, independent=True),
        lambda: count_lower_bound(0, 0, 0.1, 0.1, independent=True),
        lambda: count_lower_bound(1, 2, 0.0, 0.1, independent=True),
        lambda: count_lower_bound(1, 2, 0.1, 1.0, independent=True),
        lambda: rate_lower_bound(3, 2, 0.1, 0.1, independent=True),
        lambda: rate_lower_bound(1, 2, 0.1, 0.0, independent=False),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ArgumentError):
        call()
