"""Isotropic laws with a singular centre, and what a shift does to them (numerical integration)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import betainc, gammainccinv, gammaincinv, gammaln, wrightomega

_TAIL = 1e-18  # mass of the law that the range of integration leaves out on each side
_BISECTIONS = 52
_LEAST = 1e-150  # squared length of no point that matters


@dataclass(frozen=True)
class Isotropic:
    """The law on R^size, size >= 2, with density proportional to w^-k e^-w at squared length w.

    2 k < size. The squared length has the law Gamma(size / 2 - k), the direction is uniform.
    """

    size: int
    k: int

    @property
    def shape(self) -> float:
        """Shape of the Gamma law of the squared length."""
        return self.size / 2 - self.k

    def energy(self, squared: np.ndarray) -> np.ndarray:
        """Minus the logarithm of the density, but for a constant; it grows with the length."""
        return self.k * np.log(squared) + squared if self.k else squared

    def squared(self, energy: np.ndarray) -> np.ndarray:
        """The squared length of this energy (0 where there is none)."""
        if not self.k:
            return np.maximum(energy, 0.0)
        return self.k * wrightomega(energy / self.k - math.log(self.k))

    def aligned(self, cosine: np.ndarray) -> np.ndarray:
        """Probability that a uniform direction has at most this cosine with a fixed one."""
        half = (self.size - 1) / 2
        return betainc(half, half, np.clip((1 + cosine) / 2, 0.0, 1.0))

    def lengths(self, count: int, cuts: Sequence[float] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Legendre nodes and weights for the mean of a function of the length t, sqrt(w) = t.

        `count` nodes in each piece between the cuts (lengths at which the function is not smooth).
        """
        low, high = _range(self.shape)
        edges = [low, *sorted(c for c in cuts if low < c < high), high]
        x, weight = _legendre(count)
        half = np.diff(edges)[:, None] / 2
        t = (np.array(edges[:-1])[:, None] + half * (1 + x)).ravel()
        log = (2 * self.shape - 1) * np.log(t) - t * t - gammaln(self.shape)
        found = np.exp(log) * (half * weight).ravel()
        return t, found / found.sum()  # large shapes lose digits in the constant


