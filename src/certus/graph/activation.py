"""Activations and max pooling: monotone operations, with the facts that relaxations rest on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from certus.graph.curved import Curved
from certus.graph.op import Increasing, Monotone


@dataclass(frozen=True, eq=False)
class Relu(Increasing):
    """max(x, 0): convex, slopes 0 and 1."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """max(x, 0)."""
        return inputs[0].relu()

    def overwrite(self, *inputs: Tensor) -> Tensor:
        """max(x, 0) in place."""
        return inputs[0].relu_()

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """0 left of zero, 1 right of it: a neuron that is off passes no error on."""
        return (lower >= 0).to(lower.dtype), (~(upper <= 0)).to(upper.dtype)

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
    """min(max(x, low), high), low < high, one of which may be infinite: convex, then concave."""

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
class Within(Clamp):
    """The identity on a value that lies in [low, high] for reasons that intervals do not see.

    Promise of whoever makes it: no value that can occur lies outside, so the clamp never acts.
    """


@dataclass(frozen=True, eq=False)
class SShaped(Curved, Increasing):
    """Promise: differentiable, convex for x <= 0 and concave for x >= 0, strictly increasing."""

    @property
    def bends(self) -> tuple[float, ...]:
        """Zero."""
        return (0.0,)


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
    """Largest value of each window over the last n dimensions, n = 1, 2 or 3 entries of `kernel`.

    Padding counts as minus infinity.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...] = (1, 1)
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        """A dilation that was left out is one in every dimension."""
        if len(self.dilation) != len(self.kernel) and set(self.dilation) == {1}:
            object.__setattr__(self, "dilation", (1,) * len(self.kernel))

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch's max_pool1d / 2d / 3d."""
        pools: dict[int, Callable[..., Tensor]] = {
            1: F.max_pool1d,
            2: F.max_pool2d,
            3: F.max_pool3d,
        }
        pool = pools[len(self.kernel)]
        return pool(
            inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def windows(self, x: Tensor, fill: float) -> Tensor:
        """[N, C, *space] -> [N, C, kernel elements, outputs], positions outside the input = fill."""
        margins, taps = self._taps(tuple(x.shape[2:]))
        padded = F.pad(x, margins, value=fill)
        return torch.stack([padded[_inner(tap)].flatten(2) for tap in taps], 2)

    def scatter(self, columns: Tensor, size: tuple[int, ...]) -> Tensor:
        """Adjoint of `windows`: add [N, C, kernel elements, outputs] back onto [N, C, *size]."""
        shape = self.forward(columns.new_zeros(1, 1, *size)).shape[2:]
        return self.spread((x.unflatten(2, shape) for x in columns.unbind(2)), size)

    def spread(self, pieces: Iterable[Tensor], size: tuple[int, ...]) -> Tensor:
        """`scatter` with one piece [..., *out] for each kernel element: [..., *size]."""
        margins, taps = self._taps(size)
        before, after = margins[-2::-2], margins[::-2]
        padded = [a + s + b for a, s, b in zip(before, size, after, strict=True)]
        total: Tensor | None = None
        for piece, tap in zip(pieces, taps, strict=True):
            if total is None:
                total = piece.new_zeros(*piece.shape[: -len(size)], *padded)
            view = total[_inner(tap)]
            view += piece
        assert total is not None
        return total[_inner([slice(a, a + s) for a, s in zip(before, size, strict=True)])]

    def _taps(self, size: tuple[int, ...]) -> tuple[list[int], list[tuple[slice, ...]]]:
        """Padding as F.pad takes it, and for each kernel element its slice of the padded input.

        The padding is such that windows and outputs correspond one to one.
        """
        with torch.no_grad():
            out = self.forward(torch.zeros(1, 1, *size)).shape[2:]
        margins: list[int] = []
        ranges = []
        for axis, (k, s, p, d) in enumerate(
            zip(self.kernel, self.stride, self.padding, self.dilation, strict=True)
        ):
            run = (out[axis] - 1) * s + 1
            margins = [p, max(0, run + d * (k - 1) - p - size[axis]), *margins]
            ranges.append([slice(i * d, i * d + run, s) for i in range(k)])
        return margins, list(product(*ranges))


def _inner(slices: Sequence[slice]) -> Any:
    """An index of the last dimensions."""
    return (..., *slices)
