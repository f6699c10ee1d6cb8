"""Exponential, logarithm, roots and powers, with their domains."""

import math
from dataclasses import dataclass

from torch import Tensor

from certus.graph.curved import Curved, only_where
from certus.graph.op import Increasing


@dataclass(frozen=True, eq=False)
class Exp(Curved, Increasing):
    """exp(x): convex."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """exp(x)."""
        return inputs[0].exp()

    def derivative(self, x: Tensor) -> Tensor:
        """exp(x)."""
        return x.exp()


@dataclass(frozen=True, eq=False)
class Log(Curved, Increasing):
    """log(x) for x > 0: concave."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """log(x)."""
        return inputs[0].log()

    def derivative(self, x: Tensor) -> Tensor:
        """1 / x."""
        return x.reciprocal()

    @property
    def convex_first(self) -> bool:
        """Concave everywhere."""
        return False

    def domain(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """x > 0."""
        return only_where(lower > 0, lower, upper)


@dataclass(frozen=True, eq=False)
class Sqrt(Curved, Increasing):
    """sqrt(x) for x >= 0: concave."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """sqrt(x)."""
        return inputs[0].sqrt()

    def derivative(self, x: Tensor) -> Tensor:
        """1 / (2 sqrt(x)), infinite at zero."""
        return x.rsqrt() / 2

    @property
    def convex_first(self) -> bool:
        """Concave everywhere."""
        return False

    def domain(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """x >= 0."""
        return only_where(lower >= 0, lower, upper)


@dataclass(frozen=True, eq=False)
class Reciprocal(Curved):
    """1 / x away from zero: concave below zero, convex above, decreasing on both sides."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """1 / x."""
        return inputs[0].reciprocal()

    def derivative(self, x: Tensor) -> Tensor:
        """-1 / x^2."""
        return -x.reciprocal().square()

    @property
    def bends(self) -> tuple[float, ...]:
        """The pole."""
        return (0.0,)

    @property
    def convex_first(self) -> bool:
        """Concave below zero."""
        return False

    def domain(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """x < 0 or x > 0."""
        return only_where((lower > 0) | (upper < 0), lower, upper)


@dataclass(frozen=True, eq=False)
class Power(Curved):
    """x^exponent: on all reals for an integer exponent >= 0, off zero for a negative one;

    for other exponents on x >= 0 (x > 0 if negative).
    """

    exponent: float

    def __post_init__(self) -> None:
        """Infinite exponents are no powers."""
        if not math.isfinite(self.exponent):
            raise ValueError(f"the exponent must be finite, not {self.exponent}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """x^exponent."""
        return inputs[0].pow(self.exponent)

    def derivative(self, x: Tensor) -> Tensor:
        """exponent x^(exponent - 1)."""
        if self.exponent in (0.0, 1.0):  # torch's NaN^0 is 1
            return x * 0 + self.exponent
        return self.exponent * x.pow(self.exponent - 1)

    @property
    def bends(self) -> tuple[float, ...]:
        """Zero for odd integers."""
        return (0.0,) if self._integer and self._odd and self.exponent != 1 else ()

    @property
    def convex_first(self) -> bool:
        """Not for odd integers, nor for roots."""
        if self._integer:
            return not self._odd or self.exponent == 1
        return self.exponent > 1 or self.exponent < 0

    @property
    def turns(self) -> tuple[float, ...]:
        """Zero for positive even integers."""
        return (0.0,) if self._integer and not self._odd and self.exponent > 0 else ()

    def domain(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Where the power is real and finite."""
        if self._integer and self.exponent >= 0:
            return lower, upper
        if self._integer:
            return only_where((lower > 0) | (upper < 0), lower, upper)
        return only_where(lower > 0 if self.exponent < 0 else lower >= 0, lower, upper)

    @property
    def lipschitz(self) -> float:
        """Finite for constants and the identity alone."""
        return self.exponent if self.exponent in (0.0, 1.0) else math.inf

    @property
    def _integer(self) -> bool:
        return float(self.exponent).is_integer()

    @property
    def _odd(self) -> bool:
        return math.fmod(self.exponent, 2) != 0
