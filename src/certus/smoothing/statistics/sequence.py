"""Confidence sequences: bounds of a probability that hold after every number of samples at once.

Whoever bets against "the probability is p" at fair odds multiplies the stake by 1 / alpha, ever, with
chance at most alpha if it is p (Ville 1939). So every p against which the wealth has reached 1 / alpha
is out, whenever one looks. The bets here are mixtures: the stake is spread over alternatives q by a
beta density, which has a closed form (Robbins 1970). They depend on the counts alone.

Both log wealths are convex in the log odds x of p. From where it is above log(1 / alpha), Newton's
method therefore moves to the bound without ever crossing it.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import betaincc, betaincinv, betaln, expit, log_expit, xlog1py, xlogy

from certus.core import ArgumentError, validate
from certus.smoothing.statistics.binomial import SLACK
from certus.smoothing.statistics.counts import Counts, binomial, inside, integers

_STEPS = 100
_Curve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def log_evidence(k: Counts, n: Counts, p: float | np.ndarray, shape: float = 1.0) -> np.ndarray:
    """Log wealth against "the success probability is at most p", after k successes in n samples.

    If that is true, it ever reaches log(1 / alpha) with chance at most alpha. The alternatives are
    1 - q = s (1 - p), s with density shape * s^(shape - 1) on (0, 1): only larger probabilities. For
    each s the likelihood ratio falls with p, hence the wealth does; so the p that are out are an
    interval from 0. Rises with k, falls with n and with p. float64 in the broadcast shape of k, n
    and p. Raises ArgumentError unless 0 <= k <= n, n >= 1, 0 < p < 1, shape > 0.
    """
    hits, trials = binomial(k, n)
    p = inside(p, "p")
    validate.positive(shape, "shape")
    misses = trials - hits + shape
    with np.errstate(divide="ignore"):  # log 0 = -inf is right: no evidence at all
        beyond = np.log(betaincc(hits + 1, misses, p))
    wealth = beyond + np.log(shape) + betaln(hits + 1, misses)
    return np.asarray(wealth - xlogy(hits, p) - xlog1py(misses, -p) - _room(trials))


def anytime_p_value(k: Counts, n: Counts, p: float | np.ndarray, shape: float = 1.0) -> np.ndarray:
    """P value against "the success probability is at most p", valid at any number of samples.

    It is ever at most alpha with chance at most alpha. The smallest over several looks of the same
    samples is one too. Arguments and errors as for `log_evidence`.
    """
    return np.exp(-np.clip(log_evidence(k, n, p, shape), 0.0, 700.0))  # small, but not 0


def anytime_lower_bound(k: Counts, n: Counts, alpha: float, shape: float = 1.0) -> np.ndarray:
    """Lower bounds of a success probability: with chance 1 - alpha or more all hold, for all n at once.

    k of the first n samples succeeded; whatever decides when to look or to stop may see them. The
    largest bound so far is one too. float64 in the broadcast shape of k and n, 0 where k = 0, never
    falls with k. The bound inverts `log_evidence`. Arguments and errors as for `lower_bound` and
    `log_evidence`.
    """
    hits, trials = binomial(k, n)
    target = _target(alpha)
    validate.positive(shape, "shape")
    some = np.maximum(hits, 1)
    misses = trials - some + shape
    constant = np.log(shape) + betaln(some + 1, misses) - _room(trials)

    def curve(odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = expit(odds)
        beyond = np.log(betaincc(some + 1, misses, p))
        wealth = beyond + constant - some * log_expit(odds) - misses * log_expit(-odds)
        return wealth, shape * p * -np.expm1(-wealth) - (some - trials * p)

    bound = _crossing(curve, target, (constant - target) / some, some, trials)
    return np.where(hits == 0, 0.0, bound)


def anytime_upper_bound(k: Counts, n: Counts, alpha: float, shape: float = 1.0) -> np.ndarray:
    """Upper bounds that hold at all n at once: one minus the lower bound of the failures."""
    hits, trials = binomial(k, n)
    return _above(anytime_lower_bound(trials - hits, trials, alpha, shape))


def log_mixture(
    k: Counts, n: Counts, p: float | np.ndarray, a: float = 0.5, b: float = 0.5
) -> np.ndarray:
    """Log wealth against "the success probability is p", with alternatives drawn from Beta(a, b).

    If that is true, it ever reaches log(1 / alpha) with chance at most alpha. Arguments and errors as
    for `log_evidence`; a and b must be > 0.
    """
    hits, trials = binomial(k, n)
    p = inside(p, "p")
    constant = _mixed(hits, trials, a, b)
    return np.asarray(constant - xlogy(hits, p) - xlog1py(trials - hits, -p))


def anytime_interval(
    k: Counts, n: Counts, alpha: float, a: float = 0.5, b: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided bounds (lower, upper): with chance 1 - alpha or more both hold, for all n at once.

    The p against which `log_mixture` is below log(1 / alpha), rounded outward. Arguments and errors as
    for `anytime_lower_bound`; a and b must be > 0.
    """
    hits, trials = binomial(k, n)
    target = _target(alpha)
    # The upper bound is one minus the lower bound of the failures, under the mirrored density.
    k_both, n_both = np.stack([hits, trials - hits]), np.stack([trials, trials])
    some = np.maximum(k_both, 1)
    constant = np.stack([_mixed(some[0], trials, a, b), _mixed(some[1], trials, b, a)])

    def curve(odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wealth = constant - some * log_expit(odds) - (n_both - some) * log_expit(-odds)
        return wealth, n_both * expit(odds) - some

    bound = _crossing(curve, target, (constant - target) / some, some, n_both)
    lower, failures = np.where(k_both == 0, 0.0, bound)
    return lower, _above(failures)


def union_lower_bound(k: Counts, n: Counts, look: Counts, alpha: float) -> np.ndarray:
    """Lower bounds that hold at all looks at once: look j = 1, 2, ... spends alpha / (j (j + 1)).

    Clopper and Pearson's bound at each look, so that all fail together with chance at most alpha. The
    numbers of samples at the looks must be fixed beforehand (Voracek 2024 lets them grow like powers
    of a constant). Raises ArgumentError as `lower_bound` does and where look < 1.
    """
    hits, trials = binomial(k, n)
    number = integers(look, "look")
    if (number < 1).any():
        raise ArgumentError("looks are numbered from 1")
    share = validate.probability(alpha, "alpha") / (number * (number + 1))
    some = np.maximum(hits, 1)
    return np.where(hits == 0, 0.0, betaincinv(some, trials - some + 1, share) * (1 - SLACK))


def _mixed(k: np.ndarray, n: np.ndarray, a: float, b: float) -> np.ndarray:
    """The part of `log_mixture` that does not depend on p."""
    validate.positive(a, "a")
    validate.positive(b, "b")
    return betaln(k + a, n - k + b) - betaln(a, b) - _room(n)


def _target(alpha: float) -> float:
    return -float(np.log(validate.probability(alpha, "alpha")))


def _room(n: np.ndarray) -> np.ndarray:
    """More than the rounding error of a log wealth; its logs of beta functions lose about 4e-15 n."""
    return 1e-9 + 1e-13 * n


def _above(failures: np.ndarray) -> np.ndarray:
    """One minus a lower bound, rounded up."""
    return np.minimum(1.0, np.nextafter(1.0 - failures, 2.0))


def _guess(k: np.ndarray, n: np.ndarray, target: float) -> np.ndarray:
    """Log odds of about the bound, from a normal approximation: where Newton's method may start."""
    p = (k + 0.5) / (n + 1)
    width = np.sqrt(2 * (target + 0.5 * np.log(n)) / (n * p * (1 - p)))
    return np.log(p / (1 - p)) - width


def _crossing(
    curve: _Curve, target: float, outside: np.ndarray, k: np.ndarray, n: np.ndarray
) -> np.ndarray:
    """The probability at whose log odds a convex falling curve meets target, rounded down.

    `outside` is where the curve is known to be above target. A step from anywhere on the falling part
    leads outside or onto the bound. What does not end above target is 0: fail closed.
    """
    odds = np.maximum(outside, _guess(k, n, target))
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            value, slope = curve(odds)
            step = (target - value) / slope
            odds = np.maximum(odds + np.where(np.isfinite(step), step, 0.0), outside)
            if not (np.abs(step) > 1e-13 * (1 + np.abs(odds))).any():
                break
        p = expit(odds) * (1 - SLACK)
        value, _ = curve(np.log(p) - np.log1p(-p))
    # The curve has given up all of _room, and its rounding errors take far less than half of that.
    return np.where(value >= target - _room(n) / 2, p, 0.0)
