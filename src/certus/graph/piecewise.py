"""Functions made of lines and of steps: Abs, PReLU, Sign, Step, Floor, Ceil, Round."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph.curved import Curved, clip, hull
from certus.graph.op import Elementwise, Increasing


@dataclass(frozen=True, eq=False)
class Abs(Curved):
    """|x|: convex."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """|x|."""
        return inputs[0].abs()

    def derivative(self, x: Tensor) -> Tensor:
        """The sign, NaN for NaN."""
        return torch.where(x.isnan(), x, x.sign())

    @property
    def turns(self) -> tuple[float, ...]:
        """Zero."""
        return (0.0,)

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Prelu(Elementwise):
    """x where x > 0, else weight x, for a weight of any sign that broadcasts against [B, *shape]."""

    weight: Tensor

    def forward(self, *inputs: Tensor) -> Tensor:
        """PReLU."""
        x = inputs[0]
        return torch.where(x > 0, x, self.weight * x)

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Exact: the extremes lie at the ends or at zero."""
        return hull(*[self.forward(x) for x in (lower, upper, clip(0.0, lower, upper))])

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """1 where x > 0 is in reach, the weight where x < 0 is."""
        nan = 0 * (lower + upper)  # a NaN end leaves no slope
        weight, one = self.weight + nan, torch.ones_like(self.weight) + nan
        return hull(torch.where(upper > 0, one, weight), torch.where(lower < 0, weight, one))

    @property
    def lipschitz(self) -> float:
        """max(|weight|, 1)."""
        return max(1.0, float(self.weight.detach().abs().max()))


@dataclass(frozen=True, eq=False)
class Jumps(Increasing):
    """Promise: piecewise constant and non-decreasing."""

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Zero, and infinity where the interval holds a jump; an end on a jump counts."""
        jump = self.forward(upper) > self.forward(lower)
        zero = 0 * (lower + upper)
        return zero, torch.where(jump, torch.full_like(zero, float("inf")), zero)


@dataclass(frozen=True, eq=False)
class Threshold(Jumps):
    """Promise: constant for x < 0 and for x > 0, and at zero between the two."""


@dataclass(frozen=True, eq=False)
class Sign(Threshold):
    """-1, 0 or 1."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """sign(x), NaN for NaN."""
        return inputs[0].sign() + 0 * inputs[0]


@dataclass(frozen=True, eq=False)
class Step(Threshold):
    """1 where x > 0 (x >= 0 if inclusive), else 0."""

    inclusive: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """The Heaviside step, NaN for NaN."""
        x = inputs[0]
        return (x >= 0 if self.inclusive else x > 0).to(x.dtype) + 0 * x


@dataclass(frozen=True, eq=False)
class Stairs(Jumps):
    """Promise: takes the values of all integers n, and jumps to n at n + `shift`."""

    @property
    @abstractmethod
    def shift(self) -> float:
        """Where the jump to zero lies."""


@dataclass(frozen=True, eq=False)
class Floor(Stairs):
    """The largest integer <= x."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """floor(x)."""
        return inputs[0].floor()

    @property
    def shift(self) -> float:
        """0."""
        return 0.0


@dataclass(frozen=True, eq=False)
class Ceil(Stairs):
    """The smallest integer >= x."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """ceil(x)."""
        return inputs[0].ceil()

    @property
    def shift(self) -> float:
        """-1: above -1 the value is 0."""
        return -1.0


@dataclass(frozen=True, eq=False)
class Round(Stairs):
    """The nearest integer, halves to even."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """round(x)."""
        return inputs[0].round()

    @property
    def shift(self) -> float:
        """-1/2."""
        return -0.5
