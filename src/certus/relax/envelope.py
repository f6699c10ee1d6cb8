"""Lines that touch the concave envelope of a function of known curvature.

Of all lines above f on [l, u] the one with the smallest area over the interval supports the concave
envelope at the midpoint. The envelope consists of arcs where f is concave, of bridges (from an end of
the interval to the tangent point on an arc) and of chords, so it takes one bisection to find.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
_ENOUGH = {torch.float64: 1e-10, torch.float32: 1e-6}  # how closely a point of contact is found
_STEPS = 100


@dataclass(frozen=True, eq=False)
class Curve:
    """A function, its derivative, and the range of its difference quotients on an interval.

    Where a kink separates a concave from a convex part, `derivative` is the slope on the concave
    side and `convex_derivative` the other one; elsewhere they agree.
    """

    f: Function
    derivative: Function
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    convex_derivative: Function | None = None  # None: there are no such kinks

    def negative(self) -> "Curve":
        """-f."""

        def slopes(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
            low, high = self.slopes(lower, upper)
            return -high, -low

        other = self.convex_derivative
        if other is None:
            return Curve(lambda x: -self.f(x), lambda x: -self.derivative(x), slopes)
        return Curve(
            lambda x: -self.f(x), lambda x: -other(x), slopes, lambda x: -self.derivative(x)
        )

    def secant(self, lower: Tensor, upper: Tensor) -> Tensor:
        """(f(u) - f(l)) / (u - l), or a slope in between where rounding would swamp the quotient."""
        at_lower, at_upper, width = self.f(lower), self.f(upper), upper - lower
        with torch.no_grad():
            low, high = self.slopes(lower, upper)
            noise = 4 * torch.finfo(width.dtype).eps * (at_lower.abs() + at_upper.abs())
            narrow = (width <= 0) | ((high - low) * width <= noise)
        quotient = (at_upper - at_lower) / torch.where(narrow, torch.ones_like(width), width)
        quotient = torch.minimum(torch.maximum(quotient, low), high)
        return torch.where(narrow, self._slope(lower, upper), quotient)

    def _slope(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The derivative at the midpoint; 0 where it is infinite (sqrt at zero) and there is no width."""
        slope = self.derivative((lower + upper) / 2)
        return torch.where((upper == lower) & slope.isinf(), torch.zeros_like(slope), slope)


@dataclass(frozen=True, eq=False)
class Contact:
    """Where the line touches the function, and how.

    seen: the arc rises over the chord (else the chord is the line). bridge: the line runs from
    `anchor`, an end of the interval, to the point of contact. corner: it meets a kink there, so the
    derivative does not tell its slope; None where the function has no kinks.
    """

    point: Tensor
    seen: Tensor
    bridge: Tensor
    anchor: Tensor
    corner: Tensor | None


def line_above(
    curve: Curve, lower: Tensor, upper: Tensor, contact: Contact | None
) -> tuple[Tensor, Tensor]:
    """Slope and offset of a line above the function on [l, u]; without a contact the chord."""
    chord = curve.secant(lower, upper)
    slope, offset = chord, curve.f(lower) - chord * lower
    if contact is not None:
        tangent, foot = _tangent(curve, contact)
        slope = torch.where(contact.seen, tangent, chord)
        offset = torch.where(contact.seen, foot, offset)
    return slope, lifted(curve.f, lower, upper, slope, offset)


def tangent_above(
    curve: Curve, lower: Tensor, upper: Tensor, point: Tensor
) -> tuple[Tensor, Tensor]:
    """Slope and offset of the tangent at a point, for a function that is concave on [l, u]."""
    slope = curve.derivative(point)
    # where a point interval has an infinite slope (sqrt at zero) any other slope serves
    slope = torch.where((upper == lower) & slope.isinf(), torch.zeros_like(slope), slope)
    return slope, lifted(curve.f, lower, upper, slope, curve.f(point) - slope * point)


