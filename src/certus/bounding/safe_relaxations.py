"""Relaxations whose offsets hold in real arithmetic for the float slopes they come with.

A line of any slope becomes sound by its offset alone. The slopes of a relaxation are kept, and the
offsets are computed again, rounded to the sound side, with room for the float evaluation of the
operation itself (`wobble`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.bounding.engine import Engine
from certus.bounding.evaluation import limit_error
from certus.bounding.gamma import gamma, less, more, smallest, unit
from certus.bounding.outward import floor, wobble
from certus.bounding.state import Table
from certus.core import Rules, UnsupportedError
from certus.graph.activation import Clamp, LeakyRelu, MaxPool, Relu, Sigmoid, Tanh
from certus.graph.op import Op
from certus.relax import Interval, Lines, Relaxation
from certus.relax.pooling import Windowed

# (op, relaxation, interval, engine) -> the relaxation made safe
safe_relaxations = Rules("rigorous arithmetic")


@dataclass(frozen=True)
class Safe:
    """A table of relaxations made safe: its slopes, with offsets that leave room for an engine."""

    slopes: Table
    engine: Engine

    def __getitem__(self, kind: type) -> Callable[..., Relaxation]:
        """The rule for an operation's class."""
        safe, slopes = safe_relaxations[kind], self.slopes[kind]

        def rule(op: Op, *own: Interval) -> Relaxation:
            found: Relaxation = safe(op, slopes(op, *own), *own, self.engine)
            return found

        return rule


def _above(value: Tensor, terms: Tensor) -> Tensor:
    """At least the exact value of something whose absolute terms met a few roundings."""
    return value + (8 * unit(value.dtype) * terms + 4 * smallest(value.dtype))


def _lines(relaxation: Relaxation) -> Lines:
    if not isinstance(relaxation, Lines):
        name = type(relaxation).__name__
        raise UnsupportedError(f"{safe_relaxations.name} has no rule for the relaxation {name}")
    return relaxation


def _plain(slope: Tensor) -> Tensor:
    """A slope whose product cannot be lost to underflow: zero where it is tiny."""
    return torch.where(slope.abs() < floor(slope.dtype), torch.zeros_like(slope), slope)


@safe_relaxations.register(Relu)
def relu(op: Relu, relaxation: Relaxation, interval: Interval, engine: Engine) -> Lines:
    """The lower line has no offset and the upper one's is >= 0: the walk relies on both signs."""
    lines = _lines(relaxation)
    slope = _plain(lines.upper_slope)
    found = _under_one(lines, 0.0)
    return replace(found, upper_slope=slope, upper_offset=_hinge_offset(slope, 0.0, interval))


@safe_relaxations.register(LeakyRelu)
def leaky_relu(op: LeakyRelu, relaxation: Relaxation, interval: Interval, engine: Engine) -> Lines:
    """As for ReLU, each line with room for the rounding of slope times x."""
    lines = _lines(relaxation)
    slope = _plain(lines.upper_slope)
    error = wobble[LeakyRelu](op, op.slope * interval[0].clamp(max=0), engine)
    found = _under_one(lines, op.slope)
    above = more(_hinge_offset(slope, op.slope, interval) + 3 * error)
    return replace(found, lower_offset=-3 * more(error), upper_slope=slope, upper_offset=above)


def _under_one(lines: Lines, leak: float) -> Lines:
    """Lower slopes, and their limits, between leak and 1: there the line through zero is sound.

    The rounding of leak itself is at most what `wobble` allows for.
    """
    slopes = {"lower_slope": lines.lower_slope, "floor": lines.floor, "ceiling": lines.ceiling}
    kept = {name: None if s is None else s.clamp(leak, 1.0) for name, s in slopes.items()}
    return replace(lines, lower_offset=None, **kept)  # type: ignore[arg-type]


def _hinge_offset(slope: Tensor, leak: float, interval: Interval) -> Tensor:
    """max over the ends of f(x) - slope x, factored so that nothing cancels; at least zero."""
    lower, upper = interval
    ends = [torch.where(x > 0, 1 - slope, leak - slope) * x for x in (lower, upper)]
    highest = torch.maximum(*ends).clamp(min=0)
    rounding = highest + leak * lower.clamp(max=0).abs()
    return _above(highest, rounding)


@safe_relaxations.register(Clamp)
def clamp(op: Clamp, relaxation: Relaxation, interval: Interval, engine: Engine) -> Lines:
    """The largest of f(x) - slope x at ends and kinks, in floats, and room for all its roundings."""
    lines = _lines(relaxation)
    lower, upper = interval
    kinks = [torch.full_like(lower, limit) for limit in (op.low, op.high)]
    points = [lower, upper, *[torch.minimum(torch.maximum(k, lower), upper) for k in kinks]]
    low, high = _plain(lines.lower_slope), _plain(lines.upper_slope)
    error = limit_error(op, interval, lower.dtype)
    extra = torch.zeros_like(lower) if error is None else 2 * error
    above = [_height(op.forward(x), high, x) for x in points]
    below = [_height(-op.forward(x), -low, x) for x in points]
    upper_offset = _largest(above) + extra
    lower_offset = -(_largest(below) + extra)
    return Lines(low, less(lower_offset), high, -less(-upper_offset))


def _height(value: Tensor, slope: Tensor, x: Tensor) -> Tensor:
    """value - slope x, not rounded down; the value itself may be 4 ulp off."""
    return _above(value - slope * x, 2 * value.abs() + (slope * x).abs())


