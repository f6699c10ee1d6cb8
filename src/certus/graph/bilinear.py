"""Products of two values that both depend on the network's input."""

from dataclasses import dataclass

from torch import Tensor

from certus.core import ArgumentError
from certus.graph.op import Bilinear


@dataclass(frozen=True, eq=False)
class Mul(Bilinear):
    """x * y, elementwise; shapes broadcast, and both have the same number of dimensions."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, *a] times [B, *b]."""
        same_rank(self.name, *inputs)
        return inputs[0] * inputs[1]


@dataclass(frozen=True, eq=False)
class Product(Bilinear):
    """x y (torch.matmul) over the last two dimensions; x y^T where `transpose_second`.

    x is [B, *, M, K] and y [B, *, K, N] (or [B, *, N, K]); the dimensions * broadcast.
    """

    transpose_second: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, *, M, N]."""
        same_rank(self.name, *inputs)
        if inputs[0].ndim < 3:
            raise ArgumentError("Product needs matrices; reshape vectors to them")
        return inputs[0] @ self.second(inputs[1])

    def second(self, y: Tensor) -> Tensor:
        """The second factor as [*, K, N]."""
        return y.mT if self.transpose_second else y


def same_rank(name: str, *inputs: Tensor) -> None:
    """Refuse values of different numbers of dimensions: broadcasting would move the batch."""
    if len({x.ndim for x in inputs}) > 1:
        shapes = " and ".join(str(tuple(x.shape[1:])) for x in inputs)
        raise ArgumentError(f"{name} of {shapes}: reshape to one number of dimensions first")
