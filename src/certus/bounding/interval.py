"""Interval bound propagation (Gowal et al. 2018), the specification folded into the last layers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.bounding.backward import both_bounds
from certus.bounding.base import BoundMethod, State
from certus.bounding.budget import elements
from certus.bounding.search import tightened
from certus.core import Bounds
from certus.graph import Graph
from certus.graph.fusion import fused, needed
from certus.graph.graph import Node
from certus.graph.op import Affine
from certus.relax import Interval
from certus.relax import intervals as interval_rules
from certus.threats import Box, Region


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
        """Intervals of every node that matters; the first layer is exact for any region."""
        graph = fused(graph)
        wanted = needed(graph)
        state = State(graph, region, {0: (region.lower, region.upper)}, {})
        for position, node in enumerate(graph.nodes):
            if position not in wanted or position == 0:
                continue
            if not isinstance(region, Box) and not isinstance(node.op, Affine):
                for source in node.inputs:
                    if affine_in_input(graph, source):
                        state.intervals[source] = _exact(state, source)
            state.intervals[position] = step(node, state.intervals)
        return state

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """Folded lower and upper bounds."""
        output = state.graph.output
        return both_bounds(state, output, rows)


def affine_in_input(graph: Graph, position: int) -> bool:
    """Whether a node, not the input itself, is an affine function of the input."""
    before = needed(graph, position) - {0}
    return bool(before) and all(isinstance(graph.nodes[i].op, Affine) for i in before)


def _exact(state: State, position: int) -> Interval:
    """The range of every value of a node that is an affine function of the input."""
    lower = state.intervals[position][0]
    every = torch.ones_like(lower, dtype=torch.bool).flatten(1)
    return tightened(state, position, every, both_bounds, elements(lower.device, lower.dtype, None))
