"""Lines for a value whose limits are known beforehand."""

import torch

from certus.graph.activation import Within
from certus.relax.activation import clamp
from certus.relax.lines import Interval, Lines, relaxations

_BEYOND = 0.25  # share of the limits' distance


@relaxations.register(Within)
def within(op: Within, interval: Interval) -> Lines:
    """The identity; the lines of the clamp where the interval reaches far beyond a limit."""
    lower, upper = interval
    room = _BEYOND * (op.high - op.low)
    far = ~((upper - op.high <= room) & (op.low - lower <= room))  # true for NaN
    lines = clamp(op, interval)
    one, zero = torch.ones_like(lower), torch.zeros_like(lower)
    start = zero if lines.lower_offset is None else lines.lower_offset
    return Lines(
        torch.where(far, lines.lower_slope, one),
        torch.where(far, start, zero),
        torch.where(far, lines.upper_slope, one),
        torch.where(far, lines.upper_offset, zero),
    )
