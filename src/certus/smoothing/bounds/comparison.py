"""Radii of Gaussian and Laplace noise by differential privacy, divergences and Neyman-Pearson."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from certus.core import ArgumentError, validate
from certus.smoothing.bounds.divergences import FAMILIES
from certus.smoothing.noise.gaussian import Gaussian
from certus.smoothing.noise.laplace import Laplace

_HALVINGS = 60


@dataclass(frozen=True)
class Bound:
    """One proof: the radius that follows from the probabilities of the top class and the runner-up.

    unit(pA, pB), for 0 <= pB < pA and pA + pB <= 1, is that of noise of scale 1.
    """

    unit: Callable[[float, float], float]

    def __call__(self, top: float, other: float, scale: float) -> float:
        """Certified radius where the top class has probability >= top, every other <= other.

        scale is sigma of Gaussian or the scale of Laplace noise. 0 where top <= other. Raises
        ArgumentError for what are no probabilities of two classes, and for a scale <= 0.
        """
        validate.positive(scale, "scale")
        if not (0 <= other <= 1 and 0 <= top <= 1 and top + other <= 1 + 1e-12):
            raise ArgumentError(
                f"probabilities of two classes must be >= 0 and at most 1 together, got {top}, {other}"
            )
        return scale * self.unit(top, other) if top > other else 0.0


def _private_gaussian(top: float, other: float) -> float:
    """Lecuyer et al. 2019, proposition 1 with the Gaussian mechanism (0 < epsilon <= 1), best epsilon."""
    epsilon = np.linspace(1e-3, 1.0, 1000)
    delta = (top - np.exp(2 * epsilon) * other) / (1 + np.exp(epsilon))
    usable = delta > 0
    if not usable.any():
        return 0.0
    found = epsilon[usable] / np.sqrt(2 * np.log(1.25 / delta[usable]))
    return float(found.max())


def _private_laplace(top: float, other: float) -> float:
    """Lecuyer et al. 2019, proposition 1 with the Laplace mechanism (delta = 0)."""
    return math.log(top / other) / 2 if other > 0 else math.inf


def _diverging(family: str, noise: str, top: float, other: float) -> float:
    """The largest distance at which some order of the family still excludes a tie."""
    chosen = FAMILIES[family]
    spent = {"gaussian": chosen.gaussian, "laplace": chosen.laplace}[noise]
    return max(
        _largest(partial(_below, spent, t, chosen.tie(top, other, t))) for t in chosen.orders
    )


def _below(spent: Callable[[float, float], float], order: float, tie: float, r: float) -> bool:
    return spent(r, order) < tie


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest r for which a property holds that no larger one regains, from below."""
    low, high = 0.0, 1.0
    while holds(high):
        low, high = high, 2 * high
        if high > 1e3:
            return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _table(
    noise: str,
    private: Callable[[float, float], float],
    tight: Callable[[float, float], np.ndarray],
) -> dict[str, Bound]:
    return (
        {"differential privacy": Bound(private)}
        | {name: Bound(partial(_diverging, name, noise)) for name in FAMILIES}
        | {"neyman-pearson": Bound(lambda top, other: float(tight(top, other)))}
    )


GAUSSIAN = _table("gaussian", _private_gaussian, Gaussian(1.0).radius)
"""L2 radius of Gaussian noise of deviation `scale` by each proof.

Differential privacy: Lecuyer et al. 2019; Renyi: Li et al. 2019; total variation, Hellinger, KL,
chi-squared and hockey-stick: Dvijotham et al. 2020; Neyman-Pearson: Cohen et al. 2019, the largest.
"""

LAPLACE = _table("laplace", _private_laplace, Laplace(1.0).radius)
"""L1 radius of Laplace noise of this scale by each proof; sources as for `GAUSSIAN`."""
