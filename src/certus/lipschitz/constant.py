"""Lipschitz constants (l2 to l2) of every node of a graph with respect to the graph's input."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.core import ModelError, Rules, UnsupportedError
from certus.graph.activation import MaxPool
from certus.graph.affine import BatchNorm, Conv, Linear, MatMul, Scale, Shift, Sum
from certus.graph.graph import Graph, Node
from certus.graph.op import Elementwise, Input, Selection, Shape
from certus.graph.structural import AdaptiveAvgPool, AvgPool, Concat, Pad
from certus.lipschitz.spectrum import SAFETY, conv_bound, dense_bound


@dataclass(frozen=True, eq=False)
class Site:
    """Where a rule is applied: a node of a resolved graph, and the constants before it."""

    graph: Graph
    node: Node
    constants: list[float]
    tolerance: float

    @property
    def before(self) -> float:
        """Constant of the first input."""
        return self.constants[self.node.inputs[0]]

    @property
    def shape(self) -> Shape:
        """Shape of the first input, without the batch."""
        return self.graph.nodes[self.node.inputs[0]].shape

    def unsupported(self, why: str) -> UnsupportedError:
        """The error that names this node."""
        where = f" ({self.node.source})" if self.node.source else ""
        return UnsupportedError(
            f"the Lipschitz bound cannot treat {self.node.op.name}{where}: {why}"
        )


RULES = Rules("the Lipschitz bound")


@torch.no_grad()
def lipschitz(graph: Graph, tolerance: float = 0.01) -> list[float]:
    """Upper bounds of the l2 Lipschitz constant from the graph's input to every node.

    Entry i holds for all x, x': ||v_i(x) - v_i(x')||_2 <= L_i ||x - x'||_2 in exact arithmetic,
    where v_i is the value of node i flattened. Products of operator norms along paths, added at
    sums and combined by root of squares at concatenations (Szegedy 2014; Gouk 2021). `tolerance` is
    the relative slack of a convolution's norm. Raises UnsupportedError that names every operation
    without a rule, and ModelError for weights that are not finite.
    """
    graph = graph.resolved()
    _check(graph)
    constants = [1.0]
    for node in graph.nodes[1:]:
        rule = RULES[type(node.op)]
        value = float(rule(node.op, Site(graph, node, constants, tolerance)))
        if not 0 <= value < math.inf:
            raise ModelError(f"the Lipschitz bound of {node.op.name} overflows (value {value})")
        constants.append(value)
    return constants


def refusal(graph: Graph) -> str | None:
    """A line that names all operations without a rule; None where all have one."""
    lacking = [n for n in graph.nodes[1:] if type(n.op) not in RULES]
    named = sorted({n.op.name + (f" ({n.source})" if n.source else "") for n in lacking})
    return f"the Lipschitz bound has no rule for: {', '.join(named)}" if named else None


def _check(graph: Graph) -> None:
    """Refuse before any work, naming all unsupported operations at once."""
    reason = refusal(graph)
    if reason is not None:
        raise UnsupportedError(reason)
    for name, value in graph.tensors():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"parameter {name} contains NaN or infinite values")


@RULES.register(Input)
def _input(op: Input, site: Site) -> float:
    """A second input node has no place in a graph."""
    raise site.unsupported("only node 0 may be the input")


@RULES.register(Elementwise)
def _elementwise(op: Elementwise, site: Site) -> float:
    """Each output element depends on one input element, with slope at most op.lipschitz."""
    return site.before * op.lipschitz


@RULES.register(Linear)
def _linear(op: Linear, site: Site) -> float:
    """On more than a vector the map is block diagonal with equal blocks: the same norm."""
    return site.before * dense_bound(op.weight).item()


@RULES.register(Conv)
def _conv(op: Conv, site: Site) -> float:
    """Padding and size drop out, see `conv_bound`."""
    return site.before * _conv_norm(op, op.weight, site.tolerance)


@RULES.register(BatchNorm)
def _batch_norm(op: BatchNorm, site: Site) -> float:
    """max |scale|, or the norm of the scaled weight where a convolution or linear map precedes."""
    scale = (op.variance.double() + op.epsilon).rsqrt()
    if op.weight is not None:
        scale = scale * op.weight.double()
    apart = site.before * scale.abs().amax().item() * SAFETY
    previous = site.graph.nodes[site.node.inputs[0]]
    inner = previous.op
    if isinstance(inner, Conv):
        weight = inner.weight.double() * scale.view(-1, *[1] * (inner.weight.ndim - 1))
        norm = _conv_norm(inner, weight, site.tolerance)
    elif isinstance(inner, Linear) and len(previous.shape) == 1:
        norm = dense_bound(inner.weight.double() * scale.view(-1, 1)).item()
    else:
        return apart
    return min(apart, site.constants[previous.inputs[0]] * norm)


@RULES.register(Scale)
def _scale(op: Scale, site: Site) -> float:
    """max |factor|, times the root of the copies where the factor broadcasts x."""
    copies = _copies(op.factor, site)
    return site.before * op.factor.double().abs().amax().item() * copies


@RULES.register(Shift)
def _shift(op: Shift, site: Site) -> float:
    """A translation; the root of the copies where the amount broadcasts x."""
    return site.before * _copies(op.amount, site)


@RULES.register(Sum)
def _sum(op: Sum, site: Site) -> float:
    """Triangle inequality: L_1 + |factor| L_2, each with the copies that a broadcast makes."""
    total = 0.0
    for i, factor in zip(site.node.inputs, (1.0, abs(op.factor)), strict=True):
        total += site.constants[i] * factor * _spread(site.graph.nodes[i].shape, site)
    return total


@RULES.register(MatMul)
def _matmul(op: MatMul, site: Site) -> float:
    """Block diagonal in the dimensions before the last two: the largest block counts."""
    rank = op.matrix.ndim
    if rank < 2 or ((rank > 2 or op.left) and len(site.shape) < max(rank, 2)):
        raise site.unsupported(f"a matrix of shape {tuple(op.matrix.shape)} on {site.shape}")
    spread = math.prod(site.node.shape[:-2]) / math.prod(site.shape[:-2]) if rank > 2 else 1.0
    return site.before * dense_bound(op.matrix).item() * math.sqrt(spread)


@RULES.register(Pad)
def _pad(op: Pad, site: Site) -> float:
    """Adds constants or (widths < 0) cuts: norm at most 1."""
    if len(op.widths) > 2 * len(site.shape):
        raise site.unsupported("it pads the batch dimension")
    return site.before


@RULES.register(Selection)
def _selection(op: Selection, site: Site) -> float:
    """Schur test for a linear map with entries >= 0: ||A||_2^2 <= max row sum * max column sum."""
    if len(site.node.inputs) != 1:
        raise site.unsupported("it has several inputs")
    ones = torch.ones(1, *site.shape, dtype=torch.float64)
    rows = op.forward(ones)
    (columns,) = op.transpose(torch.ones_like(rows), [site.shape])
    return site.before * math.sqrt(rows.amax().item() * columns.amax().item()) * SAFETY


@RULES.register(AvgPool, AdaptiveAvgPool)
def _avg_pool(op: AvgPool | AdaptiveAvgPool, site: Site) -> float:
    """Exact: averaging is a tensor product of one map for each dimension, divisors included."""
    axes = len(op.kernel if isinstance(op, AvgPool) else op.size)
    norm = 1.0
    for axis in range(axes):
        units = torch.eye(site.shape[len(site.shape) - axes + axis], dtype=torch.float64)
        norm *= dense_bound(_along(op, axis).forward(units[:, None])[:, 0]).item()
    return site.before * norm


@RULES.register(Concat)
def _concat(op: Concat, site: Site) -> float:
    """Root of the sum of squares, since the parts are side by side."""
    return math.hypot(*[site.constants[i] for i in site.node.inputs])


@RULES.register(MaxPool)
def _max_pool(op: MaxPool, site: Site) -> float:
    """Root of the largest number of windows that hold one element.

    |max a - max b| <= ||a - b|| on each window; summing squares counts an element once a window.
    Taps t that can reach one element agree modulo stride / gcd(stride, dilation).
    """
    windows = 1
    sizes = site.node.shape[-len(op.kernel) :]
    for k, s, d, outputs in zip(op.kernel, op.stride, op.dilation, sizes, strict=True):
        windows *= min(-(-k // (s // math.gcd(s, d))), outputs)
    return site.before * math.sqrt(windows) * SAFETY


def _conv_norm(op: Conv, weight: Tensor, tolerance: float) -> float:
    return conv_bound(weight, op.stride, op.dilation, op.groups, tolerance).item()


def _along(op: AvgPool | AdaptiveAvgPool, axis: int) -> AvgPool | AdaptiveAvgPool:
    """The same pooling in one of its dimensions."""
    if isinstance(op, AdaptiveAvgPool):
        return replace(op, size=(op.size[axis],))
    kernel, stride, padding = ((v[axis],) for v in (op.kernel, op.stride, op.padding))
    return replace(op, kernel=kernel, stride=stride, padding=padding)


def _copies(constant: Tensor, site: Site) -> float:
    """Root of the copies of x that broadcasting against a constant makes; never over the batch."""
    if constant.ndim > len(site.shape) and constant.shape[0] != 1:
        raise site.unsupported(f"a constant of shape {tuple(constant.shape)} on {site.shape}")
    return _spread(site.shape, site)


def _spread(old: Shape, site: Site) -> float:
    """Root of the copies of an element when `old` broadcasts to the node's shape (equal rank)."""
    new = site.node.shape
    if len(old) != len(new):
        raise site.unsupported(f"it broadcasts {old} to {new}; reshape the operands to one rank")
    return math.sqrt(math.prod(new) / math.prod(old))
