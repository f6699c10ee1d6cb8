"""Whole numbers: what fits into their types, and floor division as floats compute it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph.curved import only_where
from certus.graph.op import Increasing
from certus.graph.piecewise import Jumps

# smallest value, and the first one that is too large, of every type of whole numbers
LIMITS: dict[str, tuple[float, float]] = {
    f"int{bits}": (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1)) for bits in (8, 16, 32, 64)
} | {f"uint{bits}": (0.0, 2.0**bits) for bits in (8, 16, 32, 64)}
TRUTH = (0.0, 2.0)


@dataclass(frozen=True, eq=False)
class Fits(Increasing):
    """The identity for low <= x < top, NaN elsewhere: a whole number in a type that holds no others.

    A type of whole numbers wraps around, or does what the machine does; neither has a value here, so
    bounds that reach such numbers are NaN and certify nothing.
    """

    low: float
    top: float

    def forward(self, *inputs: Tensor) -> Tensor:
        """x where it fits."""
        x = inputs[0]
        return torch.where((x >= self.low) & (x < self.top), x, float("nan"))

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The interval itself, if all of it fits."""
        return only_where((lower >= self.low) & (upper < self.top), lower, upper)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """1."""
        one = torch.ones_like(lower)
        return only_where((lower >= self.low) & (upper < self.top), one, one)

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class FloorDivide(Jumps):
    """floor(x / divisor) of the exact quotient, for a divisor > 0 that broadcasts against [B, *shape].

    The rounded quotient may lie on the other side of a whole number: 0.5 / 0.1 is 5 in float32 (where
    0.1 is a little more than a tenth), and its floor division 4. NaN where quotients are so large that
    floats no longer tell.
    """

    divisor: Tensor

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.floor_divide, which rests on the exact remainder."""
        x = inputs[0]
        found = torch.floor_divide(x, self.divisor)
        return torch.where(found.abs() * torch.finfo(x.dtype).eps < 0.25, found, float("nan"))

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The values at the ends, if both are known."""
        low, high = self.forward(lower), self.forward(upper)
        return only_where(~(low.isnan() | high.isnan()), low, high)
