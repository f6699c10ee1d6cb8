"""Linear relaxations of PReLU with any weight and of piecewise constant functions, in closed form."""

import torch
from torch import Tensor

from certus.graph.piecewise import Prelu, Stairs, Threshold
from certus.relax.lines import Interval, Lines, relaxations


@relaxations.register(Prelu)
def prelu(op: Prelu, interval: Interval) -> Lines:
    """max(x, weight x) for weight <= 1, else min: the chord, and the steeper side at the midpoint."""
    poison = 0 * (interval[0] + interval[1])  # NaN ends, or infinite ones
    lower, upper, weight = interval[0] + poison, interval[1] + poison, op.weight + poison
    one = torch.ones_like(weight)
    width = upper - lower
    cross = (lower < 0) & (upper > 0)
    quotient = (upper - weight * lower) / torch.where(cross, width, one)
    chord = torch.minimum(torch.maximum(quotient, weight.clamp(max=1)), weight.clamp(min=1))
    side = torch.where(lower >= 0, one, weight)
    support = torch.where(lower + upper >= 0, one, weight)
    support, chord = torch.where(cross, support, side), torch.where(cross, chord, side)
    foot = torch.where(cross, (weight - chord) * lower, poison)
    zero, convex = poison * one, weight <= 1
    return Lines(
        torch.where(convex, support, chord),
        torch.where(convex, zero, foot),
        torch.where(convex, chord, support),
        torch.where(convex, foot, zero),
    )


@relaxations.register(Threshold)
def threshold(op: Threshold, interval: Interval) -> Lines:
    """One jump at zero: above through (l, f(l)) and (0, f(u)), or the constant f(u); below likewise."""
    lower, upper = interval
    low, high = op.forward(lower), op.forward(upper)
    middle = lower + upper
    rising = _rise(high - low, -lower, middle < 0)
    falling = _rise(high - low, upper, middle > 0)
    return Lines(falling, low, rising, high)


@relaxations.register(Stairs)
def stairs(op: Stairs, interval: Interval) -> Lines:
    """Between the corners of the first and the last jump a line of slope one, else to the corner."""
    lower, upper = interval
    low, high = op.forward(lower), op.forward(upper)
    middle, jumps = (lower + upper) / 2, high > low
    first, last = low + 1 + op.shift, high + op.shift
    zero = 0 * (low + high)
    inside = jumps & (middle >= first) & (middle <= last)
    slope = torch.where(inside, zero + 1, zero)
    rising = slope + _rise(zero + 1, first - lower, jumps & (middle < first))
    falling = slope + _rise(zero + 1, upper - last, jumps & (middle > last))
    # corners: the tops (low + 1 at first, high at last), the feet (low at first, high - 1 at last)
    top = torch.where(middle < first, low + 1 - rising * first, high - slope * last)
    foot = torch.where(middle > last, high - 1 - falling * last, low - slope * first)
    return Lines(
        falling, torch.where(jumps, foot, low + zero), rising, torch.where(jumps, top, high + zero)
    )


def _rise(height: Tensor, run: Tensor, used: Tensor) -> Tensor:
    """height / run where it is used and finite, else 0; NaN stays."""
    steep = run > height * (4 / torch.finfo(run.dtype).max)
    slope = height / torch.where(used & steep, run, torch.ones_like(run))
    return torch.where(used & steep, slope, 0 * (height + run))
