"""Linear relaxations of elementwise activations.

ReLU: Zhang et al. 2018 (CROWN) with the adaptive lower slope; S-shaped functions: chord or tangent
by case, the tangent point found by bisection that keeps the valid side.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from certus.graph.activation import Clamp, LeakyRelu, Relu, SShaped
from certus.relax.lines import Interval, Lines, relaxations

Function = Callable[[Tensor], Tensor]
_BISECTIONS = 30
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


@relaxations.register(SShaped)
def s_shaped(op: SShaped, interval: Interval) -> Lines:
    """Upper line by cases; the lower one from x -> -f(-x), which has the same shape."""

    def mirror(x: Tensor) -> Tensor:
        return -op.forward(-x)

    def slope_of_mirror(x: Tensor) -> Tensor:
        return op.derivative(-x)

    lower, upper = interval
    slope, offset = _above(op.forward, op.derivative, lower, upper)
    below, negative = _above(mirror, slope_of_mirror, -upper, -lower)
    return Lines(below, -negative, slope, offset)


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
    return Lines(below, None, above, offset)


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


def _above(f: Function, df: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """A line above f on [l, u] for f convex on x <= 0 and concave on x >= 0: slope and offset."""
    at_lower, at_upper = f(lower), f(upper)
    width = upper - lower
    wide = width > 1e-6 * upper.abs().clamp(min=1.0)
    chord = (at_upper - at_lower) / torch.where(wide, width, torch.ones_like(width))
    use_chord = wide & ((upper <= 0) | ((lower < 0) & (chord <= df(upper))))
    with torch.no_grad():  # any tangent point on the valid side is sound, so no gradient is needed
        point = _tangent_point(f, df, lower, upper)
        narrow = torch.where(upper <= 0, upper, lower.clamp(min=0))
        point = torch.where(wide, point, narrow)
    tangent = df(point)
    slope = torch.where(use_chord, chord, tangent)
    offset = torch.where(use_chord, at_lower - chord * lower, f(point) - tangent * point)
    # a tangent on the convex side lies below f: lift it to both ends of a narrow interval
    lift = torch.maximum(at_lower - (slope * lower + offset), at_upper - (slope * upper + offset))
    return slope, offset + lift.clamp(min=0)


def _tangent_point(f: Function, df: Function, lower: Tensor, upper: Tensor) -> Tensor:
    """Where l >= 0 the midpoint; else the smallest point >= 0 found whose tangent lies above f(l)."""
    at_lower = f(lower)
    bad, good = torch.zeros_like(lower), upper.clamp(min=0)
    for _ in range(_BISECTIONS):
        middle = (bad + good) / 2
        valid = f(middle) + df(middle) * (lower - middle) >= at_lower
        good, bad = torch.where(valid, middle, good), torch.where(valid, bad, middle)
    return torch.where(lower >= 0, (lower + upper) / 2, good)
