"""Softmax and the logarithm of a sum of exponentials."""

from dataclasses import dataclass

from torch import Tensor

from certus.graph.op import Monotone, Op


@dataclass(frozen=True, eq=False)
class Softmax(Op):
    """exp(x_i) / sum_j exp(x_j) along one dimension (the batch is 0 and not allowed).

    Promise: element i does not fall with x_i and does not rise with any other x_j.
    """

    dim: int

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.softmax."""
        return inputs[0].softmax(self.dim)


@dataclass(frozen=True, eq=False)
class LogSumExp(Monotone):
    """log sum_j exp(x_j) along one dimension (the batch is 0 and not allowed): convex."""

    dim: int
    keepdim: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.logsumexp."""
        return inputs[0].logsumexp(self.dim, keepdim=self.keepdim)


@dataclass(frozen=True, eq=False)
class MaskedSoftmax(Op):
    """Softmax along one dimension over the entries that `keep` [1, *shape] leaves in; zero elsewhere.

    What is left out has no influence, however large it is. Every row keeps an entry.
    """

    dim: int
    keep: Tensor

    def forward(self, *inputs: Tensor) -> Tensor:
        """torch.softmax with minus infinity for what is left out."""
        return inputs[0].masked_fill(~self.keep, float("-inf")).softmax(self.dim)
