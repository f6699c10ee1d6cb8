"""Interval arithmetic: the image of a box under an operation, one rule for each class of operation."""

import torch

from certus.core import Rules
from certus.graph.affine import Scale, Shift, Sum
from certus.graph.op import Affine, Elementwise, Monotone, Op, Selection
from certus.relax.lines import Interval

# (op, intervals of the inputs) -> interval of the output
intervals = Rules("interval arithmetic")


@intervals.register(Affine)
def affine(op: Affine, *inputs: Interval) -> Interval:
    """W c + b -+ |W| r for centre c and radius r."""
    middle = op.forward(*[(low + high) / 2 for low, high in inputs])
    radius = op.magnitude(*[(high - low) / 2 for low, high in inputs])
    return middle - radius, middle + radius


@intervals.register(Selection)
def selection(op: Selection, *inputs: Interval) -> Interval:
    """f(l), f(u): weights are >= 0."""
    return monotone(op, *inputs)


@intervals.register(Shift)
def shift(op: Shift, interval: Interval) -> Interval:
    """Both ends move; a small end is not lost beside a large one."""
    return op.forward(interval[0]), op.forward(interval[1])


@intervals.register(Sum)
def add(op: Sum, first: Interval, second: Interval) -> Interval:
    """Ends with ends, crosswise where the second is subtracted."""
    low, high = second if op.factor >= 0 else second[::-1]
    return op.forward(first[0], low), op.forward(first[1], high)


@intervals.register(Scale)
def scale(op: Scale, interval: Interval) -> Interval:
    """The ends, in the order that the factor's sign gives."""
    ends = op.forward(interval[0]), op.forward(interval[1])
    return torch.minimum(*ends), torch.maximum(*ends)


@intervals.register(Monotone)
def monotone(op: Op, *inputs: Interval) -> Interval:
    """f(l), f(u): sound for a function that is non-decreasing in every coordinate."""
    return op.forward(*[low for low, _ in inputs]), op.forward(*[high for _, high in inputs])


@intervals.register(Elementwise)
def elementwise(op: Elementwise, interval: Interval) -> Interval:
    """The function's own image."""
    return op.image(*interval)
