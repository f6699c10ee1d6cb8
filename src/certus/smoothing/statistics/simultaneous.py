"""Bounds of several classes' probabilities that hold together."""

import numpy as np
from scipy.special import chdtri

from certus.core import ArgumentError, validate
from certus.smoothing.statistics.binomial import lower_bound, upper_bound
from certus.smoothing.statistics.counts import classes, level


def bonferroni(counts: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided bounds (lower, upper) of all K classes: all 2 K hold with chance 1 - alpha or more.

    counts [..., K] int64 of independent samples; both results are float64 [..., K]. Exact: Clopper
    and Pearson 1934 at alpha / (2 K) each. For a class chosen on these very samples too, since all
    classes are bounded. Raises ArgumentError for counts < 0 or all 0, K < 2, alpha outside (0, 1).
    """
    tally = classes(counts)
    share = validate.probability(alpha, "alpha") / (2 * tally.shape[-1])
    total = tally.sum(-1, keepdims=True)
    return lower_bound(tally, total, share), upper_bound(tally, total, share)


def goodman(counts: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided score intervals of all classes (Goodman 1965); for comparison, never for a certificate.

    Their joint level is alpha in the limit of many samples only: for rare classes and small alpha they
    fail far more often, as the tests show. Arguments, results and errors as for `bonferroni`.
    """
    tally = classes(counts)
    share = validate.probability(alpha, "alpha") / tally.shape[-1]
    total = tally.sum(-1, keepdims=True)
    quantile = float(chdtri(1.0, share))  # chi-square with one degree of freedom
    spread = np.sqrt(quantile * (quantile + 4 * tally * (total - tally) / total))
    low, high = (quantile + 2 * tally + s * spread for s in (-1, 1))
    scale = 2 * (total + quantile)
    return np.clip(low / scale, 0.0, 1.0), np.clip(high / scale, 0.0, 1.0)


def against_all(counts: np.ndarray, chosen: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """A lower bound of one class and an upper bound of every other one, together at level alpha.

    counts [..., K] int64; chosen is a class that other samples chose. With chance at least 1 - alpha
    the chosen class has probability >= lower and each other one <= upper (float64 [...] both). Half
    of alpha goes to each side, however many classes there are: upper is the bound of the most
    frequent of the others, at least that of the most probable one, and fails only where that one does.
    (A runner-up that *other* samples chose would not do: it need not be the most probable.) upper
    never exceeds 1 - lower, which the lower bound proves by itself; for K = 2 that is all there is, and
    the lower bound gets all of alpha. Raises ArgumentError as `bonferroni` does and where no class is
    `chosen`.
    """
    tally = classes(counts)
    number = tally.shape[-1]
    level(alpha)
    if not 0 <= chosen < number:
        raise ArgumentError(f"chosen must be one of the classes 0..{number - 1}, got {chosen!r}")
    total = tally.sum(-1)
    if number == 2:
        lower = lower_bound(tally[..., chosen], total, alpha)
        return lower, 1.0 - lower
    lower = lower_bound(tally[..., chosen], total, alpha / 2)
    rival = np.delete(tally, chosen, -1).max(-1)
    upper = upper_bound(rival, total, alpha / 2)
    return lower, np.minimum(upper, 1.0 - lower)
