"""A network whose output carries its input, so that conditions on both are conditions on outputs."""

import torch
from torch import Tensor

from certus.graph import Graph
from certus.graph.graph import Node
from certus.graph.structural import Concat, Reshape


def augmented(graph: Graph) -> Graph:
    """x -> [y; x]: the flattened output followed by the flattened input, [B, outputs + inputs].

    Any BoundMethod then bounds rows a . y + c . x with the dependence of y on x. Both parts are copies.
    """
    outputs, inputs = graph.nodes[graph.output].numel, graph.nodes[0].numel
    first = len(graph.nodes)
    nodes = (
        *graph.nodes,
        Node(Reshape((outputs,)), (graph.output,), (outputs,)),
        Node(Reshape((inputs,)), (0,), (inputs,)),
        Node(Concat(1), (first, first + 1), (outputs + inputs,)),
    )

    def original(x: Tensor) -> Tensor:
        y = graph.original(x)
        return torch.cat([y.flatten(1), x.flatten(1).to(y.dtype)], dim=1)

    return Graph(nodes, first + 2, original)
