"""ATen comparisons, conditions, and smallest and largest of two values."""

from typing import Any

import torch
from torch import Tensor

from certus.graph import affine, composite
from certus.graph.aten_activation import clamp
from certus.graph.aten_arithmetic import plus, scaled, shifted, widened
from certus.graph.builders import Arguments, Unsupported, builds
from certus.graph.expression import Expression
from certus.graph.piecewise import Step
from certus.graph.structural import Expand

_FAR = 1e6  # limits beyond it are not subtracted from what they limit
_MIRRORED = {"lt": "gt", "le": "ge"}  # x < y is y > x


@builds(
    *(f"{name}.{kind}" for name in ("gt", "ge", "lt", "le") for kind in ("Scalar", "Tensor")),
    anywhere=True,
)
def _order(a: Arguments) -> int:
    name = a.target.split(".")[0]
    left, right = a["self"], a["other"]
    if name in _MIRRORED:
        left, right = right, left
    return _step(a, left, right, inclusive=_MIRRORED.get(name, name) == "ge")


def _step(a: Arguments, left: Any, right: Any, inclusive: bool) -> int:
    """1 where left > right (or left >= right), else 0."""
    a.aligned(left, right)
    data = a.is_data(left)
    first = a.at(left) if data else scaled(a, a.at(right), -1.0)
    gap = plus(a, first, right, -1.0) if data else plus(a, first, left)
    return a.add(Step(inclusive), gap)


@builds("eq.Scalar", "eq.Tensor", "ne.Scalar", "ne.Tensor", anywhere=True)
def _equal(a: Arguments) -> int:
    left, right = a["self"], a["other"]
    both = (_step(a, left, right, True), _step(a, right, left, True))
    same = composite.multiply(a.scope.builder, *both, a.source)
    return same if a.target.startswith("eq") else negated(a, same)


def negated(a: Arguments, x: int) -> int:
    """1 - x."""
    return shifted(a, scaled(a, x, -1.0), 1.0)


@builds("logical_not.default", "bitwise_not.default", anywhere=True)
def _not(a: Arguments) -> int:
    _boolean(a["self"])
    return negated(a, a.x())


@builds(
    *("logical_and.default", "logical_or.default", "bitwise_and.Tensor", "bitwise_or.Tensor"),
    *("__and__.Tensor", "__or__.Tensor"),
    anywhere=True,
)
def _and_or(a: Arguments) -> int:
    left, right = a["self"], a["other"]
    _boolean(left)
    _boolean(right)
    a.aligned(left, right)
    x, y = a.pair(a.at(left), a.at(right))
    if "and" in a.target:
        return composite.multiply(a.scope.builder, x, y, a.source)
    return composite.maximum(a.scope.builder, x, y, a.source)


def _boolean(value: Any) -> None:
    if value.meta["val"].dtype != torch.bool:
        raise Unsupported("logic on values that are not conditions")


@builds("maximum.default", "max.other", "fmax.default", anywhere=True)
def _maximum(a: Arguments) -> int:
    return extreme(a, a["self"], a["other"], largest=True)


@builds("minimum.default", "min.other", "fmin.default", anywhere=True)
def _minimum(a: Arguments) -> int:
    return extreme(a, a["self"], a["other"], largest=False)


def extreme(a: Arguments, left: Any, right: Any, largest: bool) -> int:
    """max or min of two operands; a constant comes first, so that its sum with the rest is exact."""
    a.aligned(left, right)
    if a.is_data(left):
        left, right = right, left
    if not a.is_data(left):
        return limited(a, widened(a, a.at(right)), left, largest)
    function = composite.maximum if largest else composite.minimum
    return function(a.scope.builder, *a.pair(a.at(left), a.at(right)), a.source)


def limited(a: Arguments, x: int, limit: Any, largest: bool) -> int:
    """max or min of a position and a constant; limits far away cost no digits of what they leave alone."""
    builder, number = a.scope.builder, _number(a, limit)
    if number is not None:
        x = clamp(a, x, *((number, None) if largest else (None, number)))
        return x if a.shape(x) == a.canonical() else a.add(Expand(a.canonical()), x)
    function = composite.maximum if largest else composite.minimum
    fixed = a.value(limit)
    live = not isinstance(fixed, Tensor) or isinstance(fixed, torch.nn.Parameter)
    if live or bool((fixed.abs() <= _FAR).all()):
        return function(builder, *a.pair(a.at(limit), x), a.source)
    a.broadcasts(fixed)
    value = fixed.to(builder.like).expand(1, *a.canonical())
    idle = torch.isinf(value) & ((value < 0) == largest)
    far = (value.abs() > _FAR) & ~idle
    near, rest = (
        composite.constant(builder, value.masked_fill(gone, 0.0)) for gone in (idle | far, ~far)
    )
    found = function(builder, near, x, a.source)
    found = composite.where(builder, far, function(builder, x, rest, a.source), found, a.source)
    return composite.where(builder, idle, x, found, a.source)


def _number(a: Arguments, value: Any) -> float | None:
    """A constant that is one finite number throughout and cannot change."""
    constant = a.value(value)
    if not isinstance(constant, Tensor) or isinstance(constant, torch.nn.Parameter):
        return None
    first = constant.flatten()[0]
    return float(first) if bool(torch.isfinite(first) & (constant == first).all()) else None


@builds("clamp.Tensor", "clip.Tensor", "clamp_min.Tensor", "clamp_max.Tensor", anywhere=True)
def _clamp(a: Arguments) -> int:
    x, builder = widened(a, a.x()), a.scope.builder
    for name, function in (("min", composite.maximum), ("max", composite.minimum)):
        limit = a[name]
        if limit is None:
            continue
        a.aligned(a["self"], limit)
        if a.is_data(limit):
            x = function(builder, *a.pair(a.at(limit), x), a.source)
        else:
            x = limited(a, x, limit, largest=name == "min")
    return x


@builds("where.self", "where.ScalarOther", "where.ScalarSelf", anywhere=True)
def _where(a: Arguments) -> int:
    return select(a, a["condition"], a["self"], a["other"])


@builds("masked_fill.Scalar", "masked_fill.Tensor", anywhere=True)
def _masked_fill(a: Arguments) -> int:
    return select(a, a["mask"], a["value"], a["self"])


def select(a: Arguments, condition: Any, left: Any, right: Any) -> int:
    """left where the condition holds, else right."""
    a.aligned(condition, left, right)
    if a.is_data(condition):
        x, y = (_finite(a, value) for value in (left, right))
        gap = a.add(affine.Sum(-1.0), *a.pair(x, y))
        kept = composite.multiply(a.scope.builder, a.at(condition), gap, a.source)
        return a.add(affine.Sum(), *a.pair(kept, y))
    mask = a.fixed(condition).bool()
    a.broadcasts(mask)
    return composite.where(a.scope.builder, mask, _choice(a, left), _choice(a, right), a.source)


def _choice(a: Arguments, value: Any) -> int | Tensor:
    """A position, or a constant that cannot change."""
    if a.is_data(value):
        return widened(a, a.at(value))
    constant = a.value(value)
    if isinstance(constant, Expression | torch.nn.Parameter):
        return a.at(value)
    a.broadcasts(constant)
    return constant


def _finite(a: Arguments, value: Any) -> int:
    if not a.is_data(value) and bool(torch.isinf(a.fixed(value)).any()):
        raise Unsupported("an infinite value where a condition on the input holds")
    return a.at(value)
