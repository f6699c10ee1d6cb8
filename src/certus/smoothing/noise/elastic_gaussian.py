"""Gaussian noise whose deviation is another one at every input (Sukenik, Kuvshinov and Guennemann 2022)."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtri
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.noise.balls import PANELS, mass
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.general_gaussian import given_up
from certus.smoothing.noise.rounding import normal_gap

_SLACK = 1e-11  # taken off every mass; where quadrature and rounding err by more, nothing is proven
_FAR = 50.0  # logarithm of a ratio of deviations, beyond which nothing is proven
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class ElasticGaussian(Noise):
    """Normal noise of deviation sigma (input units) at one input x, of a rule that gives others nearby.

    x has `size` values. At x' the noise has the deviation sigma(x'), which is only known to obey
    |log sigma(x') - log sigma| <= r |x' - x|_2 + rounding (r-semi-elastic; rounding is what was lost
    where the two were computed). r >= 0 in 1 / input units.

    Certifies L2: every x' within the radius keeps the class under its own noise. For two normal laws whose
    means are a apart, of deviations sigma and s, the sets of Neyman and Pearson's lemma are balls (s > sigma)
    or complements of balls (s < sigma). More than 1/2 is left at (a, s) where the set S that has
    1/2 there has less than pA here. Whatever is left at (a, s) is left as well at
    - every smaller distance with the same s: a longer step leads away from the centre of the ball S, or
      towards that of the ball outside S, so what is left falls with the distance;
    - every s' between s and sigma, as far as 1/2 goes. Let s' leave at most 1/2, in S'. For s' >= sigma, a
      ball or half-space: if it holds x', its mass falls further as s' grows to s; if not, a half-space
      parts it from x', and s leaves less than 1/2 too. For s' < sigma the ball outside S' has at least
      1/2, so no half-space parts it from x': it holds x', and its mass grows as s' falls to s.
    So the two ends s = sigma exp(+-(r a + rounding)) at the distance a = radius decide about everything
    nearer. The size matters: the radius is about sigma Phi^-1(pA) / sqrt(1 + 2 r^2 sigma^2 size).

    With an upper bound pB, (1_A - 1_B + 1) / 2 has mean at least (1 + pA - pB) / 2 here, and 1/2 where A
    ceases to win over B. That is sound, tight for pB = 1 - pA and loose otherwise; for pB = 0 no other
    class ever occurs. r = rounding = 0 is `Gaussian`, with its radius, which is tight in both.

    Masses are computed by quadrature (`balls.mass`), twice, and give way by 1e-11; where the two differ by
    more than a quarter of it nothing is proven. The proof is about real-valued noise; floating-point
    draws stand for it, as for `Gaussian`. One radius takes about 20 ms.
    """

    sigma: float
    r: float
    size: int
    rounding: float = 0.0
    norm: ClassVar[str] = "l2"

    def __post_init__(self) -> None:
        """Refuse a sigma that is no finite number above zero, a negative r or rounding, a size below 1."""
        validate.positive(self.sigma, "sigma")
        for name, value in (("r", self.r), ("rounding", self.rounding)):
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ArgumentError(f"{name} must be a finite number >= 0, got {value!r}")
        validate.count(self.size, "size")

    def check(self, x: Tensor) -> None:
        """Refuse inputs of another size: the radius depends on it."""
        if x[0].numel() != self.size:
            raise ArgumentError(
                f"this noise is made for inputs of {self.size} values, got {x[0].numel()}"
            )

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Normal draws of mean 0 and standard deviation sigma."""
        out.normal_(0.0, self.sigma, generator=generator)

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """The radius for each pair, found once for equal pairs."""
        if self.r == self.rounding == 0:
            return self.sigma * normal_gap(lower, upper)
        missed = ((1.0 - lower) + upper) / 2 * (1 + 4 * _EPS)
        distinct, place = np.unique(missed.ravel(), return_inverse=True)
        found = np.array([_radius(self, float(rest)) for rest in distinct])
        return np.where(upper == 0, math.inf, found[place.ravel()].reshape(missed.shape))

    def threshold(self, radius: float) -> float:
        """The smallest probability whose one-sided radius is at least `radius` > 0, found directly.

        Above the smallest by a share of the rest of about 1e-8.
        """
        if self.r == self.rounding == 0:
            return super().threshold(radius)
        rest = self.outside(validate.positive(radius, "radius"))
        for digits in range(9, 0, -1):
            found = 1.0 - rest * (1 - 10.0**-digits)
            if found < 1 and float(self.radius(found)) >= radius:
                return found
        return 1.0  # whose radius is infinite

    def outside(self, radius: float, panels: int = PANELS) -> float:
        """Least probability outside a set of the lemma that has 1/2 at this distance (input units) > 0.

        A class that has more than one minus it here has more than 1/2 there, whichever of the allowed
        deviations is met. Too small by at most some 1e-11; negative where it could not be computed so.
        """
        reach = self.r * radius + self.rounding
        if not reach < _FAR:
            return -1.0
        return min(_outside(self.size, radius / self.sigma, log, panels) for log in (reach, -reach))


@lru_cache(maxsize=4096)
def _radius(noise: ElasticGaussian, rest: float) -> float:
    """Largest radius for a class that is missed with probability at most `rest`; 0 where that is 0."""
    if rest == 0.0:
        return 0.0
    top = -noise.sigma * float(ndtri(rest))  # that of a constant deviation, which is never exceeded
    low = next((top * share for share in (1e-2, 1e-5) if noise.outside(top * share) > rest), None)
    if not top > 0 or low is None:
        return 0.0
    edge = top
    if noise.outside(top) < rest:
        edge = brentq(lambda radius: noise.outside(radius) - rest, low, top, xtol=1e-12 * top)

    def holds(radius: float) -> bool:
        coarse, fine = noise.outside(radius), noise.outside(radius, 2 * PANELS)
        return min(coarse, fine) > rest and abs(coarse - fine) <= _SLACK / 4

    return given_up(edge, holds)


def _outside(size: int, step: float, log_ratio: float, panels: int) -> float:
    """P0(not S) less the slack, for the set S = {z_1 + bend |z|^2 <= level} with P1(S) at least 1/2.

    P0 is the standard normal law; P1 is moved by `step` along z_1 and exp(log_ratio) times as wide,
    under which z_1 + bend |z|^2 = step (1 + q^2) / 2 + q^3 (y_1 + bend / q |y|^2), y standard normal.
    """
    q = math.exp(log_ratio)
    bend = math.expm1(2 * log_ratio) / (2 * step)
    spread = math.sqrt(1 + 2 * (bend / q) ** 2 * size)
    middle = bend / q * size

    def above_half(level: float) -> float:
        return mass(size, bend / q, level, panels) - 0.5 - 2 * _SLACK

    # A median is within one standard deviation of the mean.
    median = brentq(above_half, middle - 2 * spread, middle + 2 * spread, xtol=1e-13 * spread)
    level = step * (1 + q * q) / 2 + q**3 * median
    lost = 4 * _EPS * (abs(level) + abs(median) + abs(bend) * size) / min(spread, q * spread)
    if above_half(median) < -_SLACK / 2 or not lost <= _SLACK / 4:
        return -1.0
    return mass(size, -bend, -level, panels) - _SLACK
