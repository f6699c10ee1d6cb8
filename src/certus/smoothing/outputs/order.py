"""Order statistics as bounds of percentiles: exact, whatever the distribution."""

import math

import numpy as np
from scipy.special import betainc

from certus.core import validate
from certus.smoothing.statistics.binomial import SLACK


def upper_order(n: int, p: float, alpha: float) -> int:
    """The smallest k for which the k-th smallest of n samples reaches a p-percentile; n + 1 for none.

    With chance at least 1 - alpha, P(Y <= Y_(k)) >= p for the distribution of the independent samples
    Y, continuous or not: otherwise k or more of them lie below the smallest y with P(Y <= y) >= p,
    where each lies with chance at most p, so that the chance is at most P(Binomial(n, p) >= k). The
    (n + 1 - k)-th smallest bounds the (1 - p)-percentile from below in the same way: P(Y >= it) >= p.
    Raises ArgumentError unless n >= 1 and 0 < alpha < 1.
    """
    validate.count(n, "n")
    validate.probability(alpha, "alpha")
    if p <= 0.0:
        return 1
    low, high = 0, n + 1  # reaching low or more samples is likelier than alpha
    while low + 1 < high:
        middle = (low + high) // 2
        enough = betainc(middle, n - middle + 1, min(p, 1.0)) * (1 + SLACK) <= alpha
        low, high = (low, middle) if enough else (middle, high)
    return high


def ordered(values: np.ndarray, *ranks: int) -> list[np.ndarray]:
    """For each rank k the k-th smallest along the first axis [n, ...], float64.

    Rank 0 gives -inf, rank n + 1 inf.
    """
    n = len(values)
    inside = sorted({k - 1 for k in ranks if 1 <= k <= n})
    parted = np.partition(values, inside, axis=0) if inside else values
    beyond = {0: -np.inf, n + 1: np.inf}
    return [
        np.full(values.shape[1:], beyond[k]) if k in beyond else parted[k - 1].astype(np.float64)
        for k in ranks
    ]


def middle_order(n: int, p: float) -> int:
    """The rank of the p-percentile of n samples: the smallest k with k >= p n."""
    return min(n, max(1, math.ceil(p * n)))
