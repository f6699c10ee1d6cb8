"""Activations and max pooling: monotone operations, with the facts that relaxations rest on."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.graph.op import Increasing, Monotone


@dataclass(frozen=True, eq=False)
class Relu(Increasing):
    """max(x, 0): convex, slopes 0 and 1."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """max(x, 0)."""
        return inputs[0].relu()

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class LeakyRelu(Increasing):
    """x where x > 0, else slope * x, with 0 <= slope <= 1: convex."""

    slope: float

    def forward(self, *inputs: Tensor) -> Tensor:
        """Leaky ReLU."""
        return F.leaky_relu(inputs[0], self.slope)

    @property
    def lipschitz(self) -> float:
        """1, since slope <= 1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Clamp(Increasing):
    """min(max(x, low), high) with finite low < high (HardTanh, ReLU6): convex, then concave."""

    low: float
    high: float

    def forward(self, *inputs: Tensor) -> Tensor:
        """Clamp."""
        return inputs[0].clamp(self.low, self.high)

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class SShaped(Increasing):
    """Promise: differentiable, convex for x <= 0 and concave for x >= 0, strictly increasing."""

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """f'(x), elementwise; no default is sound, so every leaf writes its own."""


@dataclass(frozen=True, eq=False)
class Sigmoid(SShaped):
    """1 / (1 + exp(-x))."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Sigmoid."""
        return inputs[0].sigmoid()

    def derivative(self, x: Tensor) -> Tensor:
        """s(x) s(-x), exact also where s(x) rounds to one."""
        return x.sigmoid() * (-x).sigmoid()

    @property
    def lipschitz(self) -> float:
        """1/4, the slope at zero."""
        return 0.25


@dataclass(frozen=True, eq=False)
class Tanh(SShaped):
    """Hyperbolic tangent."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """tanh(x)."""
        return inputs[0].tanh()

    def derivative(self, x: Tensor) -> Tensor:
        """4 s(2x) s(-2x) with the sigmoid s."""
        return 4 * (2 * x).sigmoid() * (-2 * x).sigmoid()

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, eq=False)
class MaxPool(Monotone):
    """Largest value of each window over the last two dimensions; padding counts as minus infinity."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch's max_pool2d."""
        return F.max_pool2d(
            inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def windows(self, x: Tensor, fill: float) -> Tensor:
        """[N, C, H, W] -> [N, C, kernel elements, outputs], positions outside the input = fill."""
        padded = F.pad(x, self._margins(x), value=fill)
        n, c = x.shape[:2]
        flat = padded.reshape(n * c, 1, *padded.shape[2:])
        columns = F.unfold(flat, self.kernel, self.dilation, 0, self.stride)
        return columns.view(n, c, columns.shape[1], columns.shape[2])

    def scatter(self, columns: Tensor, size: tuple[int, int]) -> Tensor:
        """Adjoint of `windows`: add [N, C, kernel elements, outputs] back onto [N, C, *size]."""
        n, c = columns.shape[:2]
        left, right, top, bottom = self._margins(columns.new_empty(1, 1, *size))
        padded = (size[0] + top + bottom, size[1] + left + right)
        flat = columns.reshape(n * c, columns.shape[2], columns.shape[3])
        folded = F.fold(flat, padded, self.kernel, self.dilation, 0, self.stride)
        folded = folded.view(n, c, *padded)
        return folded[:, :, top : top + size[0], left : left + size[1]]

    def _margins(self, x: Tensor) -> tuple[int, int, int, int]:
        """Padding left, right, top, bottom so that windows and outputs correspond one to one."""
        with torch.no_grad():
            out = self.forward(torch.zeros(1, 1, *x.shape[2:])).shape[2:]
        sides = []
        for axis in (1, 0):
            reach = (
                (out[axis] - 1) * self.stride[axis]
                + self.dilation[axis] * (self.kernel[axis] - 1)
                + 1
            )
            before = self.padding[axis]
            sides += [before, max(0, reach - before - x.shape[2 + axis])]
        return sides[0], sides[1], sides[2], sides[3]
