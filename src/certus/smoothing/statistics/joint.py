"""Claims about many certificates at once, each of which fails with chance at most alpha by itself."""

import numpy as np
from scipy.special import betainc

from certus.core import ArgumentError, validate
from certus.smoothing.statistics.binomial import SLACK, lower_bound
from certus.smoothing.statistics.counts import Counts, binomial, inside


def p_value(k: Counts, n: Counts, p: float | np.ndarray) -> np.ndarray:
    """P value against "the success probability is at most p": P(X >= k) for X ~ Binomial(n, p).

    With p = noise.threshold(r) and k of n samples for the chosen class this is the p value against
    "radius r is not certified there", for n fixed beforehand (else `anytime_p_value`). float64 in the
    broadcast shape. Raises ArgumentError unless 0 <= k <= n, n >= 1, 0 < p < 1.
    """
    hits, trials = binomial(k, n)
    some = np.maximum(hits, 1)
    tail = betainc(some, trials - some + 1, inside(p, "p")) * (1 + SLACK)
    return np.where(hits == 0, 1.0, np.clip(tail, np.finfo(np.float64).tiny, 1.0))


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values adjusted for their number: all claims with one <= alpha hold together, at level alpha.

    p_values [m], each valid by itself; the result is float64 [m] in the same order. The chance that
    any claim so kept is false is at most alpha, however the samples of the inputs depend on each
    other (Holm 1979). Raises ArgumentError unless they are numbers in [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ArgumentError("p values must be a list of numbers in [0, 1]")
    order = np.argsort(values, kind="stable")
    left = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * left), 1.0)
    return adjusted


def count_lower_bound(
    certified: int, m: int, alpha: float, delta: float, *, independent: bool
) -> int:
    """How many of these m inputs have what their certificates claim, at least: true with chance 1 - delta.

    certified of the m certificates were issued; each that should not be is issued with chance at most
    alpha. If t inputs have the property, at least certified - t of the other m - t got a false
    certificate; the answer is the smallest t for which that has a chance above delta.
    independent=True: the inputs' samples are independent, false certificates are at most binomial.
    independent=False: nothing is assumed (shared draws); Markov's inequality on their mean
    (m - t) alpha. Both are about these inputs, whatever they are. Raises ArgumentError for counts
    outside 0 <= certified <= m, m >= 1, and levels outside (0, 1).
    """
    validate.probability(alpha, "alpha")
    validate.probability(delta, "delta")
    got, total = (int(v) for v in binomial(certified, m))
    truly = np.arange(got)
    others, false = total - truly, got - truly
    if independent:
        chance = betainc(false, others - false + 1, alpha) * (1 + SLACK)
    else:
        chance = others * alpha / false * (1 + SLACK)
    possible = truly[chance > delta]
    return int(possible[0]) if len(possible) else got


def rate_lower_bound(
    certified: int, m: int, alpha: float, delta: float, *, independent: bool
) -> float:
    """Share of a population that has what a certificate would claim, at least: with chance 1 - delta.

    The m inputs are independent draws from the population, certified of them got a certificate, and
    one that should not is issued with chance at most alpha. With `independent` samples every input is
    certified independently with chance at most t + (1 - t) alpha, t the share, and Clopper and
    Pearson's bound L gives t >= (L - alpha) / (1 - alpha). Otherwise (draws shared by the inputs) the
    same holds given the draws, with alpha replaced by 2 alpha / delta, which the rate of false
    certificates exceeds with chance at most delta / 2 (Markov); the other half bounds the count.
    Raises ArgumentError as `count_lower_bound` does.
    """
    validate.probability(alpha, "alpha")
    validate.probability(delta, "delta")
    false = alpha if independent else 2 * alpha / delta
    bound = float(lower_bound(certified, m, delta if independent else delta / 2))
    return max(0.0, (bound - false) / (1 - false) * (1 - SLACK)) if false < 1 else 0.0
