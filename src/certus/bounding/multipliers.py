"""Multipliers: what proves lower bounds beside a state, so that a later bound may start from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.graph import Graph

Slopes = Mapping[int, Tensor]  # by position


@dataclass(frozen=True, eq=False)
class Multipliers:
    """For rows of a specification and the inputs of a state; any value in its range proves a bound.

    slopes: by the position of a non-linear node whose relaxation leaves the lower slope open, the
    slopes that rows have chosen, [R, B, *shape], or [1, B, *shape] where they share them.
    """

    slopes: Slopes = field(default_factory=dict)

    def select(self, index: Tensor) -> "Multipliers":
        """Those of some inputs, with repetitions: index is int64 [M] or bool [B]."""
        return Multipliers({at: slopes[:, index] for at, slopes in self.slopes.items()})

    def part(self, rows: slice, inputs: slice) -> Slopes:
        """The slopes of some rows and inputs."""
        return {
            at: (slopes if len(slopes) == 1 else slopes[rows])[:, inputs]
            for at, slopes in self.slopes.items()
        }

    def check(self, graph: Graph, rows: int, inputs: int) -> None:
        """ArgumentError where these are not for so many rows and inputs."""
        for at, slopes in self.slopes.items():
            shape = (inputs, *graph.nodes[at].shape)
            if slopes.shape not in [(count, *shape) for count in (1, rows)]:
                wanted = list((rows, *shape))
                raise ArgumentError(f"slopes of node {at} are {list(slopes.shape)}, not {wanted}")


def joined(columns: Sequence[Sequence[tuple[int, Slopes]]]) -> Multipliers:
    """The multipliers of all pieces: for each group of inputs the numbers of rows, and their slopes."""
    found = [_rows_joined(column) for column in columns]
    if len(found) == 1:
        return Multipliers(found[0])
    return Multipliers({at: torch.cat([part[at] for part in found], 1) for at in found[0]})


def _rows_joined(column: Sequence[tuple[int, Slopes]]) -> Slopes:
    if len(column) == 1:
        return column[0][1]
    return {
        at: torch.cat([part[at].expand(count, *part[at].shape[1:]) for count, part in column])
        for at in column[0][1]
    }
