"""Relaxations: linear functions below and above an operation on an interval."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from certus.core import Rules
from certus.relax.pull import pull, recorded_pull

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

    def select(self, pick: slice | Tensor) -> "Relaxation":
        """The relaxation of some inputs of the batch; every tensor field of a leaf is [B, ...]."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        own = {name: v[pick] for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **own)  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class Lines(Relaxation):
    """lower_slope x + lower_offset <= f(x) <= upper_slope x + upper_offset, elementwise [B, *shape].

    lower_offset None means zero.
    """

    lower_slope: Tensor
    lower_offset: Tensor | None
    upper_slope: Tensor
    upper_offset: Tensor
    # where given, every lower slope between the two is as valid (ReLU: any in [0, 1] if undecided)
    floor: Tensor | None = None
    ceiling: Tensor | None = None

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Coefficients >= 0 take the lower line, the others the upper one."""
        given = (self.lower_slope, self.lower_offset, self.upper_slope, self.upper_offset)
        lines = [None if line is None else _laid(line) for line in given]
        slopes = torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (rows, *lines)
        )
        pulled, offset = (recorded_pull if slopes else pull)(rows, *lines)
        return (pulled,), offset


def _laid(maps: Tensor) -> Tensor:
    """Feature maps in the layout that convolutions like best, which rows of maps have too."""
    return maps.contiguous(memory_format=torch.channels_last) if maps.ndim == 4 else maps
