"""Families of divergences: how far a tie is from the class probabilities, and how far a shift goes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

_TINY = 1e-300
_SLACK = 1e-12  # more than rounding makes of equal numbers


@dataclass(frozen=True)
class Family:
    """Divergences D_t(Q, P), one for each t of `orders`, each a proof of its own.

    tie(pA, pB, t): the least D_t of any class probabilities with two equal top classes from those with
    top classes pA > pB. gaussian(r, t) and laplace(r, t): the largest D_t between the noise around two
    points at distance r > 0, in units of sigma (L2) and of the scale (L1). Noise does not get
    farther apart by being classified (data processing), so while the second is below the first, no
    class overtakes the top one (Dvijotham et al. 2020, section 3).
    """

    tie: Callable[[float, float, float], float]
    gaussian: Callable[[float, float], float]
    laplace: Callable[[float, float], float]
    orders: tuple[float, ...] = (1.0,)


def _renyi_tie(top: float, other: float, order: float) -> float:
    """Li et al. 2019, lemma 1: -ln of (the rest + twice the mean of order 1 - t of both)."""
    rest = max(0.0, 1.0 - top - other)
    if math.isinf(order):
        return -math.log(max(_TINY, rest + 2 * other))
    logs = np.log([top, max(other, _TINY)])
    if order == 1:
        mean = float(logs.mean())
    else:
        mean = float(np.logaddexp(*((1 - order) * logs)) - math.log(2)) / (1 - order)
    return -math.log(max(_TINY, rest + 2 * math.exp(mean)))


def _renyi_laplace(r: float, order: float) -> float:
    if math.isinf(order):
        return r
    if order == 1:
        return r + math.expm1(-r)
    if order == 0.5:
        return r - 2 * math.log1p(r / 2)
    up = math.log(order / (2 * order - 1)) + (order - 1) * r
    down = math.log((order - 1) / (2 * order - 1)) - order * r
    return float(np.logaddexp(up, down)) / (order - 1)


def _hockey_tie(top: float, other: float, factor: float) -> float:
    """A convex, piecewise linear function of the probability of both: least at one of its corners.

    Here and below without (1 - factor)+, which it is for equal laws.
    """
    rest = max(0.0, 1.0 - top - other)
    corners = [0.0, 0.5, factor * top, factor * other, (1 - factor * rest) / 2]
    least = min(
        max(0.0, q - factor * top)
        + max(0.0, q - factor * other)
        + max(0.0, 1 - 2 * q - factor * rest)
        for q in (min(0.5, max(0.0, corner)) for corner in corners)
    )
    return least - max(0.0, 1.0 - factor) - _SLACK


def _hockey_gaussian(r: float, factor: float) -> float:
    """The mean of (q / p - factor)+ under p, as in Balle and Wang 2018, theorem 5."""
    if factor < 1:  # the same from the other side, as both laws may be exchanged
        return factor * _hockey_gaussian(r, 1 / factor)
    at = math.log(factor) / r
    return float(ndtr(r / 2 - at) - factor * ndtr(-r / 2 - at))


def _hockey_laplace(r: float, factor: float) -> float:
    if factor < 1:
        return factor * _hockey_laplace(r, 1 / factor)
    return max(0.0, 1.0 - math.sqrt(factor) * math.exp(-r / 2))


def _renyi(*orders: float) -> Family:
    """D_t of Gaussian noise is t r^2 / 2; that of Laplace noise is in Mironov 2017, proposition 6."""
    return Family(_renyi_tie, lambda r, order: order * r * r / 2, _renyi_laplace, orders)


def _hockey(*factors: float) -> Family:
    return Family(_hockey_tie, _hockey_gaussian, _hockey_laplace, factors)


# KL, chi^2 and Hellinger's distance are functions of the Renyi divergences of order 1, 2 and 1/2
# (they order all pairs in the same way), total variation is the hockey stick of factor 1.
FAMILIES = {
    "total variation": _hockey(1.0),
    "hellinger": _renyi(0.5),
    "kl": _renyi(1.0),
    "chi-squared": _renyi(2.0),
    "renyi": _renyi(0.5, 1.0, *(1 + np.logspace(-2, 2.5, 200)).tolist(), 2.0, math.inf),
    "hockey-stick": _hockey(*np.logspace(-3, 3, 601).tolist()),
}
