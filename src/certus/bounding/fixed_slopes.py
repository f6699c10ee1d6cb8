"""Tables of linear relaxations that differ in the slopes they choose: Fast-Lin, DeepPoly.

CROWN's own table, `relax.relaxations`, picks for ReLU the lower slope 1 where u >= -l and 0 elsewhere,
which is also DeepPoly's choice of least area. The tables here are that one with some rules replaced.
"""

import torch
from torch import Tensor

from certus.graph.activation import LeakyRelu, Relu, SShaped
from certus.relax import Interval, Lines, relaxations


def relu(op: Relu, interval: Interval) -> Lines:
    """Two parallel lines: the chord, and through the kink (Weng et al. 2018, section 3.3)."""
    return _parallel(relaxations[Relu](op, interval), 0.0, *interval)


def leaky_relu(op: LeakyRelu, interval: Interval) -> Lines:
    """As for ReLU."""
    return _parallel(relaxations[LeakyRelu](op, interval), op.slope, *interval)


def _parallel(lines: Lines, leak: float, lower: Tensor, upper: Tensor) -> Lines:
    """The upper line, and the parallel one through the origin where the interval holds the kink.

    max(x, leak x) >= a x for every a in [leak, 1], so the chord's slope is sound below as well.
    """
    slope = lines.upper_slope.clamp(leak, 1.0)
    return Lines(slope, None, lines.upper_slope, lines.upper_offset)


def s_shaped(op: SShaped, interval: Interval) -> Lines:
    """Chord on the side where it is a bound, else the smaller end slope (Singh et al. 2019, section 4.3).

    The slope min(f'(l), f'(u)) is the smallest on [l, u], so f minus that line is non-decreasing.
    """
    lower, upper = interval
    at_lower, at_upper = op.forward(lower), op.forward(upper)
    end = torch.minimum(op.derivative(lower), op.derivative(upper))
    width = upper - lower
    wide = width > 1e-6 * torch.maximum(lower.abs(), upper.abs()).clamp(min=1.0)
    chord = (at_upper - at_lower) / torch.where(wide, width, torch.ones_like(width))
    below = torch.where(wide & (lower >= 0), chord, end)  # concave there: the chord lies below
    above = torch.where(wide & (upper <= 0), chord, end)
    return Lines(below, at_lower - below * lower, above, at_upper - above * upper)


FAST_LIN = relaxations.extended("Fast-Lin's relaxation", {Relu: relu, LeakyRelu: leaky_relu})
DEEPPOLY = relaxations.extended("DeepPoly's relaxation", {SShaped: s_shaped})
