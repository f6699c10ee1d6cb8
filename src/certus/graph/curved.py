"""Elementwise functions with known curvature: facts from which image, slopes and lines follow."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph.op import Elementwise

NAN = float("nan")


def clip(point: float, lower: Tensor, upper: Tensor) -> Tensor:
    """The point of [lower, upper] nearest to `point`; NaN where an end is NaN."""
    at = torch.full_like(lower, point)
    return torch.minimum(torch.maximum(at, lower), upper)


def hull(*values: Tensor) -> tuple[Tensor, Tensor]:
    """Elementwise smallest and largest; NaN where any is NaN."""
    low = high = values[0]
    for value in values[1:]:
        low, high = torch.minimum(low, value), torch.maximum(high, value)
    return low, high


def only_where(inside: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The interval, NaN in both ends where it is not inside the function's domain."""
    nan = torch.full_like(lower, NAN)
    return torch.where(inside, lower, nan), torch.where(inside, upper, nan)


@dataclass(frozen=True, eq=False)
class Curved(Elementwise):
    """Promise: continuous on its domain, alternately convex and concave between `bends` (at most two),

    monotone between `turns`, and `derivative` is its slope (at a kink: any number between the two
    slopes; at a kink that is a bend: the slope on the concave side, `convex_derivative` the other).
    With two bends it is concave, convex, concave, and no slope left of the first bend exceeds one
    right of the second.
    """

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """f'(x), elementwise; no default is sound, so every leaf writes its own."""

    def convex_derivative(self, x: Tensor) -> Tensor:
        """f'(x), but at a kink that is a bend the slope on the convex side."""
        return self.derivative(x)

    @property
    def bends(self) -> tuple[float, ...]:
        """Where the curvature changes its sign, increasing."""
        return ()

    @property
    def convex_first(self) -> bool:
        """Whether f is convex left of the first bend."""
        return True

    @property
    def turns(self) -> tuple[float, ...]:
        """Where f changes from decreasing to increasing or back."""
        return ()

    def domain(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The interval itself, NaN where the function is not defined on all of it."""
        return lower, upper

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Exact: the extremes lie at the ends or at turns."""
        lower, upper = self.domain(lower, upper)
        points = [lower, upper, *[clip(turn, lower, upper) for turn in self.turns]]
        return hull(*[self.forward(point) for point in points])

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Exact: the derivative has its extremes at the ends or at bends."""
        lower, upper = self.domain(lower, upper)
        inner = [clip(bend, lower, upper) for bend in self.bends]
        found = [self.derivative(point) for point in (lower, upper, *inner)]
        return hull(*found, *[self.convex_derivative(point) for point in inner])
