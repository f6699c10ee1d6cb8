"""Graph: a network as a list of operations in order of evaluation, with its parameters live."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from certus.core.fingerprint import fingerprint
from certus.graph.expression import Expression
from certus.graph.op import Op, Shape, tensors_of
from certus.graph.source import Source


@dataclass(frozen=True, eq=False)
class Node:
    """One operation in a graph: inputs are positions in `Graph.nodes`, shape is without batch."""

    op: Op
    inputs: tuple[int, ...]
    shape: Shape
    source: str = ""

    @property
    def numel(self) -> int:
        """Values for each input of the batch."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True, eq=False)
class Graph:
    """A network that can be evaluated, bounded and encoded.

    nodes are in order of evaluation, node 0 is the input, `output` is the position of the result.
    original is what the graph was made from; counterexamples are replayed on it. source knows whether
    that is still what it was, where it is a module that was captured.
    """

    nodes: tuple[Node, ...]
    output: int
    original: Callable[[Tensor], Tensor]
    source: Source | None = field(default=None, repr=False)

    def refuse_changed(self) -> None:
        """ModelError where the module has changed since it was captured, but for its parameters' values."""
        if self.source is not None and self.source.module is self.original:
            self.source.check()

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate on x [B, *input_shape] -> [B, *output_shape]."""
        return self.value({0: x})

    def value(self, known: Mapping[int, Tensor]) -> Tensor:
        """The output, given the values of the nodes that all later ones rest on.

        Every other value is dropped after its last use; where no gradient is recorded, an activation is
        written over a value that nothing else reads, which saves a pass through fresh memory.
        """
        nodes, values = self.resolved().nodes, dict(known)
        reuse = not torch.is_grad_enabled()
        for position in range(max(known) + 1, self.output + 1):
            node = nodes[position]
            taken = [values[i] for i in node.inputs]
            for i in self._spent[position]:
                del values[i]
            own = reuse and self._owned[position] and node.inputs[0] not in known
            values[position] = node.op.overwrite(*taken) if own else node.op.forward(*taken)
        return values[self.output]

    def values(self, x: Tensor) -> list[Tensor]:
        """The value of every node on x."""
        values: list[Tensor] = [x]
        for node in self.resolved().nodes[1:]:
            values.append(node.op.forward(*[values[i] for i in node.inputs]))
        return values

    @cached_property
    def _spent(self) -> list[set[int]]:
        """For every node the inputs that no later node reads."""
        last = {i: position for position, node in enumerate(self.nodes) for i in node.inputs}
        last[self.output] = len(self.nodes)
        return [{i for i in n.inputs if last[i] == at} for at, n in enumerate(self.nodes)]

    @cached_property
    def _owned(self) -> list[bool]:
        """For every node whether it alone reads its first input, also through views of it."""
        readers = Counter(i for node in self.nodes for i in node.inputs)
        readers[self.output] += 1
        return [
            bool(node.inputs)
            and readers[node.inputs[0]] == 1
            and self.nodes[node.inputs[0]].op.fresh
            for node in self.nodes
        ]

    @property
    def input_shape(self) -> Shape:
        """Shape of one input."""
        return self.nodes[0].shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one output."""
        return self.nodes[self.output].shape

    def shapes(self, node: Node) -> list[Shape]:
        """Shapes of the inputs of a node."""
        return [self.nodes[i].shape for i in node.inputs]

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Every parameter tensor with a name such as `3.weight`."""
        return [
            (f"{i}.{name}", value)
            for i, node in enumerate(self.resolved().nodes)
            for name, value in tensors_of(node.op)
        ]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters (float32 where there are none)."""
        found = [t.dtype for _, t in self.tensors() if t.is_floating_point()]
        return found[0] if found else torch.get_default_dtype()

    @property
    def device(self) -> torch.device:
        """Device of the parameters (CPU where there are none)."""
        found = self.tensors()
        return found[0][1].device if found else torch.device("cpu")

    def fingerprint(self) -> str:
        """Hash of the operations and of every parameter."""
        kinds = "/".join(f"{n.op.name}{_plain(n.op)}{n.inputs}{n.shape}" for n in self.nodes)
        return fingerprint([*self.tensors(), (f"{kinds}>{self.output}", torch.zeros(1))])

    def resolved(self) -> "Graph":
        """This graph with parameters that are computed from other parameters evaluated now."""
        if not any(_expressions(node.op) for node in self.nodes):
            return self
        return replace(
            self, nodes=tuple(replace(node, op=resolved(node.op)) for node in self.nodes)
        )

    def cast(self, dtype: torch.dtype) -> "Graph":
        """A copy in another precision; its parameters are copies too and no longer live."""
        resolved = self.resolved()
        ops = {}
        for position, node in enumerate(resolved.nodes):
            own = [(n, t) for n, t in tensors_of(node.op) if t.is_floating_point()]
            if own:
                ops[position] = replace(node.op, **{n: t.detach().to(dtype) for n, t in own})
        return resolved.substituted(ops)

    def upto(self, position: int) -> "Graph":
        """The part that computes one node, whose value becomes the output."""
        return replace(self, nodes=self.nodes[: position + 1], output=position)

    def substituted(self, ops: dict[int, Op]) -> "Graph":
        """A copy in which some nodes have another operation of the same shape."""
        nodes = list(self.nodes)
        for position, op in ops.items():
            nodes[position] = replace(nodes[position], op=op)
        return replace(self, nodes=tuple(nodes))

    def __repr__(self) -> str:
        """Shapes and size; `summary` tells more."""
        shapes = f"{list(self.input_shape)} -> {list(self.output_shape)}"
        return f"Graph({shapes}, {len(self.nodes) - 1} operations)"

    def summary(self) -> str:
        """One line for each node: position, operation, inputs, shape."""
        rows = [
            f"{i:4d}  {n.op.name:<16} {', '.join(map(str, n.inputs)):<10} {list(n.shape)}"
            for i, n in enumerate(self.nodes)
        ]
        return "\n".join(rows)


def _plain(op: Op) -> dict[str, object]:
    """The settings of an operation that are not tensors: strides, slopes, limits."""
    return {
        name: value
        for name, value in vars(op).items()
        if not isinstance(value, Tensor | Expression)
    }


def _expressions(op: Op) -> dict[str, Expression]:
    return {name: value for name, value in vars(op).items() if isinstance(value, Expression)}


def resolved(op: Op) -> Op:
    """The operation with parameters that are computed from other parameters evaluated now."""
    found = _expressions(op)
    if not found:
        return op
    known = {f.name for f in fields(op)}
    values = {name: value.evaluate() for name, value in found.items() if name in known}
    return replace(op, **values)
