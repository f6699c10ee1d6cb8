"""Cube: the L-inf ball around an input, cut by the clip range, with limits rounded the sound way."""

from torch import Tensor

from certus.core import ArgumentError
from certus.threats.box import Box
from certus.threats.rounding import added


class Cube(Box):
    """{x' : |x' - x| <= eps elementwise, inside clip}; eps is float64 [B, *shape].

    Its limits x - eps and x + eps need not be numbers of any dtype: they are known between two
    neighbours in float64. lower and upper, which bounds are computed from, are rounded outward from the
    outer ones to the dtype of x, members are compared with the inner ones. So a certificate covers the
    whole ball, and a counterexample lies in it, however the limits round.
    """

    def __init__(self, x: Tensor, eps: Tensor, clip: tuple[float, float] | None = None) -> None:
        wide = x.double()
        low, high = added(wide, -eps), added(wide, eps)
        if clip is not None:
            low, high = _clamped(low, clip), _clamped(high, clip)
        super().__init__(low[0], high[1], x.dtype)
        self._limits = (low[1], high[0])
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


def _clamped(pair: tuple[Tensor, Tensor], clip: tuple[float, float]) -> tuple[Tensor, Tensor]:
    return pair[0].clamp(*clip), pair[1].clamp(*clip)
