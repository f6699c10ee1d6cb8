"""Activation functions beyond ReLU: the ELU family, Softplus, further S-shaped ones.

The other elementwise operations are named here too, so that one import serves a builder.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.graph.activation import SShaped
from certus.graph.curved import Curved
from certus.graph.gated import Gelu, HardSwish, Mish, Silu
from certus.graph.op import Increasing
from certus.graph.periodic import Cos, Sin, Tan
from certus.graph.piecewise import Abs, Ceil, Floor, Prelu, Round, Sign, Step
from certus.graph.powers import Exp, Log, Power, Reciprocal, Sqrt

__all__ = [
    "Abs",
    "Atan",
    "Ceil",
    "Celu",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSwish",
    "Log",
    "LogSigmoid",
    "Mish",
    "Power",
    "Prelu",
    "Reciprocal",
    "Round",
    "Sign",
    "Silu",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Step",
    "Tan",
]


@dataclass(frozen=True, eq=False)
class Elu(Curved, Increasing):
    """scale x where x > 0, else scale alpha (exp(x) - 1); SELU with its two constants.

    Convex for alpha <= 1; for alpha > 1 convex below zero and with a concave kink at zero.
    """

    alpha: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Other signs would not increase."""
        if not (self.alpha >= 0 and self.scale >= 0):
            raise ValueError(f"ELU needs alpha and scale >= 0, not {self.alpha} and {self.scale}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """scale elu(x, alpha)."""
        return F.elu(inputs[0], self.alpha) * self.scale

    def derivative(self, x: Tensor) -> Tensor:
        """scale, or scale alpha exp(x) below zero."""
        below = self.alpha * x.clamp(max=0).exp()
        return self.scale * torch.where(x >= 0, torch.ones_like(x) + 0 * x, below)

    def convex_derivative(self, x: Tensor) -> Tensor:
        """scale alpha at zero."""
        return torch.where(x == 0, self.scale * self.alpha, self.derivative(x))

    @property
    def bends(self) -> tuple[float, ...]:
        """The kink, where it is concave."""
        return (0.0,) if self.alpha > 1 else ()

    @property
    def lipschitz(self) -> float:
        """scale max(alpha, 1)."""
        return self.scale * max(self.alpha, 1.0)


@dataclass(frozen=True, eq=False)
class Celu(Curved, Increasing):
    """x where x > 0, else alpha (exp(x / alpha) - 1): convex with a continuous slope, alpha > 0."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is not convex."""
        if not self.alpha > 0:
            raise ValueError(f"CELU needs alpha > 0, not {self.alpha}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """celu(x, alpha)."""
        return F.celu(inputs[0], self.alpha)

    def derivative(self, x: Tensor) -> Tensor:
        """exp(min(x, 0) / alpha)."""
        return (x.clamp(max=0) / self.alpha).exp()

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Softplus(Curved):
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold, as torch computes it.

    The switch drops by `jump`, so the function is convex and increasing only up to the jump. With
    threshold = inf there is none.
    """

    beta: float = 1.0
    threshold: float = 20.0

    def __post_init__(self) -> None:
        """Refuse what is not convex."""
        if not (self.beta > 0 and self.threshold >= 0):
            raise ValueError(
                f"Softplus needs beta > 0 and threshold >= 0, not {self.beta}, {self.threshold}"
            )

    def forward(self, *inputs: Tensor) -> Tensor:
        """softplus(x, beta, threshold)."""
        if math.isinf(self.threshold):
            return self.smooth(inputs[0])
        return F.softplus(inputs[0], self.beta, self.threshold)

    def smooth(self, x: Tensor) -> Tensor:
        """The function without a switch: never below `forward`, by at most `jump` above it."""
        return x.clamp(min=0) + (-(self.beta * x).abs()).exp().log1p() / self.beta

    def derivative(self, x: Tensor) -> Tensor:
        """sigmoid(beta x): of the smooth function."""
        return (self.beta * x).sigmoid()

    @property
    def jump(self) -> float:
        """How far the value falls at the switch."""
        return math.log1p(math.exp(-self.threshold)) / self.beta

    def switches(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Whether the switch lies in [lower, upper)."""
        return (self.beta * lower <= self.threshold) & (self.beta * upper > self.threshold)

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """f(l), f(u), and the two values at the switch."""
        low, high = self.forward(lower), self.forward(upper)
        switch = self.switches(lower, upper)
        foot = torch.full_like(low, self.threshold / self.beta)
        low = torch.where(switch, torch.minimum(low, foot), low)
        return low, torch.where(switch, torch.maximum(high, foot + self.jump), high)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Sigmoids, at most 1; across the switch minus infinity unless the jump is below rounding."""
        low, high = self.derivative(lower), self.derivative(upper)
        high = torch.where(self.beta * upper > self.threshold, torch.ones_like(high), high)
        if self._jump_rounds(torch.finfo(lower.dtype).eps):
            return low, high
        fall = torch.full_like(low, -math.inf)
        return torch.where(self.switches(lower, upper), fall, low), high

    @property
    def lipschitz(self) -> float:
        """1, where the jump is no more than a rounding of a float32."""
        return 1.0 if self._jump_rounds(torch.finfo(torch.float32).eps) else math.inf

    def _jump_rounds(self, unit: float) -> bool:
        return math.isinf(self.threshold) or self.jump <= unit * self.threshold / self.beta


@dataclass(frozen=True, eq=False)
class LogSigmoid(Curved, Increasing):
    """log(sigmoid(x)): concave."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """logsigmoid(x)."""
        return F.logsigmoid(inputs[0])

    def derivative(self, x: Tensor) -> Tensor:
        """sigmoid(-x)."""
        return (-x).sigmoid()

    @property
    def convex_first(self) -> bool:
        """Concave everywhere."""
        return False

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Softsign(SShaped):
    """x / (1 + |x|)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """softsign(x)."""
        return F.softsign(inputs[0])

    def derivative(self, x: Tensor) -> Tensor:
        """1 / (1 + |x|)^2."""
        return (1 + x.abs()).square().reciprocal()

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Erf(SShaped):
    """The error function."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """erf(x)."""
        return inputs[0].erf()

    def derivative(self, x: Tensor) -> Tensor:
        """2 / sqrt(pi) exp(-x^2)."""
        return 2 / math.sqrt(math.pi) * (-x.square()).exp()

    @property
    def lipschitz(self) -> float:
        """2 / sqrt(pi), rounded up."""
        return 1.128379167095513


@dataclass(frozen=True, eq=False)
class Atan(SShaped):
    """The inverse tangent."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """atan(x)."""
        return inputs[0].atan()

    def derivative(self, x: Tensor) -> Tensor:
        """1 / (1 + x^2)."""
        return (1 + x.square()).reciprocal()

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0
