"""Interval bound propagation (Gowal et al. 2018), the specification folded into the last layers."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.bounding.arithmetic import Arithmetic, arithmetic
from certus.bounding.backward import Query
from certus.bounding.base import BoundMethod, check_memory
from certus.bounding.budget import elements
from certus.bounding.maps import Maps
from certus.bounding.search import tightened
from certus.bounding.state import State
from certus.core import Bounds
from certus.graph import Graph
from certus.graph.fusion import needed
from certus.graph.op import Affine
from certus.relax import Interval
from certus.threats import Box, Region


@dataclass(frozen=True)
class IBP(BoundMethod):
    """Interval arithmetic from the region's bounding box, layer by layer.

    The specification is pulled back through the affine operations that follow the last non-linear
    one, and is bounded there on the interval, which is never looser than bounding the logits first.
    rigorous: bounds hold for the network in real arithmetic and for its float evaluation in the dtype
    of the region in any order of summation; see `Crown`. memory: bytes that inputs bounded
    together may take, None for half of what is free.
    """

    rigorous: bool | Arithmetic = False
    memory: int | None = None

    def __post_init__(self) -> None:
        """Validate."""
        check_memory(self.memory)

    def prepare(self, graph: Graph, region: Region) -> State:
        """Intervals of every node that matters; the first layer is exact for any region."""
        with self._arithmetic.context(region.center):
            return self._prepare(self._arithmetic.graph(graph), region)

    def _prepare(self, graph: Graph, region: Region) -> State:
        wanted = needed(graph)
        state = self._arithmetic.state(graph, region, None)
        for position, node in enumerate(graph.nodes):
            if position not in wanted or position == 0:
                continue
            if not isinstance(region, Box) and not isinstance(node.op, Affine):
                for source in node.inputs:
                    if affine_in_input(graph, source):
                        state.intervals[source] = _exact(state, source, self._arithmetic)
            state.intervals[position] = self._arithmetic.step(graph, node, state.intervals)
        return state

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """Folded lower and upper bounds."""
        with self._arithmetic.context(rows):
            how, query = self._arithmetic, Query(state.graph.output, Maps(rows))
            found = how.answer(state, query)
            low, high = how.raised(state, rows, found.lower), how.raised(state, -rows, -found.upper)
            return Bounds(low, -high)

    def lower(self, state: State, rows: Tensor) -> Tensor:
        """Lower bounds alone, at half the price."""
        with self._arithmetic.context(rows):
            how = self._arithmetic
            found = how.walk(state, both=False).run(state.graph.output, Maps(rows))
            return how.raised(state, rows, found)

    def under(self, arithmetic: Arithmetic) -> "IBP":
        """Interval arithmetic of another kind."""
        return replace(self, rigorous=arithmetic)

    @property
    def _arithmetic(self) -> Arithmetic:
        return arithmetic(self.rigorous)


def affine_in_input(graph: Graph, position: int) -> bool:
    """Whether a node, not the input itself, is an affine function of the input."""
    before = needed(graph, position) - {0}
    return bool(before) and all(isinstance(graph.nodes[i].op, Affine) for i in before)


def _exact(state: State, position: int, how: Arithmetic) -> Interval:
    """The range of every value of a node that is an affine function of the input."""
    before = state.intervals[position]
    lower = before[0]
    every = torch.ones_like(lower, dtype=torch.bool).reshape(len(lower), -1)
    room = elements(lower.device, lower.dtype, None)
    return how.met(state, position, before, tightened(state, position, every, how.answer, room))
