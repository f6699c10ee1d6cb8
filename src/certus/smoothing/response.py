"""The first linear layers' response to noise, which inputs that share draws can share as well."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from certus.graph import Graph
from certus.graph.op import Affine


@dataclass(frozen=True, eq=False)
class Response:
    """A graph cut at a node `cut` = A(x) + b that is affine in the input: A(x + noise) + b is
    (A(x) + b) + A(noise), and A(noise) does not depend on x.

    What is computed differs from the graph's own evaluation by rounding alone.
    """

    graph: Graph
    cut: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value at the cut."""
        return tuple(self.graph.nodes[self.cut].shape)

    def of_inputs(self, x: Tensor) -> Tensor:
        """A(x) + b."""
        return self.graph.upto(self.cut)(x)

    def of_draws(self, draws: Tensor) -> Tensor:
        """A(draws)."""
        return self.graph.upto(self.cut)(draws).sub_(self._offset)

    @cached_property
    def _offset(self) -> Tensor:
        """b."""
        graph = self.graph
        zero = torch.zeros((1, *graph.input_shape), dtype=graph.dtype, device=graph.device)
        return self.of_inputs(zero)

    def __call__(self, value: Tensor) -> Tensor:
        """The logits, given the value at the cut."""
        return self.graph.value({self.cut: value})


def response(graph: Graph) -> Response | None:
    """The graph cut at its first linear layers, where that saves work; None elsewhere.

    The cut is the last node whose value is affine in the input and all that later nodes read, if it
    has fewer values than the input (adding a larger response would cost as much as computing it).
    """
    graph = graph.resolved()
    linear, best = {0}, 0
    for position, node in enumerate(graph.nodes[1:], 1):
        if not isinstance(node.op, Affine) or not set(node.inputs) <= linear:
            continue
        linear.add(position)
        if _cuts(graph, position):
            best = position
    smaller = graph.nodes[best].numel < graph.nodes[0].numel
    return Response(graph, best) if best and smaller else None


def _cuts(graph: Graph, position: int) -> bool:
    """Whether nodes after a position read only it and each other."""
    later = enumerate(graph.nodes[position + 1 :], position + 1)
    return position <= graph.output and all(
        min(node.inputs, default=position) >= position for _, node in later
    )
