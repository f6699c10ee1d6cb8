"""Lines for whole numbers that fit their type, and for floor division."""

import torch

from certus.graph.whole import Fits, FloorDivide
from certus.relax.lines import Interval, Lines, relaxations


@relaxations.register(Fits)
def fits(op: Fits, interval: Interval) -> Lines:
    """The identity, NaN where the interval leaves the type."""
    slope, _ = op.slopes(*interval)
    zero = 0 * slope
    return Lines(slope, zero, slope, zero)


@relaxations.register(FloorDivide)
def floor_divide(op: FloorDivide, interval: Interval) -> Lines:
    """Constants: the values at the ends."""
    low, high = op.image(*interval)
    poison = 0 * (low + high)
    zero = torch.zeros_like(poison) + poison
    return Lines(zero, low + poison, zero, high + poison)