def lifted(f: Function, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """The offset, raised until rounding leaves neither end of the interval above the line."""
    with torch.no_grad():
        left = f(lower) - (slope * lower + offset)
        right = f(upper) - (slope * upper + offset)
        lift = torch.maximum(left, right).clamp(min=0)
    return offset + lift


def touch_half(
    curve: Curve, lower: Tensor, upper: Tensor, point: Tensor, bend: Tensor, after: Tensor
) -> Contact:
    """The envelope at `point` for one arc at a side: concave on x >= bend where `after`, else on

    x <= bend, and convex on the other side.
    """
    anchor = torch.where(after, lower, upper)
    near = torch.minimum(torch.maximum(bend, lower), upper)
    far = torch.where(after, upper, lower)
    reach, seen, corner = _reach(curve, anchor, point, near, far)
    bridge = torch.where(after, point < reach, point > reach)
    kink = None if corner is None else corner & bridge & (near != anchor)
    return Contact(torch.where(bridge, reach, point), seen, bridge, anchor, kink)


def touch_middle(
    curve: Curve, lower: Tensor, upper: Tensor, point: Tensor, arc: tuple[Tensor, Tensor]
) -> Contact:
    """The envelope at `point` for an arc in the middle: concave on it, convex on both sides."""
    start = torch.minimum(torch.maximum(arc[0], lower), upper)
    end = torch.minimum(torch.maximum(arc[1], lower), upper)
    left, seen_left, corner_left = _reach(curve, lower, point, start, end)
    right, seen_right, corner_right = _reach(curve, upper, point, end, start)
    before, behind = point < left, point > right
    touch = torch.where(before, left, torch.where(behind, right, point))
    # a bridge from one end counts only if it does not pass below the function at the other one
    seen = seen_left & seen_right & ~(before & behind)
    seen = seen & torch.where(before, _valid(curve, upper, touch), _valid(curve, lower, touch))
    kink = None
    if corner_left is not None and corner_right is not None:
        kink = (before & corner_left & (start > lower)) | (behind & corner_right & (end < upper))
    return Contact(touch, seen, before | behind, torch.where(before, lower, upper), kink)


def touch_gated(
    curve: Curve, lower: Tensor, upper: Tensor, point: Tensor, bends: tuple[float, float]
) -> Contact:
    """The envelope at `point` for arcs on both sides: concave, convex between the bends, concave,

    with no slope left of the first bend above one right of the second. Then no line touches both
    arcs, and the first arc carries the envelope at its left end or the second one at its right end.
    """
    with torch.no_grad():
        chord = curve.secant(lower, upper)
        first = (lower < bends[0]) & (curve.derivative(lower) > chord)
        after = (upper > bends[1]) & ~first
        bend = torch.where(after, bends[1] + 0 * lower, bends[0] + 0 * lower)
    return touch_half(curve, lower, upper, point, bend, after)


def _valid(curve: Curve, anchor: Tensor, point: Tensor) -> Tensor:
    """Whether the tangent at a point does not pass below f at the anchor; false for NaN."""
    with torch.no_grad():
        return _margin(curve, anchor, curve.f(anchor), point) >= 0


def _margin(curve: Curve, anchor: Tensor, target: Tensor, point: Tensor) -> Tensor:
    return curve.f(point) + curve.derivative(point) * (anchor - point) - target


@torch.no_grad()
def _reach(
    curve: Curve, anchor: Tensor, point: Tensor, near: Tensor, far: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """How far along an arc the line at `point` touches it, seen from the anchor, an end of [l, u].

    The arc runs from `near`, its end next to the anchor, to `far`; along it the tangent's value at
    the anchor grows. Where the tangent at `point` (on the arc, or at `near` before it) is valid that
    is the answer, else the first valid one behind it, and `far` if none is. Also whether one is, and
    whether `near` is one: at a kink, or where the anchor lies on the arc; None without kinks.
    """
    ends = torch.minimum(near, far), torch.maximum(near, far)
    start = torch.minimum(torch.maximum(point, ends[0]), ends[1])
    target = curve.f(anchor)
    low, high = (_margin(curve, anchor, target, x) for x in (start, far))
    seen = (low >= 0) | (high >= 0)
    open_ = (low < 0) & (high > 0)  # else there is nothing to look for
    reach = torch.where(low >= 0, start, far)
    if bool(open_.any()):
        parts = (anchor[open_], target[open_], start[open_], far[open_])
        reach[open_] = _root(curve, *parts, low[open_], high[open_])
    if curve.convex_derivative is None:
        return reach, seen, None
    return reach, seen, _margin(curve, anchor, target, near) >= 0


def _root(
    curve: Curve,
    anchor: Tensor,
    target: Tensor,
    bad: Tensor,
    good: Tensor,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """The point next to `bad` with a margin >= 0: halving and false position (Illinois) in turn."""
    enough = _ENOUGH.get(good.dtype, 1e-6)
    for step in range(_STEPS):
        share = low / (low - high) if step % 2 == 0 else torch.full_like(low, 0.5)
        middle = bad + share * (good - bad)
        margin = _margin(curve, anchor, target, middle)
        ok = margin >= 0
        # the end that stays counts half, or false position would move the other one only
        good, bad = torch.where(ok, middle, good), torch.where(ok, bad, middle)
        high, low = torch.where(ok, margin, high / 2), torch.where(ok, low / 2, margin)
        if step % 2 and not bool(((good - bad).abs() > enough * good.abs().clamp(min=1.0)).any()):
            break
    return good


def _tangent(curve: Curve, contact: Contact) -> tuple[Tensor, Tensor]:
    """Slope and offset of the line through the point of contact.

    The tangent's slope is sound for any valid point; a bridge has the secant's gradient, for its
    point of contact is found without one.
    """
    touch = contact.point
    slope = curve.derivative(touch)
    if slope.requires_grad or contact.anchor.requires_grad or contact.corner is not None:
        low, high = torch.minimum(touch, contact.anchor), torch.maximum(touch, contact.anchor)
        secant = curve.secant(low, high)
        bridge = secant + (slope - secant).detach()
        if contact.corner is not None:
            bridge = torch.where(contact.corner, secant, bridge)
        slope = torch.where(contact.bridge, bridge, slope)
    return slope, curve.f(touch) - slope * touch
