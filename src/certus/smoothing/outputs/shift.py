"""How far a shift of the input moves the probability of any event, for additive noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from certus.core import ArgumentError
from certus.smoothing.noise import (
    AnisotropicGaussian,
    Gaussian,
    IntegerGaussian,
    Laplace,
    Noise,
    Uniform,
)
from certus.smoothing.noise.rounding import below

_SLACK = 1e-12  # relative; distribution functions are accurate to some 1e-15

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shift:
    """No event's probability p moves further than F(F^-1(p) +- r / scale) when the input moves by r.

    F (`cdf`, with its inverse `quantile`) and scale belong to the noise; r is in the noise's norm and
    input units. Gaussian: F = Phi, scale = sigma (Cohen et al. 2019; Chiang et al. 2020, lemma 1).
    IntegerGaussian: the same, for inputs on its grid. Laplace: its own F (Teng et al. 2020). Uniform:
    p +- r / (2 half_width) (Yang et al. 2020).
    """

    cdf: Curve
    quantile: Curve
    scale: float

    def most(self, p: float, radius: float) -> float:
        """The largest probability within `radius` of where an event has p; rounded up.

        An event of at least this probability at x has, by symmetry, more than p within radius of x.
        """
        if radius == 0.0:
            return min(1.0, p * (1 + _SLACK))
        found = float(self.cdf(self.quantile(np.asarray(p)) + radius / self.scale * (1 + _SLACK)))
        return min(1.0, max(found, p) * (1 + _SLACK))

    def reach(self, lower: np.ndarray, p: float) -> np.ndarray:
        """How far an event of probability >= lower keeps more than p; rounded down, 0 where lower <= p."""
        low = np.asarray(lower, dtype=np.float64)
        ahead = low > p
        high, level = self.quantile(np.where(ahead, low, 0.5)), self.quantile(np.asarray(p))
        gap = below(np.where(ahead, high - level, 0.0), np.abs(high) + abs(float(level)))
        return np.where(ahead, gap * (self.scale * (1 - _SLACK)), 0.0)


def shift_of(noise: Noise) -> Shift:
    """The shift bound of a noise; ArgumentError for one that has none."""
    build = _SHIFTS.get(type(noise))  # of this very class: a subclass may have another law
    if build is not None:
        return build(noise)
    known = ", ".join(kind.__name__ for kind in _SHIFTS)
    raise ArgumentError(f"outputs that are no classes need one of {known} noise, got {noise!r}")


def _laplace_cdf(t: np.ndarray) -> np.ndarray:
    tail = np.exp(-np.abs(t)) / 2
    return np.where(t < 0, tail, 1.0 - tail)


def _laplace_quantile(p: np.ndarray) -> np.ndarray:
    return np.where(p < 0.5, np.log(2 * p), -np.log(2 * (1.0 - p)))


def _clipped(p: np.ndarray) -> np.ndarray:
    return np.clip(p, 0.0, 1.0)


def _itself(p: np.ndarray) -> np.ndarray:
    return p


_SHIFTS: dict[type[Noise], Callable[..., Shift]] = {
    Gaussian: lambda noise: Shift(ndtr, ndtri, noise.sigma),
    IntegerGaussian: lambda noise: Shift(ndtr, ndtri, noise.sigma),
    AnisotropicGaussian: lambda noise: Shift(ndtr, ndtri, float(noise.sigma.min())),
    Laplace: lambda noise: Shift(_laplace_cdf, _laplace_quantile, noise.scale),
    Uniform: lambda noise: Shift(_clipped, _itself, 2 * noise.half_width),
}
