"""Cube: the L-inf ball around an input, cut by the clip range, with limits rounded the sound way."""

from collections.abc import Sequence

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.threats.box import Box, rounded


class Cube(Box):
    """{x' : |x' - x| <= eps elementwise, inside clip}; eps is float64 [B, *shape].

    The limits are computed in float64. lower and upper, which bounds are computed from, are rounded
    outward to the dtype of x; `project` and `sample` stay within limits rounded inward; `contains`
    compares with the float64 limits. So a certificate covers the whole ball, and a counterexample
    lies in it, however the limits round.
    """

    def __init__(self, x: Tensor, eps: Tensor, clip: tuple[float, float] | None = None) -> None:
        low, high = x.double() - eps, x.double() + eps
        if clip is not None:
            low, high = low.clamp(*clip), high.clamp(*clip)
        super().__init__(rounded(low, x.dtype, up=False), rounded(high, x.dtype, up=True))
        self._limits = (low, high)
        inside = (rounded(low, x.dtype, up=True), rounded(high, x.dtype, up=False))
        self._inside = (torch.minimum(inside[0], x), torch.maximum(inside[1], x))
        self._x, self._eps, self._clip = x, eps, clip

    def project(self, x: Tensor) -> Tensor:
        """The nearest point in every Lp norm, up to rounding inward."""
        return torch.minimum(torch.maximum(x, self._inside[0]), self._inside[1])

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Uniform, then projected."""
        return self.project(super().sample(generators))

    def contains(self, x: Tensor) -> Tensor:
        """Comparison of every coordinate with the limits in float64."""
        low, high = self._limits
        return ((x.double() >= low) & (x.double() <= high)).flatten(1).all(1)

    def region(self, x: Tensor) -> "Cube":
        """Itself, for the inputs that it was made for: a cube is no threat for others."""
        if x.shape != self._x.shape or not bool(self.contains(x).all()):
            raise ArgumentError(
                "a cube is the region of its own inputs; use Linf(eps) as the threat"
            )
        return self

    def select(self, index: Tensor) -> "Cube":
        """Some of the cubes."""
        return Cube(self._x[index], self._eps[index], self._clip)
