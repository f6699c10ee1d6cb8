"""Linear relaxations of functions with known curvature: one rule, for every activation that states it.

Chord, tangent or bridge by case, always the line with the smallest area (see `envelope`). The lines
of S-shaped functions are those of Zhang et al. 2018 (CROWN), section 3, except that beyond the
tangent point through the end of the interval the tangent at the midpoint is taken.
"""

import torch
from torch import Tensor

from certus.graph.curved import Curved
from certus.graph.powers import Exp
from certus.graph.smooth import Softplus
from certus.relax.envelope import (
    Contact,
    Curve,
    line_above,
    tangent_above,
    touch_gated,
    touch_half,
    touch_middle,
)
from certus.relax.lines import Interval, Lines, relaxations

_REACH = 0.99  # a tangent of exp at l + 1 or beyond would not be positive at l


@relaxations.register(Curved)
def curved(op: Curved, interval: Interval) -> Lines:
    """The supporting lines of both envelopes at the midpoint."""
    lower, upper = op.domain(*interval)
    return _lines(op, curve_of(op), (lower, upper), (lower + upper) / 2)


@relaxations.register(Exp)
def exponential(op: Exp, interval: Interval) -> Lines:
    """As any convex function, but the lower line stays positive, as a divisor must (softmax)."""
    lower, upper = interval
    return _lines(op, curve_of(op), interval, torch.minimum((lower + upper) / 2, lower + _REACH))


@relaxations.register(Softplus)
def softplus(op: Softplus, interval: Interval) -> Lines:
    """The lines of the smooth function, the lower one below the drop at the switch."""
    lower, upper = interval

    def slopes(low: Tensor, high: Tensor) -> Interval:
        return op.derivative(low), op.derivative(high)

    smooth = Curve(op.smooth, op.derivative, slopes)
    found = _lines(op, smooth, interval, (lower + upper) / 2)
    drop = torch.where(op.beta * upper > op.threshold, op.jump, 0.0).to(lower.dtype)
    assert found.lower_offset is not None
    return Lines(
        found.lower_slope, found.lower_offset - drop, found.upper_slope, found.upper_offset
    )


def curve_of(op: Curved) -> Curve:
    """The operation as a curve."""
    kinked = type(op).convex_derivative is not Curved.convex_derivative
    return Curve(op.forward, op.derivative, op.slopes, op.convex_derivative if kinked else None)


def _lines(op: Curved, curve: Curve, interval: Interval, below: Tensor) -> Lines:
    """Lines that support the upper envelope at the midpoint and the lower one at `below`."""
    lower, upper = interval
    concave_first = not op.convex_first
    middle = (lower + upper) / 2
    slope, offset = _above(curve, interval, middle, op.bends, concave_first)
    mirrored, negative = _above(curve.negative(), interval, below, op.bends, not concave_first)
    return Lines(-mirrored, -negative, slope, offset)


def _above(
    curve: Curve,
    interval: Interval,
    point: Tensor,
    bends: tuple[float, ...],
    concave_first: bool,
) -> tuple[Tensor, Tensor]:
    """Slope and offset of the line that supports the concave envelope at a point."""
    lower, upper = interval
    if not bends and concave_first:
        return tangent_above(curve, lower, upper, point)
    return line_above(curve, lower, upper, _contact(curve, interval, point, bends, concave_first))


def _contact(
    curve: Curve,
    interval: Interval,
    point: Tensor,
    bends: tuple[float, ...],
    concave_first: bool,
) -> Contact | None:
    """The arcs of a function whose curvature alternates between the bends."""
    lower, upper = interval
    at = [torch.full_like(lower, bend) for bend in bends]
    if not at:
        return None
    if len(at) == 1:
        after = torch.full_like(lower, not concave_first, dtype=torch.bool)
        return touch_half(curve, lower, upper, point, at[0], after)
    if concave_first:
        return touch_gated(curve, lower, upper, point, (bends[0], bends[1]))
    return touch_middle(curve, lower, upper, point, (at[0], at[1]))
