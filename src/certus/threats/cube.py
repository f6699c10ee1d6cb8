"""Cube: the L-inf ball around an input, cut by the clip range, with limits rounded the sound way."""

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.threats.box import Box
from certus.threats.rounding import added, rounded

_PIECE = 64  # inputs at a time: fresh memory for all at once costs more than the arithmetic


class Cube(Box):
    """{x' : |x' - x| <= eps elementwise, inside clip}; eps is float64 [B, *shape].

    Its limits x - eps and x + eps need not be numbers of any dtype: they are known between two
    neighbours in float64. lower and upper, which bounds are computed from, are rounded outward from the
    outer ones to the dtype of x, members are compared with the inner ones. So a certificate covers the
    whole ball, and a counterexample lies in it, however the limits round.
    """

    def __init__(self, x: Tensor, eps: Tensor, clip: tuple[float, float] | None = None) -> None:
        parts = [
            _limits(*part, clip) for part in zip(x.split(_PIECE), eps.split(_PIECE), strict=True)
        ]
        lower, low, high, upper = (torch.cat(limits) for limits in zip(*parts, strict=True))
        super().__init__(lower, upper, x.dtype)
        self._limits = (low, high)
        self._x, self._eps, self._clip = x, eps, clip

    def region(self, x: Tensor) -> "Cube":
        """Itself, for the inputs that it was made for: a cube is no threat for others."""
        if x.shape != self._x.shape or not bool(self.allows(x).all()):
            raise ArgumentError(
                "a cube is the region of its own inputs; use Linf(eps) as the threat"
            )
        return self

    def select(self, index: Tensor) -> "Cube":
        """Some of the cubes."""
        return Cube(self._x[index], self._eps[index], self._clip)


def _limits(x: Tensor, eps: Tensor, clip: tuple[float, float] | None) -> tuple[Tensor, ...]:
    """The limits in ascending order: outer ones in the dtype of x, inner ones in float64."""
    wide = x.double()
    ends = [*added(wide, -eps), *added(wide, eps)]
    lower, low, high, upper = ends if clip is None else [end.clamp(*clip) for end in ends]
    return rounded(lower, x.dtype, up=False), low, high, rounded(upper, x.dtype, up=True)
