"""Exact binomial confidence bounds and tests: no normal approximation anywhere."""

import numpy as np
from scipy.special import betainc, betaincinv

from certus.core import ArgumentError, validate
from certus.smoothing.statistics.counts import Counts, binomial, integers, level

# The quantile routine is accurate to about 1e-14 relative; bounds give way by more than that.
SLACK = 1e-12


def lower_bound(k: Counts, n: Counts, alpha: float) -> np.ndarray:
    """One-sided lower bound of a success probability after k successes in n independent trials.

    The true probability is below the bound with chance at most alpha, whatever it is. k and n are
    integers or integer arrays that broadcast; the bound is float64 in their shape, 0 where k = 0.
    k must come from samples that had no part in choosing what counts as a success.
    Clopper and Pearson 1934: the alpha quantile of Beta(k, n - k + 1).
    Raises ArgumentError unless 0 <= k <= n, n >= 1 and 1e-100 <= alpha < 1.
    """
    hits, trials = binomial(k, n)
    level(alpha)
    some = np.maximum(hits, 1)
    return np.where(hits == 0, 0.0, betaincinv(some, trials - some + 1, alpha) * (1 - SLACK))


def upper_bound(k: Counts, n: Counts, alpha: float) -> np.ndarray:
    """One-sided upper bound: the true probability is above it with chance at most alpha.

    One minus the lower bound of the failures; 1 where k = n. Arguments as for `lower_bound`.
    """
    hits, trials = binomial(k, n)
    above = np.nextafter(1.0 - lower_bound(trials - hits, trials, alpha), 2.0)
    return np.minimum(1.0, above)


def accuracy_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval (low, high) of a rate such as accuracy on n test inputs.

    Each side spends half of 1 - level. Raises ArgumentError as `lower_bound` does.
    """
    alpha = (1.0 - validate.probability(level, "level")) / 2.0
    return float(lower_bound(successes, n, alpha)), float(upper_bound(successes, n, alpha))


def agreement_p_value(top: Counts, second: Counts) -> np.ndarray:
    """Two-sided binomial test that two classes are equally likely, given their counts.

    float64 in the broadcast shape of `top` and `second`; 1 where the counts are equal. PREDICT
    returns the top class where this is at most alpha (Cohen et al. 2019, section 3.2.2, after
    Hung and Fithian 2019). Raises ArgumentError for negative counts.
    """
    one, other = np.broadcast_arrays(integers(top, "top"), integers(second, "second"))
    if (one < 0).any() or (other < 0).any():
        raise ArgumentError("counts must be >= 0")
    most, least = np.maximum(np.maximum(one, other), 1), np.minimum(one, other)
    # P(X >= most) for X ~ Binomial(most + least, 1/2), as a regularised incomplete beta function.
    tail = betainc(most, least + 1, 0.5)
    return np.where(one == other, 1.0, np.minimum(1.0, 2.0 * tail * (1 + SLACK)))
