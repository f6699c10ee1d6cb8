"""Bounds of every evaluation of a network that its engine can make, for decisions that are close.

What is bounded is any evaluation in which the value of each node lies within its local error
(`evaluation.py`) of the exact operation on the values before it. An error at a node is weighed by the row
that arrives there, as in `rigorous.py`, which proves the same in the model's own dtype where this computes
in float64: beside the errors of a float32 evaluation its own roundings vanish.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from certus.bounding.arithmetic import Arithmetic, step
from certus.bounding.charged import Charge, ChargedState, Charging
from certus.bounding.engine import Engine
from certus.bounding.evaluation import local_error
from certus.bounding.meter import Meter
from certus.bounding.rows import Rows
from certus.bounding.state import State, Table
from certus.core import Rules
from certus.graph import Graph
from certus.graph.graph import Node
from certus.graph.op import Affine, Input
from certus.relax import Interval
from certus.threats import Box, Region
from certus.threats.ball import Ball

_OWN = 2.0**-10  # share of an evaluation's error that covers float64's, where the model is coarser
_DUST = 2.0**-36  # relative: what sums over the input may lose in float64


@dataclass(frozen=True, eq=False)
class GuardedState(ChargedState):
    """A state whose intervals hold every evaluation by an engine."""

    engine: Engine = field(kw_only=True)
    free: set[int] = field(default_factory=set, init=False)  # nodes without an error

    def error(self, position: int) -> Tensor | None:
        """[B, *shape]: what the engine may lose at a node, and float64 here."""
        return error_of(self.graph, self.graph.nodes[position], self.intervals, self.engine)


def error_of(
    graph: Graph, node: Node, intervals: dict[int, Interval], engine: Engine
) -> Tensor | None:
    """The local error of a node with room for the bounds' own; a float64 model's own are as large."""
    found = local_error(graph, node, [intervals[i] for i in node.inputs], engine)
    if found is None:
        return None
    return found.detach() * (4.0 if engine.dtype == torch.float64 else 1 + _OWN)


class Guarded(Arithmetic):
    """In float64, with every interval wide enough for an engine's evaluation."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def graph(self, graph: Graph) -> Graph:
        """As it is: each of its operations rounds."""
        return graph

    def state(self, graph: Graph, region: Region, slopes: Table | None) -> State:
        """A state with room for charges."""
        known = {0: (region.lower, region.upper)}
        return GuardedState(graph, region, known, slopes, engine=self.engine)

    def meter(self, state: State) -> Meter:
        """Charges for what the engine may lose."""
        assert isinstance(state, GuardedState)
        return GuardedMeter(state)

    def step(self, graph: Graph, node: Node, intervals: dict[int, Interval]) -> Interval:
        """Wider by the node's error."""
        found = step(node, intervals)
        error = error_of(graph, node, intervals, self.engine)
        return found if error is None else _wider(found, error)

    def met(self, state: State, position: int, before: Interval, found: Interval) -> Interval:
        """The node's own error once more: a search may start at the input of an affine node."""
        assert isinstance(state, GuardedState)
        error = state.error(position)
        if error is None:
            return found
        lower, upper = _wider(found, error)
        return torch.maximum(before[0], lower), torch.minimum(before[1], upper)


def _wider(interval: Interval, error: Tensor) -> Interval:
    return interval[0] - error, interval[1] + error


class GuardedMeter(Charging):
    """Rows pay for the errors of the nodes that they pass."""

    def __init__(self, state: GuardedState) -> None:
        super().__init__()
        self._state = state

    def enter(self, position: int, node: Node, rows: Rows) -> None:
        """The error of an evaluation; intervals at which walks stop hold it already."""
        if isinstance(node.op, Affine | Input) or position in self._state.relaxations:
            charge = self._charge(position)
            if charge is not None:
                self.pay(charge, rows)

    @torch.no_grad()
    def _charge(self, position: int) -> Charge | None:
        """The charge of a node, computed once for a state."""
        state = self._state
        if position not in state.charges and position not in state.free:
            lower, upper = state.intervals[0]
            error = state.error(position) if position else _DUST * (lower.abs() + upper.abs())
            if error is None:
                state.free.add(position)
                return None
            whole = (len(lower), *state.graph.nodes[position].shape)
            state.charges[position] = Charge(error.expand(whole), lower.new_zeros(len(lower)))
        return state.charges.get(position)


# region -> the same set or a larger one in float64
doubled = Rules("the rounding guard")


@doubled.register(Box)
def _box(region: Box) -> Box:
    return Box(region.lower.double(), region.upper.double())


@doubled.register(Ball)
def _ball(region: Ball) -> Ball:
    return Ball(region.center.double(), region._eps, region._p, region._clip)
