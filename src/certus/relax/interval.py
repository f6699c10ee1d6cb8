"""Interval arithmetic: the image of a box under an operation, one rule for each class of operation."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from certus.core import Rules
from certus.graph.affine import Conv, Scale, Shift, Sum
from certus.graph.convolution import laid
from certus.graph.op import Affine, Elementwise, Monotone, Op, Selection
from certus.relax.lines import Interval

# (op, intervals of the inputs) -> interval of the output
intervals = Rules("interval arithmetic")


@intervals.register(Affine)
def affine(op: Affine, *inputs: Interval) -> Interval:
    """W c + b -+ |W| r for centre c and radius r."""
    halves = [_half_sums(*interval) for interval in inputs]
    middle = op.forward(*[centre for centre, _ in halves])
    radius = op.magnitude(*[radius for _, radius in halves])
    return _ends(middle, radius)


@intervals.register(Conv)
def convolution(op: Conv, interval: Interval) -> Interval:
    """As `affine`; from the first convolution on maps have their channels last."""
    return affine(op, (laid(interval[0]), laid(interval[1])))


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


def _half_sums(low: Tensor, high: Tensor) -> Interval:
    """(l + u) / 2 and (u - l) / 2."""
    if torch.is_grad_enabled() and (low.requires_grad or high.requires_grad):
        found: Interval = _HalfSums.apply(low, high)
        return found
    return (low + high).mul_(0.5), (high - low).mul_(0.5)


def _ends(middle: Tensor, radius: Tensor) -> Interval:
    """c - r and c + r."""
    if torch.is_grad_enabled() and middle.shape == radius.shape:
        found: Interval = _Ends.apply(middle, radius)
        return found
    return middle - radius, middle + radius


class _HalfSums(Function):
    """With a gradient in three passes over the data where autograd takes five."""

    @staticmethod
    def forward(ctx: Any, low: Tensor, high: Tensor) -> Interval:
        return (low + high).mul_(0.5), (high - low).mul_(0.5)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Interval:
        centre, radius = gradients
        high = (centre + radius) * 0.5
        return centre - high, high


class _Ends(Function):
    """With a gradient in two passes where autograd takes three."""

    @staticmethod
    def forward(ctx: Any, middle: Tensor, radius: Tensor) -> Interval:
        return middle - radius, middle + radius

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Interval:
        low, high = gradients
        return low + high, high - low
