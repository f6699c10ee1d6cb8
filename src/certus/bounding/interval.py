"""Interval bound propagation (Gowal et al. 2018), the specification folded into the last layers."""

from dataclasses import dataclass

from torch import Tensor

from certus.bounding.backward import both_bounds
from certus.bounding.base import BoundMethod, Interval, State
from certus.core import Bounds
from certus.graph import Graph
from certus.graph.graph import Node
from certus.relax import intervals as interval_rules
from certus.threats import Region


def step(node: Node, intervals: dict[int, Interval]) -> Interval:
    """The interval of one node from those of its inputs."""
    return interval_rules[type(node.op)](node.op, *[intervals[i] for i in node.inputs])


@dataclass(frozen=True)
class IBP(BoundMethod):
    """Interval arithmetic from the region's bounding box, layer by layer.

    The specification is pulled back through the affine operations that follow the last non-linear
    one, and is bounded there on the interval, which is never looser than bounding the logits first.
    """

    def prepare(self, graph: Graph, region: Region) -> State:
        """Intervals of every node."""
        intervals: dict[int, Interval] = {0: (region.lower, region.upper)}
        for position, node in enumerate(graph.nodes[1:], start=1):
            intervals[position] = step(node, intervals)
        return State(graph, region, intervals, {})

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """Folded lower and upper bounds."""
        output = state.graph.output
        return both_bounds(state, output, rows)
