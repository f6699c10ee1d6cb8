"""Zonotopes (DeepZ, Singh et al. 2018): one affine function of the input, plus error terms."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.bounding.base import check_memory
from certus.bounding.fixed_slopes import FAST_LIN
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
from certus.core import Bounds
from certus.core.validate import count
from certus.graph import Node
from certus.graph.activation import SShaped
from certus.graph.op import Affine, Elementwise, Shape
from certus.relax import Interval, Lines
from certus.threats import Region
from certus.threats.box import inner


@dataclass(frozen=True, eq=False)
class Zonotope(Form):
    """value = offset + A x + sum_j e_j E_j + r, x in the region, |e_j| <= 1, |r| <= radius.

    inputs is A as [n, b, *shape] with b = B or 1, None for zero. errors holds blocks E [m, B, *shape] by
    the position of the operation that made them, so that nodes share their e_j. Nothing is lost on the
    input's side for any norm: A x is bounded by the region's own linear range.
    """

    offset: Tensor
    inputs: Tensor | None
    errors: dict[int, Tensor]
    radius: Tensor | None

    def bounds(self, region: Region, rows: Tensor) -> Bounds:
        """The range of the linear part, and the absolute values of everything else."""
        middle, spread = inner(rows, self.offset), self._spread(rows)
        if self.inputs is None:
            return Bounds(middle - spread, middle + spread)
        pulled = contracted(rows, self.inputs)
        pulled = pulled.reshape(*pulled.shape[:2], *region.center.shape[1:])
        low, high = ranges(region, pulled)
        return Bounds(middle + low - spread, middle + high + spread)

    def _spread(self, rows: Tensor) -> Tensor:
        total = rows.new_zeros(rows.shape[0], self.offset.shape[0])
        for block in self.errors.values():
            total = total + contracted(rows, block).abs().sum(2)
        return total if self.radius is None else total + inner(rows.abs(), self.radius)

    def interval(self, region: Region, shape: Shape) -> Interval:
        """The same for every element."""
        spread = torch.zeros_like(self.offset) if self.radius is None else self.radius
        for block in self.errors.values():
            spread = spread + block.abs().sum(0)
        lower, upper = self.offset - spread, self.offset + spread
        if self.inputs is not None:
            rows = rows_of(self.inputs, region.center.shape[1:])
            low, high = (side.T.reshape(-1, *shape) for side in ranges(region, rows))
            lower, upper = lower + low, upper + high
        return lower, upper

    def scaled(self, slope: Tensor, offset: Tensor) -> "Zonotope":
        """slope * value + offset, elementwise [B, *shape]."""
        return Zonotope(
            slope * self.offset + offset,
            None if self.inputs is None else slope * self.inputs,
            {number: slope * block for number, block in self.errors.items()},
            None if self.radius is None else slope.abs() * self.radius,
        )


@dataclass(frozen=True, kw_only=True)
class DeepZ(Propagation):
    """Zonotope propagation with the transformers of DeepZ.

    An elementwise operation becomes a line of one slope and an error term for each neuron that needs
    one: the slope is the one of least width among those of its linear relaxation (the chord for ReLU),
    and among the ends of its slope range, where f minus the line is monotone and known exactly (for
    sigmoid and tanh, min(f'(l), f'(u))). Other operations (products, softmax, max pooling) fall back to
    their interval with fresh error terms. terms: how many error terms an input may have; beyond, the
    smallest blocks and errors are merged into one independent error for each neuron, which is sound
    and loses only their correlation (which blocks are smallest is decided for a whole batch). memory:
    bytes that inputs bounded together may take, None for half of what is free.
    """

    terms: int = 1024
    memory: int | None = None

    def __post_init__(self) -> None:
        """Validate."""
        check_memory(self.memory)
        count(self.terms, "terms", least=0)

    def start(self, region: Region) -> Form:
        """x itself."""
        return Zonotope(torch.zeros_like(region.center), identity(region), {}, None)

    def affine(self, op: Affine, forms: Sequence[Zonotope], shapes: list[Shape]) -> Form:
        """Every generator through the linear part; the merged errors through absolute weights."""
        offset = op.forward(*[form.offset for form in forms])
        numbers = sorted({number for form in forms for number in form.errors})
        errors = {}
        for number in numbers:
            block = linear(op, [form.errors.get(number) for form in forms], shapes)
            assert block is not None, "some input has this block"
            errors[number] = block
        radius = None
        if any(form.radius is not None for form in forms):
            zeros = [torch.zeros_like(form.offset) for form in forms]
            given = [z if f.radius is None else f.radius for z, f in zip(zeros, forms, strict=True)]
            radius = op.magnitude(*given)
        return Zonotope(offset, linear(op, [f.inputs for f in forms], shapes), errors, radius)

    def relaxed(self, node: Node, position: int, forms: Sequence[Zonotope], known: Known) -> Form:
        """A parallel pair of lines for elementwise operations, the interval for others."""
        op = node.op
        if isinstance(op, Elementwise) and type(op) in FAST_LIN:
            lines = FAST_LIN[type(op)](op, *known.given)
            if isinstance(lines, Lines):
                slope, middle, half = parallel(op, lines, known.given[0])
                return self._widened(forms[0].scaled(slope, middle), half, position)
        lower, upper = known.own
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        return self._widened(Zonotope(middle, None, {}, None), half, position)

    def _widened(self, form: Zonotope, half: Tensor, position: int) -> Zonotope:
        """The form plus a fresh error of size half [B, *shape] for every neuron."""
        errors, radius = dict(form.errors), form.radius
        flat = half.reshape(len(half), -1)  # a node may hold one number an input
        fresh = min(int((flat > 0).sum(1).max()), self.terms)
        while errors and sum(map(len, errors.values())) + fresh > self.terms:
            smallest = min(errors, key=lambda n: float(errors[n].detach().abs().sum()))
            merged = errors.pop(smallest).abs().sum(0)
            radius = merged if radius is None else radius + merged
        chosen = flat.argsort(dim=1, descending=True, stable=True)[:, :fresh]
        if fresh:
            block = flat.new_zeros(fresh, *flat.shape)
            block = block.scatter(2, chosen.T.unsqueeze(2), flat.gather(1, chosen).T.unsqueeze(2))
            errors[position] = block.view(fresh, *half.shape)
        rest = flat.scatter(1, chosen, 0.0).view(half.shape)  # NaN stays somewhere
        if bool((rest != 0).any()):
            radius = rest if radius is None else radius + rest
        return Zonotope(form.offset, form.inputs, errors, radius)


def parallel(op: Elementwise, lines: Lines, interval: Interval) -> tuple[Tensor, Tensor, Tensor]:
    """slope, middle, half with |f(x) - slope x - middle| <= half on the interval, each [B, *shape].

    From lines of different slopes: any slope serves, the gaps of two lines to a third are largest at
    an end.
    """
    lower, upper = interval
    floor = torch.zeros_like(lower) if lines.lower_offset is None else lines.lower_offset

    def gap(slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = lines.lower_slope - slope, lines.upper_slope - slope
        bottom = floor + torch.minimum(low * lower, low * upper)
        top = lines.upper_offset + torch.maximum(high * lower, high * upper)
        return slope, bottom, top

    found = [gap(lines.upper_slope), gap(lines.lower_slope)]
    found.append(gap((lines.upper_slope + lines.lower_slope) / 2))
    at_lower, at_upper = op.forward(lower), op.forward(upper)
    least, most = op.slopes(lower, upper)
    if isinstance(op, SShaped):
        least = torch.minimum(op.derivative(lower), op.derivative(upper))
    for end, rising in ((least, True), (most, False)):
        usable = torch.isfinite(end)
        slope = torch.where(usable, end, 0.0)
        ends = at_lower - slope * lower, at_upper - slope * upper
        bottom, top = ends if rising else ends[::-1]
        found.append((slope, bottom, torch.where(usable, top, float("inf"))))
    slope, bottom, top = found[0]
    for other in found[1:]:
        # by more than rounding, so that ties fall the same way in every batch
        better = (other[2] - other[1] < 0.999 * (top - bottom)) & (other[2] >= other[1])
        slope = torch.where(better, other[0], slope)
        bottom, top = torch.where(better, other[1], bottom), torch.where(better, other[2], top)
    return slope, (top + bottom) / 2, ((top - bottom) / 2).clamp(min=0)
