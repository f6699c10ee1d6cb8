"""How a method computes: in floats as they come, or rigorously; the parts that differ."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from certus.bounding.alphas import Alphas
from certus.bounding.backward import Query, Walk
from certus.bounding.engine import engine_of
from certus.bounding.gamma import less, more, plain_sums
from certus.bounding.meter import Meter
from certus.bounding.outer_range import unrounded
from certus.bounding.outward import outward
from certus.bounding.rigorous import RigorousMeter, RigorousState, evaluation_error
from certus.bounding.safe_relaxations import Safe
from certus.bounding.signs import signs
from certus.bounding.state import State, Table
from certus.core import Bounds, UnsupportedError
from certus.graph import Graph
from certus.graph.fusion import fused
from certus.graph.graph import Node
from certus.relax import Interval
from certus.relax import intervals as interval_rules
from certus.threats import Region


def step(node: Node, intervals: dict[int, Interval]) -> Interval:
    """The interval of one node from those of its inputs."""
    found: Interval = interval_rules[type(node.op)](node.op, *[intervals[i] for i in node.inputs])
    return found


class Arithmetic:
    """Bounds as floats give them: no rounding is accounted for."""

    def context(self, like: Tensor) -> AbstractContextManager[None]:
        """What bounds are computed under."""
        return nullcontext()

    def graph(self, graph: Graph) -> Graph:
        """The graph that is walked: normalisations fused with what they follow."""
        return fused(graph)

    def state(self, graph: Graph, region: Region, slopes: Table | None) -> State:
        """A state that knows the input alone, and how to relax by a table of slopes."""
        return State(graph, region, {0: (region.lower, region.upper)}, slopes)

    def meter(self, state: State) -> Meter:
        """What a walk over a state is charged to."""
        return Meter()

    def walk(self, state: State, both: bool, alphas: Alphas | None = None) -> Walk:
        """A walk over a state that such an arithmetic prepared."""
        return Walk(state, both, alphas, self.meter(state))

    def step(self, graph: Graph, node: Node, intervals: dict[int, Interval]) -> Interval:
        """The interval of a node from those of its inputs."""
        return step(node, intervals)

    def answer(self, state: State, query: Query) -> Bounds:
        """Bounds of inner numbers; a side that cannot change their sign may be infinite."""
        if query.likely is not None:
            return signs(state, query)
        return query.bounds(self.walk(state, both=True).run(query.start, query.rows))

    def met(self, state: State, position: int, before: Interval, found: Interval) -> Interval:
        """The interval of a node after a search, from that before it and the search's."""
        return found

    def raised(self, state: State, rows: Tensor, lower: Tensor) -> Tensor:
        """Lower bounds [R, B] of rows of the output, no lower than what is known without a walk."""
        return lower


class Rigorous(Arithmetic):
    """Bounds of the exact network and of every float evaluation of it in the dtype of the bounds."""

    def context(self, like: Tensor) -> AbstractContextManager[None]:
        """Full precision and plain sums."""
        return plain_sums(like)

    def graph(self, graph: Graph) -> Graph:
        """As it is: fusion rounds weights."""
        return graph

    def state(self, graph: Graph, region: Region, slopes: Table | None) -> State:
        """A state with room for charges, whose relaxations are safe."""
        safe = None if slopes is None else Safe(slopes, engine_of(graph, region.center.dtype))
        return RigorousState(graph, region, {0: (region.lower, region.upper)}, safe)

    def meter(self, state: State) -> Meter:
        """Charges for every rounding; UnsupportedError for what was prepared without regard to it."""
        if not isinstance(state, RigorousState):
            raise UnsupportedError("rigorous bounds need a state that a rigorous method prepared")
        return RigorousMeter(state)

    def step(self, graph: Graph, node: Node, intervals: dict[int, Interval]) -> Interval:
        """Rounded outward."""
        return outward(graph, node, intervals)

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

    def raised(self, state: State, rows: Tensor, lower: Tensor) -> Tensor:
        """As on the output's interval where that takes no rounding: a walk rounds even exact steps."""
        return torch.maximum(lower, unrounded(rows, state.intervals[state.graph.output]))


PLAIN, RIGOROUS = Arithmetic(), Rigorous()


def arithmetic(rigorous: bool | Arithmetic) -> Arithmetic:
    """The one that a method's field asks for."""
    if isinstance(rigorous, Arithmetic):
        return rigorous
    return RIGOROUS if rigorous else PLAIN
