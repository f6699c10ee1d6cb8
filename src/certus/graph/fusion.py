"""Fusion: affine operations that follow each other become one, with fewer passes over the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.graph.affine import BatchNorm, Conv, Linear, Scale, Shift
from certus.graph.graph import Graph, Node
from certus.graph.op import Affine, Shape
from certus.graph.structural import Permute, Reshape


@dataclass(frozen=True, eq=False)
class Constant(Affine):
    """A value [1, *shape] whatever the input is; the input gives the batch alone."""

    value: Tensor

    def forward(self, *inputs: Tensor) -> Tensor:
        """The value for each element of the batch."""
        return self.value.expand(len(inputs[0]), *self.value.shape[1:])

    def magnitude(self, *radii: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(self.forward(*radii))

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """Nothing: no input is read."""
        return ()

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """The value."""
        return self.value


@dataclass(frozen=True, eq=False)
class Patches(Affine):
    """The patches of a map [C, H, W], row by row, each times a matrix: [patches, out].

    weight is [out, C, h, w]: that of a convolution with stride (h, w) and no padding.
    """

    weight: Tensor
    bias: Tensor | None

    def forward(self, *inputs: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, (H // h) (W // w), out]."""
        return self._apply(inputs[0], self.weight, self.bias)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """The same with |W|."""
        return self._apply(radii[0], self.weight.abs(), None)

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """rows W, laid out as maps; zero where the map has no whole patch."""
        (channels, high, wide), (h, w) = shapes[0], self.weight.shape[2:]
        pulled = (rows @ self.weight.flatten(1)).view(-1, high // h, wide // w, channels, h, w)
        pulled = pulled.permute(0, 3, 1, 4, 2, 5).reshape(
            -1, channels, high // h * h, wide // w * w
        )
        if pulled.shape[1:] == shapes[0]:
            return (pulled,)
        return (torch.nn.functional.pad(pulled, (0, wide % w, 0, high % h)),)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """The bias of each patch."""
        if self.bias is None:
            return None
        (_, high, wide), (h, w) = shapes[0], self.weight.shape[2:]
        return self.bias.expand(1, (high // h) * (wide // w), -1)

    def cut(self, x: Tensor) -> Tensor:
        """The patches [B, (H // h) (W // w), C h w] of maps [B, C, H, W]."""
        h, w = self.weight.shape[2:]
        parts = x.unfold(2, h, h).unfold(3, w, w)  # [B, C, H // h, W // w, h, w]
        return parts.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride = (weight.shape[2], weight.shape[3])
        return torch.nn.functional.conv2d(x, weight, bias, stride).flatten(2).mT


def fused(graph: Graph) -> Graph:
    """The same function in exact arithmetic, with fewer passes over the data.

    A normalisation becomes part of the convolution before it, and what acts on each feature alone part
    of the linear layers after it; patches of an image become rows of a matrix; values that do not
    depend on the input become constants. Positions and shapes stay as they are: a node takes over what
    it follows and reads further up, and `needed` tells which nodes still matter. Parameters stay live.
    """
    readers = [list[int]() for _ in graph.nodes]
    for position, node in enumerate(graph.nodes):
        for source in node.inputs:
            readers[source].append(position)
    nodes = list(graph.nodes)
    constants: dict[int, Tensor] = {}
    total: set[int] = {0}  # nodes that have a value for every input: nothing leaves a domain
    for position, node in enumerate(graph.nodes):
        if isinstance(node.op, Affine) and total.issuperset(node.inputs):
            total.add(position)
        value = _value(node, constants, total)
        if value is not None:
            constants[position] = value
            nodes[position] = replace(node, op=Constant(value), inputs=(0,))
            continue
        alone = len(node.inputs) == 1 and len(readers[node.inputs[0]]) == 1
        for kind, rule in _RULES:
            if isinstance(node.op, kind):
                nodes[position] = rule(nodes, position, alone) or nodes[position]
    return replace(graph, nodes=tuple(nodes))


def needed(graph: Graph, start: int | None = None) -> set[int]:
    """Positions of the nodes that a node (the output) is computed from, itself included."""
    last = graph.output if start is None else start
    found = {last}
    for position in range(last, 0, -1):
        if position in found:
            found.update(graph.nodes[position].inputs)
    return found


def _value(node: Node, constants: dict[int, Tensor], total: set[int]) -> Tensor | None:
    """The value [1, *shape] of a node that does not depend on the input: a constant zero times it.

    A factor that is learned is no constant, though it may be zero now; and zero times a function that
    leaves its domain is NaN.
    """
    zero = isinstance(node.op, Scale) and not node.op.divide and _is_zero(node.op.factor)
    if zero and total.issuperset(node.inputs):
        assert isinstance(node.op, Scale)
        return node.op.factor.new_zeros(1, *node.shape)
    if node.inputs and all(source in constants for source in node.inputs):
        return node.op.forward(*[constants[source] for source in node.inputs])
    return None


def _is_zero(factor: Tensor) -> bool:
    known = factor.is_floating_point() and not factor.requires_grad
    return known and factor.numel() == 1 and not bool(factor)


def _normalised(nodes: list[Node], position: int, alone: bool) -> Node | None:
    """A batch normalisation with the convolution before it."""
    node = nodes[position]
    before = nodes[node.inputs[0]]
    if not (alone and isinstance(node.op, BatchNorm) and isinstance(before.op, Conv)):
        return None
    return replace(node, op=_merged(before.op, node.op), inputs=before.inputs)


def _merged(op: Conv, norm: BatchNorm) -> Conv:
    scale, shift = norm.scale, _shift(norm)
    bias = shift if op.bias is None else shift + op.bias * scale
    return replace(op, weight=op.weight * scale.view(-1, *[1] * (op.weight.ndim - 1)), bias=bias)


def _shift(norm: BatchNorm) -> Tensor:
    shift = -norm.mean * norm.scale
    return shift if norm.bias is None else shift + norm.bias


def _patches(nodes: list[Node], position: int, alone: bool) -> Node | None:
    """Convolution, map to sequence, channels last: where patches do not overlap, a linear layer."""
    node = nodes[position]
    assert isinstance(node.op, Permute)
    flat = nodes[node.inputs[0]]
    if not (alone and node.op.dims == (0, 2, 1) and isinstance(flat.op, Reshape)):
        return None
    conv = nodes[flat.inputs[0]]
    if not (isinstance(conv.op, Conv) and len(conv.shape) == 3 and flat.shape[0] == conv.shape[0]):
        return None
    read = sum(flat.inputs[0] in other.inputs for other in nodes)
    whole = conv.op.stride == tuple(conv.op.weight.shape[2:]) and not any(conv.op.padding)
    if read > 1 or not whole or conv.op.groups > 1 or any(d != 1 for d in conv.op.dilation):
        return None
    return replace(node, op=Patches(conv.op.weight, conv.op.bias), inputs=conv.inputs)


def _linear(nodes: list[Node], position: int, alone: bool) -> Node | None:
    """A linear layer with what acts on each feature alone before it."""
    node = nodes[position]
    assert isinstance(node.op, Linear)
    weight, bias, source = node.op.weight, node.op.bias, node.inputs[0]
    while (found := _features(nodes, source)) is not None:
        scale, shift, source = found
        if shift is not None:
            moved = weight @ shift.to(weight.dtype)
            bias = moved if bias is None else bias + moved
        weight = weight if scale is None else weight * scale
    if source == node.inputs[0]:
        return None
    return replace(node, op=Linear(weight, bias), inputs=(source,))


def _features(nodes: list[Node], position: int) -> tuple[Tensor | None, Tensor | None, int] | None:
    """(scale, shift, source) of a node that takes its source's last dimension to scale x + shift."""
    node = nodes[position]
    op, wide = node.op, node.shape[-1]
    if isinstance(op, Scale | Shift) and nodes[node.inputs[0]].shape == node.shape:
        held = op.factor if isinstance(op, Scale) else op.amount
        if held.numel() > 1 and held.numel() != held.shape[-1]:
            return None
        line = held.reshape(-1).expand(wide)
        if isinstance(op, Shift):
            return None, line * op.factor, node.inputs[0]
        return (1 / line if op.divide else line), None, node.inputs[0]
    if isinstance(op, BatchNorm) and len(node.shape) == 1:
        return op.scale, _shift(op), node.inputs[0]
    return _turned(nodes, position) if isinstance(op, Permute) else None


def _turned(nodes: list[Node], position: int) -> tuple[Tensor, Tensor, int] | None:
    """The same for a batch normalisation between two permutations: features last, first, last."""
    node = nodes[position]
    norm = nodes[node.inputs[0]]
    if not isinstance(norm.op, BatchNorm):
        return None
    before = nodes[norm.inputs[0]]
    if not isinstance(before.op, Permute):
        return None
    assert isinstance(node.op, Permute)
    same = [before.op.dims[d] for d in node.op.dims] == list(range(len(node.op.dims)))
    if not same or node.op.dims[-1] != 1:
        return None
    return norm.op.scale, _shift(norm.op), before.inputs[0]


# (nodes, position, whether the node's only input has no other reader) -> the node with what it took over
_RULES: tuple[tuple[type[Affine], Callable[[list[Node], int, bool], Node | None]], ...] = (
    (BatchNorm, _normalised),
    (Permute, _patches),
    (Linear, _linear),
)
