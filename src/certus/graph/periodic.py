"""Sine, cosine and tangent."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph.curved import hull, only_where
from certus.graph.op import Elementwise

_FAR = 1e6  # beyond it positions within a period are not trusted and the range is [-1, 1]


def holds(lower: Tensor, upper: Tensor, start: float, period: float) -> Tensor:
    """Whether [lower, upper] holds one of the points start + k period."""
    first = ((lower.double() - start) / period).ceil()
    return first <= ((upper.double() - start) / period).floor()


@dataclass(frozen=True, eq=False)
class Wave(Elementwise):
    """Promise: sin(x - phase)."""

    @property
    @abstractmethod
    def phase(self) -> float:
        """Where the function crosses zero upwards."""

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """f'(x)."""

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """1 and -1 where a peak or a trough is inside, else the values at the ends."""
        return _range(self.forward(lower), self.forward(upper), lower, upper, self.phase)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The image of the derivative, a wave a quarter of a period ahead."""
        ahead = self.phase - math.pi / 2
        return _range(self.derivative(lower), self.derivative(upper), lower, upper, ahead)

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


def _range(
    at_lower: Tensor, at_upper: Tensor, lower: Tensor, upper: Tensor, phase: float
) -> tuple[Tensor, Tensor]:
    """The range of sin(x - phase) on [lower, upper] given the values at the ends."""
    low, high = hull(at_lower, at_upper)
    far = (lower.abs() > _FAR) | (upper.abs() > _FAR)
    peak = far | holds(lower, upper, phase + math.pi / 2, 2 * math.pi)
    trough = far | holds(lower, upper, phase - math.pi / 2, 2 * math.pi)
    nan = 0 * (low + high)  # one is not a bound of NaN
    return torch.where(trough, nan - 1, low), torch.where(peak, nan + 1, high)


@dataclass(frozen=True, eq=False)
class Sin(Wave):
    """sin(x)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """sin(x)."""
        return inputs[0].sin()

    def derivative(self, x: Tensor) -> Tensor:
        """cos(x)."""
        return x.cos()

    @property
    def phase(self) -> float:
        """0."""
        return 0.0


@dataclass(frozen=True, eq=False)
class Cos(Wave):
    """cos(x)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """cos(x)."""
        return inputs[0].cos()

    def derivative(self, x: Tensor) -> Tensor:
        """-sin(x)."""
        return -x.sin()

    @property
    def phase(self) -> float:
        """-pi / 2."""
        return -math.pi / 2


@dataclass(frozen=True, eq=False)
class Tan(Elementwise):
    """tan(x) between two poles: increasing, concave and then convex."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """tan(x)."""
        return inputs[0].tan()

    def derivative(self, x: Tensor) -> Tensor:
        """1 + tan(x)^2."""
        return 1 + x.tan().square()

    def centre(self, lower: Tensor, upper: Tensor) -> Tensor:
        """In float64: the zero of the branch that holds the interval; NaN where there is none."""
        first = (lower.double() / math.pi).round()
        last = (upper.double() / math.pi).round()
        tame = (upper.abs() <= _FAR) & (lower.abs() <= _FAR)
        same = (first == last) & tame & (lower.tan() <= upper.tan())
        return torch.where(same, first * math.pi, torch.full_like(first, math.nan))

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """tan(l), tan(u); NaN across a pole."""
        low, high = only_where(self.centre(lower, upper).isfinite(), lower, upper)
        return low.tan(), high.tan()

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest at the centre or the end next to it, largest at an end."""
        centre = self.centre(lower, upper)
        low, high = only_where(centre.isfinite(), lower, upper)
        inner = torch.minimum(torch.maximum(centre.to(low.dtype), low), high)
        return hull(self.derivative(low), self.derivative(high), self.derivative(inner))
