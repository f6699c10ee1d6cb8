"""Interval arithmetic: the image of a box under an operation, one rule for each class of operation."""

from certus.core import Rules
from certus.graph.op import Affine, Elementwise, Monotone
from certus.relax.lines import Interval

# (op, intervals of the inputs) -> interval of the output
intervals = Rules("interval arithmetic")


@intervals.register(Affine)
def affine(op: Affine, *inputs: Interval) -> Interval:
    """W c + b -+ |W| r for centre c and radius r."""
    middle = op.forward(*[(low + high) / 2 for low, high in inputs])
    radius = op.magnitude(*[(high - low) / 2 for low, high in inputs])
    return middle - radius, middle + radius


@intervals.register(Monotone)
def monotone(op: Monotone, *inputs: Interval) -> Interval:
    """f(l), f(u): sound for a function that is non-decreasing in every coordinate."""
    return op.forward(*[low for low, _ in inputs]), op.forward(*[high for _, high in inputs])


@intervals.register(Elementwise)
def elementwise(op: Elementwise, interval: Interval) -> Interval:
    """The function's own image."""
    return op.image(*interval)
