"""Relaxations: linear functions below and above an operation on an interval."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from certus.core import Rules

Interval = tuple[Tensor, Tensor]  # lower and upper bounds [B, *shape]
# (op, intervals of the inputs) -> Relaxation
relaxations = Rules("the linear relaxation")


class Relaxation(ABC):
    """What the backward walk needs of a non-linear operation f on the intervals of its inputs."""

    @abstractmethod
    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """A lower bound of <row, f(x_1, ..., x_k)> that is linear in the inputs.

        rows is [R, B, *out] (or [R, 1, *out]); returns rows' [R, B, *in_i] for every input and offset
        [R, B] with <row, f(x)> >= sum_i <row'_i, x_i> + offset for all x_i in their intervals.
        """


@dataclass(frozen=True, eq=False)
class Lines(Relaxation):
    """lower_slope x + lower_offset <= f(x) <= upper_slope x + upper_offset, elementwise [B, *shape].

    lower_offset None means zero.
    """

    lower_slope: Tensor
    lower_offset: Tensor | None
    upper_slope: Tensor
    upper_offset: Tensor

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Coefficients >= 0 take the lower line, the others the upper one."""
        above, below = rows.clamp(min=0), rows.clamp(max=0)
        offset = _dot(below, self.upper_offset)
        if self.lower_offset is not None:
            offset = offset + _dot(above, self.lower_offset)
        return (above * self.lower_slope + below * self.upper_slope,), offset


def _dot(rows: Tensor, x: Tensor) -> Tensor:
    """[R, B, *shape] with [B, *shape] -> [R, B]."""
    return (rows * x).flatten(2).sum(2)
