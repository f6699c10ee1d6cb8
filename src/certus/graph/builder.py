"""Builder: collects the nodes of a graph in order; every importer writes through it."""

from collections.abc import Callable

import torch
from torch import Tensor

from certus.graph.graph import Graph, Node, resolved
from certus.graph.op import Input, Op, Shape


class Builder:
    """A graph under construction; positions count from the input, which is 0.

    Every operation is evaluated once on zeros as it is added, which gives its shape and fails early.
    like: a tensor in the dtype and on the device of the network.
    """

    def __init__(self, input_shape: Shape, like: Tensor) -> None:
        self._nodes = [Node(Input(), (), input_shape)]
        self._values = [like.new_zeros(1, *input_shape)]

    def add(self, op: Op, *inputs: int, source: str = "") -> int:
        """Append an operation on earlier positions; returns its position."""
        with torch.no_grad():
            value = resolved(op).forward(*[self._values[i] for i in inputs])
        # one stored element stands for the whole zero tensor of an earlier node: shapes are all we need
        self._values.append(value.new_zeros(1).expand(value.shape))
        self._nodes.append(Node(op, inputs, tuple(value.shape[1:]), source))
        return len(self._nodes) - 1

    @property
    def like(self) -> Tensor:
        """A tensor in the dtype and on the device of the network, to make constants from."""
        return self._values[0]

    def shape(self, position: int) -> Shape:
        """Shape of a node's value without the batch."""
        return self._nodes[position].shape

    def finish(self, output: int, original: Callable[[Tensor], Tensor]) -> Graph:
        """The graph whose result is the node at `output`, without nodes that it does not need."""
        needed = {output}
        for position in range(output, 0, -1):
            if position in needed:
                needed.update(self._nodes[position].inputs)
        kept = sorted(needed | {0})
        place = {old: new for new, old in enumerate(kept)}
        nodes = tuple(
            Node(n.op, tuple(place[i] for i in n.inputs), n.shape, n.source)
            for n in (self._nodes[i] for i in kept)
        )
        return Graph(nodes, place[output], original)
