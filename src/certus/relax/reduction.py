"""Planes for an operation that makes one value of all values along some dimensions."""

from dataclasses import dataclass

from torch import Tensor

from certus.relax.lines import Relaxation
from certus.threats.box import inner


@dataclass(frozen=True, eq=False)
class Reduction(Relaxation):
    """sum lower_slope x + lower_offset <= z <= sum upper_slope x + upper_offset.

    Slopes are [B, *in]; offsets are [B, *in] with the reduced dimensions of size one.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Each coefficient goes to all values that were reduced."""
        kept = rows.reshape(*rows.shape[:2], *self.lower_offset.shape[1:])
        above, below = kept.clamp(min=0), kept.clamp(max=0)
        offset = inner(above, self.lower_offset) + inner(below, self.upper_offset)
        return (above * self.lower_slope + below * self.upper_slope,), offset
