"""State: what a bound method knows about a network on a region."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from certus.graph import Graph
from certus.graph.fusion import needed
from certus.graph.op import Affine, Input
from certus.relax import Interval, Relaxation
from certus.threats import Region


class Table(Protocol):
    """A relaxation for each class of operations, such as `certus.relax.relaxations`."""

    def __getitem__(self, kind: type) -> Callable[..., Any]:
        """The rule (op, intervals of its inputs) -> Relaxation; UnsupportedError where there is none."""


class Relaxations(Mapping[int, Relaxation]):
    """The relaxations of the non-linear nodes of a graph by position, each made when it is asked for.

    One rests on the intervals that its node's inputs have by then; who changes intervals changes them
    before. `given` stand for those that would be made. Without a table there are none.
    """

    def __init__(
        self,
        graph: Graph,
        intervals: Mapping[int, Interval],
        table: Table | None,
        given: Mapping[int, Relaxation] | None = None,
    ) -> None:
        self._graph, self._intervals, self._table = graph, intervals, table
        self._given = {} if given is None else given
        # by position, and by whether gradients are recorded: what is made without has none
        self._made: dict[tuple[int, bool], Relaxation] = {}

    def __getitem__(self, position: int) -> Relaxation:
        """The relaxation of a node; KeyError where it has none, UnsupportedError where no rule."""
        if position in self._given:
            return self._given[position]
        if self._table is None or position not in self:
            raise KeyError(position)
        key = position, torch.is_grad_enabled()
        if key not in self._made:
            node = self._graph.nodes[position]
            own = [self._intervals[source] for source in node.inputs]
            self._made[key] = self._table[type(node.op)](node.op, *own)
        return self._made[key]

    def __contains__(self, position: object) -> bool:
        """Whether a node is non-linear, and there is a table."""
        assert isinstance(position, int)
        bent = not isinstance(self._graph.nodes[position].op, Affine | Input)
        return bent and self._table is not None

    def __iter__(self) -> Iterator[int]:
        """The nodes that the output is computed from, in order."""
        return (position for position in sorted(needed(self._graph)) if position in self)

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)


@dataclass(frozen=True, eq=False)
class State:
    """What a method knows about a network on a region before it is asked for a specification.

    intervals maps node positions to bounds [B, *shape]. table: how non-linear nodes are relaxed on
    them; None for pure interval arithmetic. What is computed from these fields, `replace` leaves
    behind: a state on other intervals relaxes anew.
    """

    graph: Graph
    region: Region
    intervals: dict[int, Interval]
    table: Table | None = None

    @cached_property
    def relaxations(self) -> Mapping[int, Relaxation]:
        """The relaxations of non-linear nodes, made when they are asked for."""
        return Relaxations(self.graph, self.intervals, self.table)

    def select(self, index: Tensor) -> Self:
        """The state of some of the inputs, with repetitions: index is int64 [M] or bool [B].

        A subclass with further fields says what they are then.
        """
        intervals = {i: (low[index], high[index]) for i, (low, high) in self.intervals.items()}
        return replace(self, region=self.region.select(index), intervals=intervals)
