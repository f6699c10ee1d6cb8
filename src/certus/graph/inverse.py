"""Inverse hyperbolic functions and the inverse sine, with their domains."""

from dataclasses import dataclass

from torch import Tensor

from certus.graph.activation import SShaped
from certus.graph.curved import Curved, only_where
from certus.graph.op import Increasing


@dataclass(frozen=True, eq=False)
class Asinh(SShaped):
    """The inverse hyperbolic sine."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """asinh(x)."""
        return inputs[0].asinh()

    def derivative(self, x: Tensor) -> Tensor:
        """1 / sqrt(1 + x^2)."""
        return (1 + x.square()).rsqrt()

    @property
    def lipschitz(self) -> float:
        """1, the slope at zero."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Acosh(Curved, Increasing):
    """The inverse hyperbolic cosine for x >= 1: concave."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """acosh(x)."""
        return inputs[0].acosh()

    def derivative(self, x: Tensor) -> Tensor:
        """1 / sqrt((x - 1) (x + 1)), infinite at one."""
        return (x - 1).rsqrt() * (x + 1).rsqrt()

    @property
    def convex_first(self) -> bool:
        """Concave everywhere."""
        return False

    def domain(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """x >= 1."""
        return only_where(lower >= 1, lower, upper)


@dataclass(frozen=True, eq=False)
class Atanh(Curved, Increasing):
    """The inverse hyperbolic tangent for -1 < x < 1: concave below zero, convex above."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """atanh(x)."""
        return inputs[0].atanh()

    def derivative(self, x: Tensor) -> Tensor:
        """1 / ((1 - x) (1 + x))."""
        return ((1 - x) * (1 + x)).reciprocal()

    @property
    def bends(self) -> tuple[float, ...]:
        """Zero."""
        return (0.0,)

    @property
    def convex_first(self) -> bool:
        """Concave below zero."""
        return False

    def domain(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """-1 < x < 1."""
        return only_where((lower > -1) & (upper < 1), lower, upper)


@dataclass(frozen=True, eq=False)
class Asin(Curved, Increasing):
    """The inverse sine for -1 <= x <= 1: concave below zero, convex above."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """asin(x)."""
        return inputs[0].asin()

    def derivative(self, x: Tensor) -> Tensor:
        """1 / sqrt((1 - x) (1 + x)), infinite at the ends."""
        return ((1 - x) * (1 + x)).rsqrt()

    @property
    def bends(self) -> tuple[float, ...]:
        """Zero."""
        return (0.0,)

    @property
    def convex_first(self) -> bool:
        """Concave below zero."""
        return False

    def domain(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """-1 <= x <= 1."""
        return only_where((lower >= -1) & (upper <= 1), lower, upper)
