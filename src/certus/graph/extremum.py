"""Largest values, order statistics, norms and positions: functions of several values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.graph.bilinear import same_rank
from certus.graph.op import Monotone, Op


@dataclass(frozen=True, eq=False)
class Maximum(Monotone):
    """max(x, y), elementwise; shapes broadcast, and both have the same number of dimensions.

    `certus.graph.composite.maximum` writes it as x + relu(y - x), whose bounds are tighter.
    """

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.maximum."""
        same_rank(self.name, *inputs)
        return torch.maximum(*inputs)


@dataclass(frozen=True, eq=False)
class ReduceMax(Monotone):
    """Largest value over some dimensions (the batch is 0 and not allowed)."""

    dims: tuple[int, ...]
    keepdim: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.amax."""
        return inputs[0].amax(self.dims, keepdim=self.keepdim)


@dataclass(frozen=True, eq=False)
class Sorted(Monotone):
    """Values in ascending order along one dimension (the batch is 0 and not allowed).

    Promise beyond `Monotone`: a value moves by no more than the input that moves most, and all of them
    together by no more than the inputs (in l2).
    """

    dim: int

    def forward(self, *inputs: Tensor) -> Tensor:
        """The values of torch.sort."""
        return inputs[0].sort(self.dim).values


@dataclass(frozen=True, eq=False)
class Norm(Op):
    """The p-norm over some dimensions, p one of 1, 2 and infinity: convex.

    Promise: a function of the absolute values that is non-decreasing in each of them.
    """

    p: float
    dims: tuple[int, ...]
    keepdim: bool = False

    def __post_init__(self) -> None:
        """Validate."""
        if self.p not in (1.0, 2.0, float("inf")):
            raise ArgumentError(f"Norm has p in 1, 2 and infinity, got {self.p}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.linalg.vector_norm."""
        return torch.linalg.vector_norm(inputs[0], self.p, self.dims, self.keepdim)


@dataclass(frozen=True, eq=False)
class ArgMax(Op):
    """Position of the largest value along one dimension, as a number in the input's dtype.

    Bounds count every position that can hold the largest value, so ties may fall either way.
    """

    dim: int
    keepdim: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.argmax."""
        return inputs[0].argmax(self.dim, keepdim=self.keepdim).to(inputs[0].dtype)
