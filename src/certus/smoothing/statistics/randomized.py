"""Randomized binomial bounds: exact level alpha, so never larger than needed."""

import numpy as np
from scipy.special import betainc

from certus.core import ArgumentError, validate
from certus.smoothing.statistics.binomial import SLACK, lower_bound
from certus.smoothing.statistics.counts import Counts, binomial

_HALVINGS = 45  # of a bracket that is narrow already


def randomized_lower_bound(
    k: Counts, n: Counts, alpha: float, draw: float | np.ndarray
) -> np.ndarray:
    """Lower bound of a success probability, at least that of Clopper and Pearson, float64 < 1.

    draw is uniform on (0, 1], independent of the samples and used for nothing else: whoever looks at
    several draws and reports one has no guarantee. The bound is the p at which
    P(X > k) + draw * P(X = k) is alpha for X ~ Binomial(n, p) (Stevens 1950; for smoothing Voracek
    2024), and the true probability is below it with chance alpha, not less. draw = 1 gives Clopper
    and Pearson's bound. It rises with k and falls with the draw. Arguments broadcast; k, n and alpha
    and the errors raised are those of `lower_bound`; ArgumentError for a draw outside (0, 1].
    """
    hits, trials = binomial(k, n)
    validate.probability(alpha, "alpha")
    part = np.asarray(draw, dtype=np.float64)
    if not ((part > 0) & (part <= 1)).all():
        raise ArgumentError("a draw must lie in (0, 1]")
    hits, trials, part = np.broadcast_arrays(hits, trials, part)
    # P(X > k) = alpha is the next count's bound, P(X >= k) = alpha this count's: both are brackets.
    low = lower_bound(hits, trials, alpha)
    more = np.minimum(hits + 1, trials)
    high = np.where(hits < trials, lower_bound(more, trials, alpha) * (1 + 4 * SLACK), 1.0)
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        sound = _tail(hits, trials, part, middle) * (1 + SLACK) <= alpha
        low, high = np.where(sound, middle, low), np.where(sound, high, middle)
    return np.minimum(low, np.nextafter(1.0, 0.0))


def _tail(k: np.ndarray, n: np.ndarray, draw: np.ndarray, p: np.ndarray) -> np.ndarray:
    """P(X > k) + draw * P(X = k), as a mean of two tails so that nothing cancels."""
    reach = np.where(k > 0, betainc(np.maximum(k, 1), n - k + 1, p), 1.0)
    beyond = np.where(k < n, betainc(k + 1, np.maximum(n - k, 1), p), 0.0)
    return draw * reach + (1 - draw) * beyond
