"""Builder: collects the nodes of a graph in order; every importer writes through it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from certus.core import UnsupportedError
from certus.graph import absent
from certus.graph.affine import Scale, Shift
from certus.graph.extremum import ReduceMax
from certus.graph.graph import Graph, Node, resolved
from certus.graph.op import Elementwise, Input, Op, Shape
from certus.graph.softmax import LogSumExp, Softmax


class Builder:
    """A graph under construction; positions count from the input, which is 0.

    Every operation is evaluated once on zeros as it is added, which gives its shape and fails early.
    like: a tensor in the dtype and on the device of the network.
    """

    def __init__(self, input_shape: Shape, like: Tensor) -> None:
        self._nodes = [Node(Input(), (), input_shape)]
        self._values = [like.new_zeros(1, *input_shape)]
        self._gone: dict[int, Tensor] = {}

    def add(self, op: Op, *inputs: int, source: str = "") -> int:
        """Append an operation on earlier positions; returns its position.

        Raises UnsupportedError where an entry of minus infinity would give it no value.
        """
        gone = [self._gone.get(i) for i in inputs]
        if all(g is None for g in gone):
            return self._append(op, inputs, source)
        own = gone[0]
        if own is not None and isinstance(op, Softmax):
            return self._append(absent.softmax_without(op, own), inputs, source)
        if own is not None and isinstance(op, LogSumExp):
            there = self._append(absent.present(op, own), inputs, source)
            return self._append(op, (there,), source)
        if own is not None and isinstance(op, ReduceMax):
            return self._append(op, (self.present(inputs[0], op.dims, source),), source)
        if own is not None and isinstance(op, Elementwise):
            end = absent.limit(op, own, self._values[inputs[0]])
            kept = self._append(Scale(~own), (self._append(op, inputs, source),), source)
            return self._append(Shift(end), (kept,), source)
        after = absent.carried(resolved(op), gone, [self._values[i] for i in inputs])
        place = self._append(op, inputs, source)
        self._gone[place] = after
        return place

    def without(self, position: int, gone: Tensor) -> int:
        """Say that entries of a new node, which hold zero, are minus infinity: gone [1 or none, *shape]."""
        if bool(gone.any()):
            shape = (1, *self.shape(position))
            self._gone[position] = self.gone(position) | gone.expand(shape)
        return position

    def pick(self, position: int, mask: Tensor, source: str = "") -> int:
        """A node where a condition holds, zero elsewhere; entries of minus infinity hold zero too."""
        return self._append(Scale(mask), (position,), source)

    def gone(self, position: int) -> Tensor:
        """Which entries of a node are minus infinity: bool [1, *shape]."""
        found = self._gone.get(position)
        if found is not None:
            return found
        return torch.zeros(1, *self.shape(position), dtype=torch.bool, device=self.like.device)

    def present(self, position: int, dims: Sequence[int], source: str = "") -> int:
        """The node with others of its values in place of minus infinity, which no maximum takes."""
        if position not in self._gone:
            return position
        return self._append(absent.repeated(self._gone[position], dims), (position,), source)

    def _append(self, op: Op, inputs: tuple[int, ...], source: str) -> int:
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
        if output in self._gone:
            raise UnsupportedError("the output has entries of minus infinity")
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