class Second(ABC):
    """A law Q whose density over that of an `Isotropic` P falls with the length: q / p at length w."""

    @abstractmethod
    def log_ratio(self, squared: np.ndarray) -> np.ndarray:
        """ln q / p (-inf where q is 0)."""

    @abstractmethod
    def lengths(self, law: Isotropic, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights for the mean of a function of the length under Q."""

    def cuts(self) -> tuple[float, ...]:
        """Squared lengths at which the ratio jumps."""
        return ()


@dataclass(frozen=True)
class Narrower(Second):
    """The same law, scaled by `ratio` < 1; `shape` is that of P."""

    ratio: float
    shape: float

    def log_ratio(self, squared: np.ndarray) -> np.ndarray:
        """By the change of variables."""
        return -2 * self.shape * math.log(self.ratio) - squared * (self.ratio**-2 - 1)

    def lengths(self, law: Isotropic, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of P, scaled."""
        t, weight = law.lengths(count)
        return t * self.ratio, weight


@dataclass(frozen=True)
class Inner(Second):
    """P, given that the squared length is at most `limit`, which has probability `mass` under P."""

    limit: float
    mass: float

    def log_ratio(self, squared: np.ndarray) -> np.ndarray:
        """1 / mass inside."""
        return np.where(squared <= self.limit, -math.log(self.mass), -np.inf)

    def lengths(self, law: Isotropic, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of P inside, with more weight."""
        t, weight = law.lengths(count, [math.sqrt(self.limit)])
        inside = t * t <= self.limit
        return t[inside], weight[inside] / self.mass

    def cuts(self) -> tuple[float, ...]:
        """The edge."""
        return (self.limit,)


@dataclass(frozen=True)
class Event:
    """The set S of points x with p(x - d) <= l p(x) + n q(x), for a shift d of length `shift` > 0.

    log_first = ln l, log_second = ln n (-inf without a second law). It is the set whose probability
    the shift lowers most, given what p and q say about it (Neyman and Pearson's lemma; Li et al. 2022,
    DSRS, section 4): around d, S cuts every sphere in a cap on the side away from d, so that
    growing the shift lowers P(S - d). As S is the best for its own l and n, the bound `least` with
    fixed l and n falls with the shift too: what holds for one shift holds for every smaller one.
    """

    law: Isotropic
    shift: float
    log_first: float
    log_second: float = -math.inf
    second: Second | None = None

    def missed(self, count: int) -> float:
        """P(not S), with `count` quadrature nodes a piece.

        This and the next two are one-dimensional integrals over the length of the mass of caps. All
        functions are smooth between the cuts, so the error falls geometrically with count.
        """
        t, weight = self.law.lengths(count, [math.sqrt(w) for w in self._cuts()])
        return float(weight @ self._missed(t))

    def missed_second(self, count: int) -> float:
        """Q(not S); 0 without a second law."""
        if self.second is None:
            return 0.0
        t, weight = self.second.lengths(self.law, count)
        return float(weight @ self._missed(t))

    def held(self, count: int) -> float:
        """P(S - d)."""
        t, weight = self.law.lengths(count, [math.sqrt(w) for w in self._kinks()])
        return float(weight @ self._held(t))

    def least(self, missed: float, other: float, count: int) -> float:
        """A lower bound of P(A - d) for every event A with P(not A) <= missed and Q(not A) <= other.

        Weak duality: it holds for whatever l and n. Lower than the integrals by more than their error:
        by the difference of two rules and by a share of 1e-9, where 1e-12 is what the special
        functions are accurate to.
        """
        rough, fine = (self.dual(missed, other, c) for c in (count, count + count // 2))
        return min(rough, fine) - 4 * abs(rough - fine) - 1e-9 * self._scale(missed, other)

    def dual(self, missed: float, other: float, count: int) -> float:
        """What `least` is, but for the errors of integration."""
        first, second = math.exp(self.log_first), math.exp(self.log_second)
        found = self.held(count) + first * (self.missed(count) - missed)
        return found + second * (self.missed_second(count) - other)

    def _scale(self, missed: float, other: float) -> float:
        """How large the numbers are that the bound is computed from."""
        return 1e-2 + math.exp(self.log_first) * missed + math.exp(self.log_second) * other

    def _level(self, squared: np.ndarray) -> np.ndarray:
        """Energy that x - d must have at least for x to be in S: grows with the length of x."""
        factor = np.full_like(squared, self.log_first)
        if self.second is not None:
            factor = np.logaddexp(factor, self.log_second + self.second.log_ratio(squared))
        return self.law.energy(squared) - factor

    def _missed(self, t: np.ndarray) -> np.ndarray:
        """Share of the sphere |x| = t outside S."""
        squared = t * t
        near = self.law.squared(self._level(squared))
        return self.law.aligned((near - squared - self.shift**2) / (2 * self.shift * t))

    def _held(self, t: np.ndarray) -> np.ndarray:
        """Share of the sphere |x - d| = t in S."""
        squared = t * t
        far = self._reach(self.law.energy(squared))
        return self.law.aligned((far - squared - self.shift**2) / (2 * self.shift * t))

    def _reach(self, energy: np.ndarray) -> np.ndarray:
        """The largest squared length of an x in S, where x - d has this energy."""
        if self.second is None:
            return self.law.squared(energy + self.log_first)
        centre = self.second.log_ratio(np.zeros(1))
        top = np.logaddexp(self.log_first, self.log_second + centre)
        low, high = self.law.squared(energy + self.log_first), self.law.squared(energy + top)
        for _ in range(_BISECTIONS):
            middle = np.maximum((low + high) / 2, _LEAST)
            inside = self._level(middle) <= energy
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return low

    def _cuts(self) -> tuple[float, ...]:
        return self.second.cuts() if self.second is not None else ()

    def _kinks(self) -> list[float]:
        """Squared lengths of x - d at which `_reach` has a kink: both sides of each jump of the ratio."""
        found = []
        for edge in self._cuts():
            sides = np.array([edge, np.nextafter(edge, np.inf)])
            found += self.law.squared(self._level(sides)).tolist()
        return found


@lru_cache(maxsize=16)
def _legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(count)


@lru_cache(maxsize=64)
def _range(shape: float) -> tuple[float, float]:
    """Lengths between which all but 2e-18 of the mass lies."""
    return math.sqrt(gammaincinv(shape, _TAIL)), math.sqrt(gammainccinv(shape, _TAIL))