def _largest(values: list[Tensor]) -> Tensor:
    """The elementwise maximum; NaN where one is NaN."""
    found = values[0]
    for value in values[1:]:
        found = torch.maximum(found, value)
    return found


@dataclass(frozen=True)
class _Curve:
    """An S-shaped function with f(x) = rise - f(-x), and where its slope is s: +-inverse(s)."""

    op: Sigmoid | Tanh
    rise: float

    def slope_point(self, slope: Tensor) -> Tensor:
        """x >= 0 with f'(x) near s: tanh' = 1 - tanh^2, and sigmoid(x) = (1 + tanh(x/2)) / 2."""
        steepest = self.op.lipschitz
        bent = torch.atanh((1 - slope / steepest).clamp(0, 1).sqrt())
        return bent * (1 if isinstance(self.op, Tanh) else 2)


@safe_relaxations.register(Sigmoid)
def sigmoid(op: Sigmoid, relaxation: Relaxation, interval: Interval, engine: Engine) -> Lines:
    """Offsets from the convex part's ends and a tangent of the concave part."""
    return _s_shaped(_Curve(op, 1.0), _lines(relaxation), interval, engine)


@safe_relaxations.register(Tanh)
def tanh(op: Tanh, relaxation: Relaxation, interval: Interval, engine: Engine) -> Lines:
    """Offsets from the convex part's ends and a tangent of the concave part."""
    return _s_shaped(_Curve(op, 0.0), _lines(relaxation), interval, engine)


def _s_shaped(curve: _Curve, lines: Lines, interval: Interval, engine: Engine) -> Lines:
    """The lower line is the upper one of the mirrored function rise - f(-x)."""
    lower, upper = interval
    low, high = _plain(lines.lower_slope), _plain(lines.upper_slope)
    largest = torch.maximum(curve.op.forward(lower).abs(), curve.op.forward(upper).abs())
    evaluation = 2 * more(wobble[type(curve.op)](curve.op, largest, engine))
    above = _crest(curve, high, lower, upper) + evaluation
    below = less(curve.rise - _crest(curve, low, -upper, -lower)) - evaluation
    return Lines(low, less(below), high, -less(-above))


def _crest(curve: _Curve, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """At least max f(x) - slope x over [l, u].

    For x <= 0 f is convex: the ends. For x >= 0 f lies below its tangent at any p, and the tangent
    minus the line is largest at an end; p is where f' is about the slope, so little is lost.
    """
    f = curve.op.forward
    zero = torch.zeros_like(lower) + 0 * slope
    left, right = torch.maximum(lower, zero), torch.maximum(upper, zero)
    point = torch.minimum(torch.maximum(curve.slope_point(slope), left), right)
    value, steep = f(point), curve.op.derivative(point)
    excess = torch.maximum((steep - slope) * (left - point), (steep - slope) * (right - point))
    width = right - left
    # the derivative is a product of two evaluations: 32 units cover both and the differences
    tangent = value - slope * point + excess
    rounding = 2 * value.abs() + 2 * (slope * point).abs() + 4 * (steep + slope.abs()) * width
    top = torch.where(upper > 0, _above(tangent, rounding), float("-inf"))
    ends = [torch.minimum(x, zero) for x in (lower, upper)]
    convex = _largest([_height(f(x), slope, x) for x in ends])
    convex = torch.where(lower < 0, convex, float("-inf"))
    return torch.where(lower.isnan() | upper.isnan(), lower + upper, torch.maximum(top, convex))


@safe_relaxations.register(MaxPool)
def max_pool(op: MaxPool, relaxation: Relaxation, interval: Interval, engine: Engine) -> Windowed:
    """max_i x_i <= t + sum_i relu(x_i - t) for every t; t is what the relaxation's offset stands for.

    The offset is t plus the largest values, which lie at ends, of relu(x_i - t) - slope_i x_i.
    """
    if not isinstance(relaxation, Windowed):
        name = type(relaxation).__name__
        raise UnsupportedError(f"{safe_relaxations.name} has no rule for the relaxation {name}")
    low = op.windows(interval[0], float("-inf"))
    high = op.windows(interval[1], float("-inf"))
    inside = op.windows(torch.ones_like(interval[0][:1, :1]), 0.0) > 0
    base = low.amax(2, keepdim=True)
    low, high = torch.where(inside, low, base), torch.where(inside, high, base)
    slope = torch.where(inside, _plain(relaxation.upper.flatten(3)), 0.0)
    level = relaxation.offset.flatten(2).unsqueeze(2) + (slope * low).sum(2, keepdim=True)
    ends = [((x - level).clamp(min=0), slope * x) for x in (low, high)]
    highest = torch.maximum(*[rise - line for rise, line in ends])
    highest = torch.where(inside, highest, 0.0)
    sizes = sum((rise.abs() + line.abs() for rise, line in ends), torch.zeros_like(low))
    count = low.shape[2] + 8
    error = more(gamma(count, low.dtype) * (sizes.sum(2) + level.squeeze(2).abs()), count)
    offset = level.squeeze(2) + highest.sum(2) + error + 4 * count * smallest(low.dtype)
    return replace(
        relaxation,
        upper=slope.view_as(relaxation.upper),
        offset=offset.view_as(relaxation.offset),
    )
