"""Forward linear bounds: a linear function of the input below and above every neuron (Xu et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.bounding.base import check_memory
from certus.bounding.propagation import (
    Form,
    Known,
    Propagation,
    contracted,
    identity,
    linear,
    ranges,
    rows_of,
)
from certus.core import Bounds, Rules
from certus.graph import Node
from certus.graph.op import Affine, Elementwise, Shape
from certus.relax import Interval, Lines, relaxations
from certus.threats import Region
from certus.threats.box import inner


@dataclass(frozen=True, eq=False)
class Side:
    """slope x + offset: slope [n, b, *shape] with b = B or 1, None for zero; offset [B, *shape]."""

    slope: Tensor | None
    offset: Tensor

    def times(self, factor: Tensor | float) -> "Side":
        """Elementwise multiple."""
        slope = None if self.slope is None else factor * self.slope
        return Side(slope, factor * self.offset)

    def plus(self, other: "Side", sign: float = 1.0) -> "Side":
        """Sum or difference."""
        slope = self.slope
        if other.slope is not None:
            slope = sign * other.slope if slope is None else slope + sign * other.slope
        return Side(slope, self.offset + sign * other.offset)


@dataclass(frozen=True, eq=False)
class Between(Form):
    """below <= value <= above, both linear in the input; the same object where they are equal."""

    below: Side
    above: Side

    def bounds(self, region: Region, rows: Tensor) -> Bounds:
        """Positive coefficients take one side, negative ones the other; then the region's range."""
        plus, minus = rows.clamp(min=0), rows.clamp(max=0)
        low = _functional(region, [(plus, self.below), (minus, self.above)])[0]
        high = _functional(region, [(plus, self.above), (minus, self.below)])[1]
        return Bounds(low, high)

    def interval(self, region: Region, shape: Shape) -> Interval:
        """The range of both functions."""
        low = _range(region, self.below, shape)
        if self.above is self.below:
            return low
        return low[0], _range(region, self.above, shape)[1]


@dataclass(frozen=True, kw_only=True)
class Forward(Propagation):
    """Forward linear bounds, in one pass whatever the number of outputs.

    Elementwise operations use the lines of the table `slopes`; others (products, softmax, max pooling)
    their interval as constants. Cheap for small inputs: memory grows with their size. memory: bytes that
    inputs bounded together may take, None for half of what is free.
    """

    slopes: Rules = relaxations
    memory: int | None = None

    def __post_init__(self) -> None:
        """Validate."""
        check_memory(self.memory)

    def start(self, region: Region) -> Form:
        """x itself."""
        own = Side(identity(region), torch.zeros_like(region.center))
        return Between(own, own)

    def affine(self, op: Affine, forms: Sequence[Between], shapes: list[Shape]) -> Form:
        """W (below + above) / 2 -+ |W| (above - below) / 2, which is W+ below + W- above."""
        if all(form.below is form.above for form in forms):
            offset = op.forward(*[form.below.offset for form in forms])
            both = Side(linear(op, [form.below.slope for form in forms], shapes), offset)
            return Between(both, both)
        middles = [form.below.plus(form.above).times(0.5) for form in forms]
        gaps = [form.above.plus(form.below, -1.0).times(0.5) for form in forms]
        slope = linear(op, [middle.slope for middle in middles], shapes)
        center = Side(slope, op.forward(*[middle.offset for middle in middles]))
        reach = Side(
            _absolute(op, [gap.slope for gap in gaps], shapes),
            _signed(op, [gap.offset for gap in gaps]),
        )
        return Between(center.plus(reach, -1.0), center.plus(reach))

    def relaxed(self, node: Node, position: int, forms: Sequence[Between], known: Known) -> Form:
        """Each line on the side of its input that its slope's sign asks for."""
        lines = None
        if isinstance(node.op, Elementwise) and type(node.op) in self.slopes:
            lines = self.slopes[type(node.op)](node.op, *known.given)
        if not isinstance(lines, Lines):
            return Between(Side(None, known.own[0]), Side(None, known.own[1]))
        floor = lines.lower_offset
        floor = torch.zeros_like(lines.upper_offset) if floor is None else floor
        (form,) = forms
        below = _line(lines.lower_slope, floor, form.below, form.above)
        above = _line(lines.upper_slope, lines.upper_offset, form.above, form.below)
        return Between(below, above)


def _line(slope: Tensor, offset: Tensor, rising: Side, falling: Side) -> Side:
    """slope * input + offset with `rising` for slopes >= 0 and `falling` for the others."""
    if rising is falling:
        found = rising.times(slope)
    else:
        found = rising.times(slope.clamp(min=0))
        if bool((slope < 0).any()):
            found = found.plus(falling.times(slope.clamp(max=0)))
    return Side(found.slope, found.offset + offset)


def _signed(op: Affine, parts: Sequence[Tensor]) -> Tensor:
    """|W| g for g of any sign: `magnitude` promises radii >= 0 alone."""
    up = op.magnitude(*[part.clamp(min=0) for part in parts])
    return up - op.magnitude(*[(-part).clamp(min=0) for part in parts])


def _absolute(op: Affine, parts: Sequence[Tensor | None], shapes: list[Shape]) -> Tensor | None:
    """|W| g for generators [n, b, *in_i], None for zero."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    count, batch = given[0].shape[0], max(part.shape[1] for part in given)
    full = [
        given[0].new_zeros(count * batch, *shape)
        if part is None
        else part.expand(count, batch, *shape).reshape(-1, *shape)
        for part, shape in zip(parts, shapes, strict=True)
    ]
    value = _signed(op, full)
    return value.reshape(count, batch, *value.shape[1:])


def _functional(region: Region, parts: list[tuple[Tensor, Side]]) -> tuple[Tensor, Tensor]:
    """The range [R, B] of a sum of <rows, side>."""
    (first, second) = parts
    middle = inner(first[0], first[1].offset) + inner(second[0], second[1].offset)
    found = [contracted(rows, side.slope) for rows, side in parts if side.slope is not None]
    if not found:
        return middle, middle
    pulled = found[0] if len(found) == 1 else found[0] + found[1]
    low, high = ranges(region, pulled.reshape(*pulled.shape[:2], *region.center.shape[1:]))
    return middle + low, middle + high


def _range(region: Region, side: Side, shape: Shape) -> Interval:
    if side.slope is None:
        return side.offset, side.offset
    found = ranges(region, rows_of(side.slope, region.center.shape[1:]))
    low, high = (part.T.reshape(-1, *shape) for part in found)
    return low + side.offset, high + side.offset
