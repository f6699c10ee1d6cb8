"""Linear relaxations of piecewise linear activations.

ReLU: Zhang et al. 2018 (CROWN) with the adaptive lower slope.
"""

import torch
from torch import Tensor

from certus.graph.activation import Clamp, LeakyRelu, Relu
from certus.relax.lines import Interval, Lines, relaxations

_NARROW = 1e-12  # intervals below this are not divided by: the gradient of the quotient overflows


@relaxations.register(Relu)
def relu(op: Relu, interval: Interval) -> Lines:
    """Chord above; below the slope 1 where u >= -l, else 0."""
    return _hinge(0.0, *interval)


@relaxations.register(LeakyRelu)
def leaky_relu(op: LeakyRelu, interval: Interval) -> Lines:
    """Chord above; below the slope 1 where u >= -l, else `slope`."""
    return _hinge(op.slope, *interval)


@relaxations.register(Clamp)
def clamp(op: Clamp, interval: Interval) -> Lines:
    """Above: through the left end and the start of the plateau (or the plateau); below by symmetry."""
    lower, upper = interval
    slope, offset = _plateau(lower, upper, op.low, op.high)
    mirrored, negative = _plateau(-upper, -lower, -op.high, -op.low)
    return Lines(mirrored, -negative, slope, offset)


def _hinge(leak: float, lower: Tensor, upper: Tensor) -> Lines:
    """max(x, leak x), 0 <= leak <= 1."""
    active, dead = lower >= 0, upper <= 0
    width = upper - lower
    wide = ~(active | dead) & ~(width <= _NARROW)  # true for NaN, which must come through
    chord = (upper - leak * lower) / torch.where(wide, width, torch.ones_like(width))
    one, least = torch.ones_like(chord), torch.full_like(chord, leak)
    # in a narrow interval x - (1 - leak) l lies above too, and has no quotient
    above = torch.where(wide, chord, torch.where(dead, least, one))
    offset = torch.where(active | dead, torch.zeros_like(chord), (leak - above) * lower)
    below = torch.where(active | (~dead & (upper >= -lower)), one, least)
    floor = leak + (1 - leak) * active.to(chord.dtype)
    ceiling = 1 - (1 - leak) * dead.to(chord.dtype)
    return Lines(below, None, above, offset, floor, ceiling)


def _plateau(lower: Tensor, upper: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """A line above min(max(x, low), high) on [l, u]: slope and offset."""
    start = lower.clamp(low, high)
    end = upper.clamp(max=high)
    run, top = end - lower, upper.clamp(low, high)
    narrow = run <= _NARROW
    rising = ((top - start) / torch.where(narrow, torch.ones_like(run), run)).clamp(0.0, 1.0)
    # past the plateau's start the rising line wastes more than the constant f(u) does before it
    flat = narrow | (lower >= high) | (upper - high > high - lower)
    slope = torch.where(flat, torch.zeros_like(rising), rising)
    offset = torch.where(flat, top, start - rising * lower)
    return slope, offset
