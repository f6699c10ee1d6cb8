"""Rules that give every input a deviation of its own, and how fast it may change, by proof."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.core.fingerprint import fingerprint

_CHUNK = 2**20  # values of points that are compared at once
_EPS = float(np.finfo(np.float64).eps)
_WITHIN = 40.0  # no certified radius is as many deviations


class SemiElastic(ABC):
    """A rule sigma(x) > 0 with |log sigma(x) - log sigma(x')| <= r |x - x'|_2 for all x and x'.

    A leaf states r (1 / input units) because its formula is proven to obey it: certificates rest on
    that, nothing checks it. An r that was found by measuring differences is none.
    """

    r: float

    @abstractmethod
    def at(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Deviations of x [B, *shape] and what rounding may have cost, both float64 [B].

        The first must be the same whatever else is in the batch, and one constant where r = 0. The second
        bounds the sum of |log computed - log exact| at x and at any x' within 40 sigma(x). Raises
        ArgumentError for inputs that the rule is not about.
        """


@dataclass(frozen=True, eq=False, repr=False)
class NearestPoints(SemiElastic):
    """sigma(x) = sigma exp(r (d(x) - distance)), d(x) the mean L2 distance to the k nearest of the points.

    points [N, *shape], 1 <= k <= N; sigma > 0, distance in input units, r >= 0 in 1 / input units.
    Each order statistic of N distances is 1-Lipschitz in x, and so is a mean of them, so that the rule is
    r-semi-elastic by construction (Sukenik et al. 2022, section 4, with points from the training set).
    Distances are computed in float64 from differences. The points are part of the classifier: chosen
    before the inputs, never by them.
    """

    points: Tensor
    sigma: float = field(kw_only=True)
    r: float = field(kw_only=True)
    k: int = field(default=1, kw_only=True)
    distance: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse points that are no finite batch and numbers out of range; keep a copy of the points."""
        kept = validate.inputs(self.points).detach().to(device="cpu", copy=True)
        object.__setattr__(self, "points", kept)
        validate.positive(self.sigma, "sigma")
        for name, value in (("r", self.r), ("distance", self.distance)):
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ArgumentError(f"{name} must be a finite number >= 0, got {value!r}")
        if validate.count(self.k, "k") > len(kept):
            raise ArgumentError(f"k ({self.k}) must not exceed the {len(kept)} points")

    def __repr__(self) -> str:
        """Its numbers and the hash of its points."""
        numbers = f"sigma={self.sigma}, r={self.r}, k={self.k}, distance={self.distance}"
        return f"NearestPoints({fingerprint([('points', self.points)])}, {numbers})"

    def distances(self, x: Tensor) -> np.ndarray:
        """d(x) of inputs [B, *shape], float64 [B]."""
        x = validate.inputs(x)
        if x.shape[1:] != self.points.shape[1:]:
            raise ArgumentError(
                f"the points have shape {tuple(self.points.shape[1:])}, "
                f"the inputs {tuple(x.shape[1:])}"
            )
        rows = x.detach().to(device="cpu", dtype=torch.float64).flatten(1)
        return np.array([self._nearest(row) for row in rows])

    def at(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The deviations, and a bound of all rounding; sigma itself and 0 where r is 0."""
        found = self.distances(x)
        if self.r == 0:
            return np.full(len(found), float(self.sigma)), np.zeros(len(found))
        with np.errstate(over="ignore"):
            exact = self.sigma * np.exp(self.r * (found - self.distance))
        # Sums of squares err by a share of size * eps; d(x') <= d(x) + |x' - x|.
        share = (self.points[0].numel() + self.k + 16) * _EPS
        reach = 2 * found + _WITHIN * exact + 2 * self.distance
        return exact, 16 * _EPS + self.r * reach * share

    def _nearest(self, row: Tensor) -> float:
        step = max(1, _CHUNK // len(row))
        least = torch.empty(0, dtype=torch.float64)
        for part in self.points.split(step):
            far = (part.to(torch.float64).flatten(1) - row).square().sum(1).sqrt()
            both = torch.cat([least, far])
            least = both.topk(min(self.k, len(both)), largest=False).values
        return float(least.mean())
