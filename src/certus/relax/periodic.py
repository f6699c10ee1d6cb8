"""Linear relaxations of sine, cosine and tangent, worked out in float64."""

import math

import torch
from torch import Tensor

from certus.graph.curved import only_where
from certus.graph.periodic import Tan, Wave
from certus.relax.envelope import Curve, line_above, touch_gated, touch_half
from certus.relax.lines import Interval, Lines, relaxations

_FAR = 1e6  # beyond it the lines are the constants -1 and 1
_HALF = (-math.pi / 2, math.pi / 2)


@relaxations.register(Wave)
def wave(op: Wave, interval: Interval) -> Lines:
    """sin(x - phase) = -sin(x - phase - pi), so one construction gives both lines."""
    lower, upper = interval[0].double(), interval[1].double()
    slope, offset = _wave_above(lower, upper, op.phase)
    mirrored, negative = _wave_above(lower, upper, op.phase + math.pi)
    kind = interval[0].dtype
    return Lines(-mirrored.to(kind), -negative.to(kind), slope.to(kind), offset.to(kind))


@relaxations.register(Tan)
def tangent(op: Tan, interval: Interval) -> Lines:
    """Concave, then convex, on one branch; NaN across a pole."""
    centre = op.centre(*interval)
    ends = only_where(centre.isfinite(), interval[0].double(), interval[1].double())
    lower, upper = ends[0] - centre, ends[1] - centre
    curve = Curve(op.forward, op.derivative, op.slopes)
    bend, middle = torch.zeros_like(lower), (lower + upper) / 2
    before = torch.zeros_like(lower, dtype=torch.bool)
    contact = touch_half(curve, lower, upper, middle, bend, before)
    slope, offset = line_above(curve, lower, upper, contact)
    negative = curve.negative()
    contact = touch_half(negative, lower, upper, middle, bend, ~before)
    mirrored, minus = line_above(negative, lower, upper, contact)
    kind = interval[0].dtype
    below, above = -minus + mirrored * centre, offset - slope * centre
    return Lines(-mirrored.to(kind), below.to(kind), slope.to(kind), above.to(kind))


def _trough() -> Curve:
    """-cos(y) on [-pi, pi], from one peak of the wave to the next: concave, convex, concave."""

    def slopes(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        left, right = lower.sin(), upper.sin()
        low, high = torch.minimum(left, right), torch.maximum(left, right)
        steep = (lower <= _HALF[0]) & (upper >= _HALF[0]), (lower <= _HALF[1]) & (upper >= _HALF[1])
        return torch.where(steep[0], 0 * low - 1, low), torch.where(steep[1], 0 * high + 1, high)

    return Curve(lambda y: -y.cos(), torch.sin, slopes)


def _wave_above(lower: Tensor, upper: Tensor, phase: float) -> tuple[Tensor, Tensor]:
    """The concave envelope of sin(x - phase) at the midpoint.

    A peak is a maximum of the whole function, so the envelope over [l, u] is, between two
    neighbouring peaks, the envelope over that part alone.
    """
    middle = (lower + upper) / 2
    with torch.no_grad():
        turn = ((middle - phase - math.pi / 2) / (2 * math.pi)).floor()
        trough = turn * (2 * math.pi) + (phase + 1.5 * math.pi)
    start = (lower - trough).clamp(min=-math.pi)
    end = (upper - trough).clamp(max=math.pi)
    point = torch.minimum(torch.maximum(middle - trough, start), end)
    curve = _trough()
    contact = touch_gated(curve, start, end, point, _HALF)
    slope, offset = line_above(curve, start, end, contact)
    reach = torch.maximum(lower.abs(), upper.abs())
    # the position within the period is known up to a few roundings of x, and slopes are at most 1
    offset = offset - slope * trough + 8 * torch.finfo(lower.dtype).eps * reach
    far = reach > _FAR
    return torch.where(far, 0 * reach, slope), torch.where(far, 0 * reach + 1, offset)
