"""How far floating-point evaluation may stray from exact arithmetic: a guard for decisions."""

import torch
from torch import Tensor

from certus.bounding.terms import constant
from certus.core import Rules
from certus.graph import Graph
from certus.graph.activation import MaxPool
from certus.graph.op import Affine, Elementwise, Shape
from certus.relax import Interval
from certus.relax import intervals as ranges_of

# (op, errors of the inputs, intervals of the inputs, shapes, unit) -> error of the output
rules = Rules("the rounding guard")

_STEPS = 8  # roundings that one operation is charged with, relative to its absolute terms


def rounding_guard(graph: Graph, intervals: dict[int, Interval], dtype: torch.dtype) -> Tensor:
    """Per output [B, *out]: the rounding error that is allowed for in the network's value.

    A running error: every operation adds a few units in the last place of the sum of its absolute
    terms, and passes on the errors of its inputs through absolute weights, so that cancellation
    (a BatchNorm that subtracts large means, a bias that undoes another) is seen. intervals hold the
    range of every node in the dtype that they were computed in; dtype is what the network runs in.
    The worst case of long sums is larger (Higham's gamma_n), so this is a guard and no proof.
    """
    unit = _STEPS * torch.finfo(dtype).eps
    errors, known = {0: unit * size(intervals[0])}, dict(intervals)
    for position, node in enumerate(graph.nodes[1:], start=1):
        rule = rules[type(node.op)]
        own, ranges = [errors[i] for i in node.inputs], [known[i] for i in node.inputs]
        if position not in known:  # a node that a method has fused with the next
            known[position] = ranges_of[type(node.op)](node.op, *ranges)
        errors[position] = rule(node.op, own, ranges, graph.shapes(node), unit)
    return errors[graph.output]


def size(interval: Interval) -> Tensor:
    """The largest absolute value."""
    return torch.maximum(interval[0].abs(), interval[1].abs())


@rules.register(Affine)
def _affine(
    op: Affine, errors: list[Tensor], ranges: list[Interval], shapes: list[Shape], unit: float
) -> Tensor:
    """|W| e + unit (|W| |x| + |b|)."""
    terms = op.magnitude(*[size(interval) for interval in ranges])
    offset = constant(op, shapes, terms)  # terms of a BatchNorm's own offset may cancel
    if offset is not None:
        terms = terms + offset
    return op.magnitude(*errors) + unit * terms


@rules.register(Elementwise)
def _elementwise(
    op: Elementwise, errors: list[Tensor], ranges: list[Interval], shapes: list[Shape], unit: float
) -> Tensor:
    """The steepest slope in reach carries the error on; the value itself rounds once."""
    lower, upper = ranges[0][0] - errors[0], ranges[0][1] + errors[0]
    return size(op.slopes(lower, upper)) * errors[0] + unit * size(op.image(lower, upper))


@rules.register(MaxPool)
def _max_pool(
    op: MaxPool, errors: list[Tensor], ranges: list[Interval], shapes: list[Shape], unit: float
) -> Tensor:
    """The largest error of a window."""
    return op.forward(errors[0])
