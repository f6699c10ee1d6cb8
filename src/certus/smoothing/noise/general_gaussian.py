"""Generalised Gaussian noise: Gaussian tails around a singular centre (Zhang et al. 2020)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtri
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.isotropic import Event, Isotropic, Narrower
from certus.smoothing.noise.rounding import normal_gap

_LEAST = 1e-12  # probabilities below it are counted as this
_GIVE = tuple(
    10.0**-digits for digits in range(9, 0, -1)
)  # shares of a radius that are given up in turn


@dataclass(frozen=True)
class GeneralGaussian(Noise):
    """Noise of density proportional to |z|^(-2 k) exp(-|z|^2 / (2 s^2)) on inputs of `size` values.

    s = sigma sqrt(size / (size - 2 k)), so that E |z|^2 = sigma^2 size as for Gaussian noise of
    deviation sigma > 0, which is k = 0. 0 <= 2 k < size, size >= 2 (Zhang et al. 2020; Li et al. 2022,
    DSRS, who take size - 2 k = 24 or so).

    Certifies L2. The event that a shift harms most is a union of caps of spheres (`Event`), whose
    masses are one-dimensional integrals; the radius is where the smallest probability of the top
    class falls to the largest of another. Over all smaller shifts the top class has more: with the
    event fixed, growing the shift moves every cap against its own side. One number for each pair of
    probabilities takes about 20 ms. It is tight for pA alone, to about 1e-8 of its value, below which
    it stays: weak duality, with the quadrature's estimated error taken off (`Event.least`). A
    probability of the others below 1e-12 counts as 1e-12.
    The proof is about real-valued noise; floating-point draws stand for it.
    """

    sigma: float
    k: int
    size: int
    norm: ClassVar[str] = "l2"

    def __post_init__(self) -> None:
        """Refuse a sigma that is no finite number above zero, and k and size that do not fit."""
        validate.positive(self.sigma, "sigma")
        validate.count(self.k, "k", 0)
        if validate.count(self.size, "size", 2) <= 2 * self.k:
            raise ArgumentError(f"size ({self.size}) must exceed 2 k ({2 * self.k})")

    @property
    def scale(self) -> float:
        """s of the density, in input units."""
        return self.sigma * math.sqrt(self.size / (self.size - 2 * self.k))

    @property
    def nodes(self) -> int:
        """Quadrature nodes a piece: caps in few dimensions have masses that are less smooth."""
        return 64 if self.size >= 64 else 128 if self.size >= 8 else 384

    @property
    def law(self) -> Isotropic:
        """The law in units of s sqrt(2)."""
        return Isotropic(self.size, self.k)

    def check(self, x: Tensor) -> None:
        """Refuse inputs of another size."""
        if x[0].numel() != self.size:
            raise ArgumentError(
                f"this noise is made for inputs of {self.size} values, got {x[0].numel()}"
            )

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """A uniform direction times a length: squared, it is s^2 times size - 2 k squared normals."""
        out.normal_(generator=generator)
        if self.k == 0:
            out.mul_(self.sigma)
            return
        length = self.lengths(len(out), generator) / out.flatten(1).norm(dim=1).double()
        out.mul_(length.to(out.dtype).view(-1, *(1,) * (out.ndim - 1)))

    def lengths(self, count: int, generator: torch.Generator) -> Tensor:
        """Lengths of so many draws, float64 [count]."""
        parts = torch.empty((count, self.size - 2 * self.k), dtype=torch.float64)
        return self.scale * parts.normal_(generator=generator).norm(dim=1)

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """The radius for each pair, found once for equal pairs."""
        pairs = np.stack([lower.ravel(), upper.ravel()])
        distinct, place = np.unique(pairs, axis=1, return_inverse=True)
        found = np.array([_radius(self, float(a), float(b)) for a, b in distinct.T])
        return found[place.ravel()].reshape(lower.shape)

    def threshold(self, radius: float) -> float:
        """The smallest probability whose one-sided radius is at least `radius` > 0, found directly.

        Above the smallest by a share of the rest of about 1e-8.
        """
        shift = validate.positive(radius, "radius") / (self.scale * math.sqrt(2))
        root = increasing_root(
            lambda log: Event(self.law, shift, log).held(self.nodes) - 0.5,
            (radius / self.sigma) ** 2 / 2,
            self._span(shift),
        )
        rest = Event(self.law, shift, root).missed(self.nodes)
        for share in (1e-9, *_GIVE):
            found = 1.0 - rest * (1 - share)
            if float(self.radius(found)) >= radius:
                return found
        return super().threshold(radius)

    def relative_to(self, first: "GeneralGaussian") -> Narrower:
        """This law beside a wider one of the same kind; ArgumentError where it is not one."""
        if (self.size, self.k) != (first.size, first.k) or self.sigma >= first.sigma:
            raise ArgumentError(
                f"the second noise must be the first, {first}, with a smaller sigma, got {self}"
            )
        return Narrower(self.sigma / first.sigma, self.law.shape)

    def tightest(self, missed: float, radius: float) -> Event:
        """The event with P(not S) = missed that a shift of this length (input units) harms most."""
        shift, far = radius / (self.scale * math.sqrt(2)), radius / self.sigma
        root = increasing_root(
            lambda log: missed - Event(self.law, shift, log).missed(self.nodes),
            -far * float(ndtri(missed)) - far**2 / 2,
            self._span(shift),
        )
        return Event(self.law, shift, root)

    def _span(self, shift: float) -> float:
        """No logarithm of a likelihood ratio within the range of integration is larger."""
        t, _ = self.law.lengths(self.nodes)
        ends = np.array([t[0] ** 2, (t[-1] + shift) ** 2])
        low, high = self.law.energy(ends)
        return float(high - low) + 1.0


@lru_cache(maxsize=4096)
def _radius(noise: GeneralGaussian, lower: float, upper: float) -> float:
    """Largest radius at which the least of the top class is above the most of another."""
    if upper == 0.0:
        return math.inf
    rests = [max(_LEAST, rest) for rest in dict.fromkeys((1.0 - lower, upper))]

    def gap(radius: float, sure: bool = False) -> float:
        if radius == 0:
            return lower - upper
        events = [(noise.tightest(rest, radius), rest) for rest in rests]
        found = [
            event.least(rest, 1.0, 2 * noise.nodes) if sure else event.dual(rest, 1.0, noise.nodes)
            for event, rest in events
        ]
        return found[0] + found[-1] - 1.0

    top = 1.1 * noise.sigma * float(normal_gap(np.array(lower), np.array(upper)))
    while gap(top) > 0:
        top *= 1.25
    edge = brentq(gap, 0.0, top, xtol=1e-13 * noise.sigma, rtol=1e-12)
    return given_up(edge, lambda radius: gap(radius, sure=True) > 0)


def given_up(radius: float, holds: Callable[[float], bool]) -> float:
    """The radius less the smallest share in turn for which `holds` confirms it; 0 where none does."""
    for share in _GIVE:
        if holds(radius * (1 - share)):
            return radius * (1 - share)
    return 0.0


def increasing_root(function: Callable[[float], float], guess: float, span: float) -> float:
    """Root of an increasing function near a guess; -span or span where it lies beyond."""
    low = high = min(span, max(-span, guess))
    width = 0.1 + 0.1 * abs(guess)
    while function(low) > 0:
        if low == -span:
            return low
        low, high = max(-span, low - width), low
        width *= 4
    while function(high) < 0:
        if high == span:
            return high
        low, high = high, min(span, high + width)
        width *= 4
    return float(brentq(function, low, high, xtol=1e-12)) if low < high else low
