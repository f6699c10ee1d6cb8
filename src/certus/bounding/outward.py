"""Interval arithmetic whose intervals hold for real arithmetic and for every float evaluation."""

import torch
from torch import Tensor

from certus.bounding.engine import Engine, engine_of
from certus.bounding.evaluation import limit_error
from certus.bounding.gamma import gamma, less, more, smallest, total, unit
from certus.bounding.terms import terms
from certus.core import Rules
from certus.graph import Graph
from certus.graph.activation import Clamp, LeakyRelu, MaxPool, Relu, Sigmoid, Tanh
from certus.graph.affine import Scale, Sum
from certus.graph.graph import Node
from certus.graph.op import Affine, Monotone, Selection
from certus.relax import Interval
from certus.relax import intervals as plain_intervals

_LARGE = 2.0**60  # stands for a number of a sign: no weight makes it vanish

# (op, computed value f(x), engine) -> how far another evaluation at x may lie from the exact value, given any
# computed one; the exact value lies as near. A rule is registered for monotone operations only, and its
# result is zero, or linear in |f(x)| with a slope below one, so that it may be applied to ends of a range.
wobble = Rules("rigorous arithmetic")


def outward(graph: Graph, node: Node, intervals: dict[int, Interval]) -> Interval:
    """An interval that holds a node's value exact and in floats, from such intervals of its inputs."""
    own = [intervals[i] for i in node.inputs]
    if isinstance(node.op, Affine):
        return _affine(graph, node, node.op, own)
    error, engine = wobble[type(node.op)], engine_of(graph, own[0][0].dtype)
    low, high = (node.op.forward(*side) for side in zip(*own, strict=True))
    below, above = error(node.op, low, engine), error(node.op, high, engine)
    if below is None or above is None:
        return low, high
    # once for the value computed here, once for the one computed elsewhere
    lower, upper = less(low - 2 * below), -less(-high - 2 * above)
    return torch.where(below == 0, low, lower), torch.where(above == 0, high, upper)


def cover(interval: Interval) -> Interval:
    """A centre c and a radius r with [l, u] inside [c - r, c + r] exactly."""
    lower, upper = interval
    centre = (lower + upper) / 2
    radius = torch.maximum(upper - centre, centre - lower)
    return centre, more(radius) + smallest(radius.dtype)


def floor(dtype: torch.dtype) -> float:
    """Added to sizes: gamma_n |w| times it exceeds what an input lost by underflow contributes."""
    return 2 * smallest(dtype) / unit(dtype)


def _affine(graph: Graph, node: Node, op: Affine, own: list[Interval]) -> Interval:
    """W c + b -+ (|W| (r + k (|c| + r)) + k |b|), k = 2 gamma_n: the rounding here and elsewhere."""
    shapes = graph.shapes(node)
    count = terms[type(op)](op, shapes, node.shape).forward
    if count == 0:  # values move, some with their sign turned
        ends = [op.forward(*side) for side in zip(*own, strict=True)]
        return torch.minimum(*ends), torch.maximum(*ends)
    dtype = own[0][0].dtype
    rate = 2 * gamma(count + 4, dtype)
    balls = [cover(interval) for interval in own]
    middle = op.forward(*[c for c, _ in balls])
    grown = [more(r + rate * (c.abs() + r + floor(dtype))) for c, r in balls]
    radius = more(op.magnitude(*grown), count)
    fixed = op.offset_terms(shapes, middle)
    if fixed is not None:
        radius = more(radius + rate * fixed)
    sizes = torch.stack([total(c.abs() + r) for c, r in balls]).sum(0)
    radius = radius + _spread(8 * count * smallest(dtype) * (1 + sizes), radius)
    # where partial sums might overflow nothing is known
    radius = torch.where(radius < rate * torch.finfo(dtype).max / 8, radius, float("nan"))
    return _signed(op, own, (less(middle - radius), -less(-middle - radius)))


def _signed(op: Affine, own: list[Interval], found: Interval) -> Interval:
    """A sum of terms of one sign has that sign, exact and in floats: there no end lies beyond zero."""
    if not isinstance(op, Selection | Sum | Scale):
        return found
    signs = [
        ((low < 0) * low.new_tensor(-_LARGE), (high > 0) * high.new_tensor(_LARGE))
        for low, high in own
    ]
    least, most = plain_intervals[type(op)](op, *signs)
    lower = torch.where(least == 0, found[0].clamp(min=0), found[0])
    return lower, torch.where(most == 0, found[1].clamp(max=0), found[1])


def _spread(value: Tensor, like: Tensor) -> Tensor:
    return value.view(-1, *[1] * (like.ndim - 1))


@wobble.register(Relu, MaxPool)
def _exact(op: Monotone, value: Tensor, engine: Engine) -> Tensor | None:
    """None: the result is one of the inputs, or zero."""
    return None


@wobble.register(LeakyRelu)
def _leaky(op: LeakyRelu, value: Tensor, engine: Engine) -> Tensor:
    """The slope's own rounding and the product; exact on the positive side."""
    error = 4 * unit(value.dtype) * value.abs() + smallest(value.dtype)
    return torch.where(value > 0, torch.zeros_like(error), error)


@wobble.register(Clamp)
def _clamp(op: Clamp, value: Tensor, engine: Engine) -> Tensor | None:
    """That of a limit that the value is near."""
    return limit_error(op, (value, value), value.dtype)


@wobble.register(Sigmoid, Tanh)
def _elementary(op: Sigmoid | Tanh, value: Tensor, engine: Engine) -> Tensor:
    """By the table, at least 4 ulp; where exp overflows inside, less than the smallest normal number."""
    relative, absolute = engine.function(op)
    relative = max(relative, 10 * unit(value.dtype))
    return relative * value.abs() + (1.25 * absolute + 4 * smallest(value.dtype))
