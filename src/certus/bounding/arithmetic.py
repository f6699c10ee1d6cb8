"""How a method computes: in floats as they come, or rigorously; the parts that differ."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from certus.bounding.backward import Query, Rows, Walk
from certus.bounding.base import Interval, State
from certus.bounding.engine import engine_of
from certus.bounding.gamma import less, more, plain_sums
from certus.bounding.outward import outward
from certus.bounding.rigorous import RigorousState, RigorousWalk, evaluation_error
from certus.bounding.safe_lines import safe_lines
from certus.bounding.signs import signs
from certus.core import Bounds, Rules
from certus.graph import Graph
from certus.graph.fusion import fused
from certus.graph.graph import Node
from certus.graph.op import Op
from certus.relax import Relaxation
from certus.relax import intervals as interval_rules
from certus.threats import Region


def step(node: Node, intervals: dict[int, Interval]) -> Interval:
    """The interval of one node from those of its inputs."""
    found: Interval = interval_rules[type(node.op)](node.op, *[intervals[i] for i in node.inputs])
    return found


class Arithmetic:
    """Bounds as floats give them: no rounding is accounted for."""

    walk: type[Walk] = Walk

    def context(self, like: Tensor) -> AbstractContextManager[None]:
        """What bounds are computed under."""
        return nullcontext()

    def graph(self, graph: Graph) -> Graph:
        """The graph that is walked: normalisations fused with what they follow."""
        return fused(graph)

    def state(self, graph: Graph, region: Region) -> State:
        """A state that knows the input alone."""
        return State(graph, region, {0: (region.lower, region.upper)}, {})

    def step(self, graph: Graph, node: Node, intervals: dict[int, Interval]) -> Interval:
        """The interval of a node from those of its inputs."""
        return step(node, intervals)

    def relax(self, slopes: Rules, graph: Graph, op: Op, own: Sequence[Interval]) -> Relaxation:
        """The relaxation of an operation by a table, on the intervals of its inputs."""
        found: Relaxation = slopes[type(op)](op, *own)
        return found

    def bounds(self, state: State, start: int, rows: Rows, pick: slice | None = None) -> Bounds:
        """Both bounds [R, B] of rows by one walk."""
        return self.answer(state, Query(start, rows, pick))

    def answer(self, state: State, query: Query) -> Bounds:
        """Bounds of inner numbers; a side that cannot change their sign may be infinite."""
        if query.likely is not None:
            return signs(state, query)
        return query.bounds(
            self.walk(state, both=True, pick=query.pick).run(query.start, query.rows)
        )

    def met(self, state: State, position: int, before: Interval, found: Interval) -> Interval:
        """The interval of a node after a search, from that before it and the search's."""
        return found


class Rigorous(Arithmetic):
    """Bounds of the exact network and of every float evaluation of it in the dtype of the bounds."""

    walk = RigorousWalk

    def context(self, like: Tensor) -> AbstractContextManager[None]:
        """Full precision and plain sums."""
        return plain_sums(like)

    def graph(self, graph: Graph) -> Graph:
        """As it is: fusion rounds weights."""
        return graph

    def state(self, graph: Graph, region: Region) -> State:
        """A state with room for charges."""
        return RigorousState(graph, region, {0: (region.lower, region.upper)}, {})

    def step(self, graph: Graph, node: Node, intervals: dict[int, Interval]) -> Interval:
        """Rounded outward."""
        return outward(graph, node, intervals)

    def relax(self, slopes: Rules, graph: Graph, op: Op, own: Sequence[Interval]) -> Relaxation:
        """The table's slopes with offsets that are safe."""
        safe, engine = safe_lines[type(op)], engine_of(graph, own[0][0].dtype)
        found: Relaxation = safe(op, slopes[type(op)](op, *own), *own, engine)
        return found

    def met(self, state: State, position: int, before: Interval, found: Interval) -> Interval:
        """The node's own rounding once more: a search may start at the input of an affine node.

        It then takes the weights as rows and adds the bias to the result.
        """
        error = evaluation_error(state.graph, position, state.intervals)
        if error is None:
            return found
        error = more(error.detach())
        lower, upper = less(found[0]) - error, -less(-found[1]) + error
        return torch.maximum(before[0], less(lower)), torch.minimum(before[1], -less(-upper))


PLAIN, RIGOROUS = Arithmetic(), Rigorous()


def arithmetic(rigorous: bool | Arithmetic) -> Arithmetic:
    """The one that a method's field asks for."""
    if isinstance(rigorous, Arithmetic):
        return rigorous
    return RIGOROUS if rigorous else PLAIN
