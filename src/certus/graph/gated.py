"""Gated activation functions: GELU, SiLU, Mish, HardSwish."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.graph.curved import Curved

_ROOT_HALF = math.sqrt(0.5)
_ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
# extremes and inflections that have no closed form, to all digits of a float64
_GELU_TURN = -0.7517915246935645
_TANH_TURN = -0.7524614220710163
_TANH_BEND = 1.4185040087908284
_MISH_TURN = -1.1924312145154952
_MISH_BENDS = (-2.2563763963607931, 1.4905711794854285)


@dataclass(frozen=True, eq=False)
class Gated(Curved):
    """Promise: x times a sigmoid-like gate: falls to a minimum below zero, then rises to x.

    Concave, convex between two bends, concave; slopes are <= 0 left of the first bend and >= 1
    right of the second.
    """

    @property
    def convex_first(self) -> bool:
        """Concave, convex, concave."""
        return False


@dataclass(frozen=True, eq=False)
class Gelu(Gated):
    """x Phi(x) with the normal distribution Phi, or its approximation by tanh (Hendrycks 2016)."""

    tanh: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """gelu(x)."""
        return F.gelu(inputs[0], approximate="tanh" if self.tanh else "none")

    def derivative(self, x: Tensor) -> Tensor:
        """Phi(x) + x phi(x), or the derivative of the approximation."""
        if not self.tanh:
            density = (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
            return torch.special.erfc(-x * _ROOT_HALF) / 2 + _times(x, density)
        inner = 2 * _ROOT_TWO_OVER_PI * (x + 0.044715 * x.pow(3))
        slope = 2 * _ROOT_TWO_OVER_PI * (1 + 3 * 0.044715 * x.square())
        gate, rest = inner.sigmoid(), (-inner).sigmoid()
        return gate + _times(x * slope, gate * rest)

    @property
    def bends(self) -> tuple[float, ...]:
        """+- sqrt(2), or the zeros of the approximation's second derivative."""
        return (-_TANH_BEND, _TANH_BEND) if self.tanh else (-math.sqrt(2), math.sqrt(2))

    @property
    def turns(self) -> tuple[float, ...]:
        """The minimum."""
        return (_TANH_TURN if self.tanh else _GELU_TURN,)

    @property
    def lipschitz(self) -> float:
        """The slope at the second bend, rounded up."""
        return 1.13


@dataclass(frozen=True, eq=False)
class Silu(Gated):
    """x sigmoid(x)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """silu(x)."""
        return F.silu(inputs[0])

    def derivative(self, x: Tensor) -> Tensor:
        """s(x) (1 + x s(-x))."""
        gate = x.sigmoid()
        return gate + _times(x, gate * (-x).sigmoid())

    @property
    def bends(self) -> tuple[float, ...]:
        """x tanh(x / 2) = 2."""
        return (-2.3993572805154677, 2.3993572805154677)

    @property
    def turns(self) -> tuple[float, ...]:
        """1 + x + exp(x) = 0 with the sign of x turned."""
        return (-1.2784645427610738,)

    @property
    def lipschitz(self) -> float:
        """1.0998.., rounded up."""
        return 1.1


@dataclass(frozen=True, eq=False)
class Mish(Gated):
    """x tanh(log(1 + exp(x))) (Misra 2019)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """mish(x)."""
        return F.mish(inputs[0])

    def derivative(self, x: Tensor) -> Tensor:
        """t + x (1 - t^2) s(x) with t = tanh(softplus(x))."""
        soft = F.softplus(x, 1.0, 60.0)
        rest = 4 * (2 * soft).sigmoid() * (-2 * soft).sigmoid()  # 1 - t^2 without cancellation
        return soft.tanh() + _times(x, rest * x.sigmoid())

    @property
    def bends(self) -> tuple[float, ...]:
        """Zeros of the second derivative."""
        return _MISH_BENDS

    @property
    def turns(self) -> tuple[float, ...]:
        """The minimum."""
        return (_MISH_TURN,)

    @property
    def lipschitz(self) -> float:
        """1.0885.., rounded up."""
        return 1.09


@dataclass(frozen=True, eq=False)
class HardSwish(Gated):
    """x min(max(x + 3, 0), 6) / 6: kinks at -3 and 3, a parabola between them."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """hardswish(x)."""
        return F.hardswish(inputs[0])

    def derivative(self, x: Tensor) -> Tensor:
        """0, (2 x + 3) / 6, 1."""
        middle = (2 * x + 3) / 6
        flat = torch.where(x <= -3, torch.zeros_like(x), middle)
        return torch.where(x >= 3, torch.ones_like(x), flat)

    def convex_derivative(self, x: Tensor) -> Tensor:
        """Those of the parabola at the kinks."""
        return torch.where((x < -3) | (x > 3), self.derivative(x), (2 * x + 3) / 6)

    @property
    def bends(self) -> tuple[float, ...]:
        """The kinks."""
        return (-3.0, 3.0)

    @property
    def turns(self) -> tuple[float, ...]:
        """The minimum of the parabola."""
        return (-1.5,)

    @property
    def lipschitz(self) -> float:
        """1.5, left of 3."""
        return 1.5


def _times(x: Tensor, vanishing: Tensor) -> Tensor:
    """x * vanishing with 0 where the second factor is zero, also for infinite x; NaN stays."""
    return torch.where(vanishing == 0, vanishing, x * vanishing)
