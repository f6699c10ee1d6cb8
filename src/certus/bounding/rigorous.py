"""The reverse walk with its rounding errors: lower bounds that hold exact and for every float evaluation.

What is bounded is any evaluation in which the value of every node lies within the rounding bound of
the exact operation on the values before it. The evaluation in real arithmetic is one of them, and so is
every float evaluation in the dtype of the bounds, whatever its summation order, device or batch.
A rounding at a node is weighed by the row that arrives there, so the widening is a backward error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certus.bounding.backward import Rows
from certus.bounding.charged import Charge, ChargedState, ChargedWalk
from certus.bounding.gamma import gamma, more, size, smallest, total, unit
from certus.bounding.outer_range import ranges
from certus.bounding.outward import floor
from certus.bounding.terms import terms
from certus.bounding.windows import Windows
from certus.core import UnsupportedError
from certus.graph.graph import Graph, Node
from certus.graph.op import Affine, Input
from certus.relax import Interval, Lines
from certus.relax.pooling import Windowed

_CARRIED = 8  # roundings that rows may bring along, each relative to its coefficient


@dataclass(frozen=True, eq=False)
class RigorousState(ChargedState):
    """A state whose intervals and relaxations are safe."""


def evaluation_error(graph: Graph, position: int, intervals: dict[int, Interval]) -> Tensor | None:
    """How far the float value of an affine node may lie from W x + b on its own float inputs."""
    node = graph.nodes[position]
    if not isinstance(node.op, Affine):
        return None
    shapes = graph.shapes(node)
    count = terms[type(node.op)](node.op, shapes, node.shape).forward
    if count == 0:
        return None
    sizes, weighed = _weighed(node, [intervals[i] for i in node.inputs], count)
    fixed = node.op.offset_terms(shapes, weighed)
    weighed = weighed if fixed is None else weighed + fixed
    dtype = weighed.dtype
    error = more(gamma(count + 4, dtype) * weighed)
    lost = 8 * count * smallest(dtype) * (1 + sizes)
    return error + lost.view(-1, *[1] * (error.ndim - 1))


def _weighed(node: Node, own: list[Interval], count: int) -> tuple[Tensor, Tensor]:
    """The sums of |x_i| [B], and |W| |x| [B, *shape], over the nodes' intervals."""
    assert isinstance(node.op, Affine)
    largest = [size(interval) + floor(interval[0].dtype) for interval in own]
    return torch.stack([total(s) for s in largest]).sum(0), more(node.op.magnitude(*largest), count)


@torch.no_grad()
def charge_of(state: RigorousState, position: int) -> Charge:
    """The charge of a node that is neither the input nor a stop, computed once for a state."""
    if position not in state.charges:
        node = state.graph.nodes[position]
        own = [state.intervals[i] for i in node.inputs]
        rule = _affine_charge if isinstance(node.op, Affine) else _relaxed_charge
        state.charges[position] = rule(state, position, own)
    return state.charges[position]


def _affine_charge(state: RigorousState, position: int, own: list[Interval]) -> Charge:
    """Roundings of W x + b in an evaluation, of row W, of <row, b>, and those that the row brings.

    (gamma_n + gamma_m) |W| |x| + (gamma_n + gamma_N) |b| with N values in the output.
    """
    node = state.graph.nodes[position]
    assert isinstance(node.op, Affine)
    shapes = state.graph.shapes(node)
    found = terms[type(node.op)](node.op, shapes, node.shape)
    sizes, weighed = _weighed(node, own, found.forward)
    dtype, each = weighed.dtype, found.forward + _CARRIED + 4
    charge = gamma(each + found.backward, dtype) * weighed
    fixed = node.op.offset_terms(shapes, weighed)
    if fixed is not None:
        charge = charge + gamma(each + node.numel, dtype) * fixed
    lost = 8 * smallest(dtype) * (1 + sizes)
    charge = more(charge) + lost.view(-1, *[1] * (charge.ndim - 1))
    # where a partial sum may overflow nothing is known
    charge = torch.where(weighed < torch.finfo(dtype).max / 8, charge, float("nan"))
    every = each + found.backward + node.numel
    return Charge(charge, every * lost + 8 * smallest(dtype) * total(weighed))


def _relaxed_charge(state: RigorousState, position: int, own: list[Interval]) -> Charge:
    """Roundings of the offsets' sum; where a relaxation adds coefficients up, of these as well."""
    node, relaxation = state.graph.nodes[position], state.relaxations[position]
    dtype, numel = own[0][0].dtype, node.numel + _CARRIED + 8
    rate = gamma(numel, dtype)
    fixed = 8 * numel * smallest(dtype) * (1 + total(size(own[0])))
    if isinstance(relaxation, Lines):
        if relaxation.lower_offset is None:  # all terms of the sum have one sign: see `_relax`
            return Charge(None, fixed)
        largest = torch.maximum(relaxation.lower_offset.abs(), relaxation.upper_offset.abs())
        return Charge(more(rate * largest), fixed)
    assert isinstance(relaxation, Windowed)
    near = relaxation.op.windows(size(own[0]), 0.0)
    taps = near.shape[2] + 8
    sides = [side.flatten(3).abs() for side in (relaxation.lower, relaxation.upper)]
    below, above = ((side * near).sum(2) for side in sides)
    spread = gamma(taps + _CARRIED + 8, dtype) * torch.maximum(below, above)
    charge = more(spread + rate * relaxation.offset.abs().flatten(2), taps)
    return Charge(charge.view(-1, *node.shape), taps * fixed)


@dataclass(eq=False)
class RigorousWalk(ChargedWalk):
    """A walk that adds up what its roundings and those of an evaluation may cost, and subtracts it.

    carried: how many roundings, each relative to its coefficient, the rows at a node have met since
    they were last charged. Gradients leave the charges out.
    """

    carried: dict[int, int] = field(default_factory=dict)
    arriving: int = 0
    leaving: int = 0

    def __post_init__(self) -> None:
        """Refuse what was prepared without regard to rounding."""
        if not isinstance(self.state, RigorousState):
            raise UnsupportedError("rigorous bounds need a state that a rigorous method prepared")

    def _step(self, position: int, node: Node, rows: Rows) -> None:
        before = self.total
        self.arriving = self.carried.pop(position, 0)
        if self.arriving > _CARRIED - 4:
            self._settle(position, rows, self.arriving)
            self.arriving = 0
        self.leaving = self._charged(position, node, rows)
        super()._step(position, node, rows)
        if self.total is not None and self.total is not before:
            self._add(4 * unit(self.total.dtype) * self.total.detach().abs())

    def _charged(self, position: int, node: Node, rows: Rows) -> int:
        """Charge the rows at a node; how many roundings its inputs' rows bring along then."""
        if isinstance(node.op, Affine):
            shapes = self.state.graph.shapes(node)
            if terms[type(node.op)](node.op, shapes, node.shape).moves:
                return self.arriving
        elif isinstance(node.op, Input) or position not in self.state.relaxations:
            return 0  # charged with the range
        self._pay(charge_of(self._own, position), rows)
        lines = isinstance(self.state.relaxations.get(position), Lines)
        return self.arriving + 2 if lines else 0

    def _send(self, positions: Sequence[int], parts: Sequence[Rows]) -> None:
        """Where rows meet others, what each has brought along is charged: the sum may cancel."""
        for position, part in zip(positions, parts, strict=False):
            held = self.pending.get(position)
            if held is not None:
                self._settle(position, held, self.carried.get(position, 0))
                self._settle(position, part, self.leaving)
            super()._send([position], [part])
            self.carried[position] = self.leaving if held is None else 1

    def _relax(self, position: int, rows: Rows) -> tuple[Sequence[Rows], Tensor]:
        """Without lower offsets <row, offset> is a sum of terms <= 0: its rounding is relative to it."""
        pulled, offset = super()._relax(position, rows)
        relaxation = self.state.relaxations[position]
        if isinstance(relaxation, Lines) and relaxation.lower_offset is None:
            count = self.state.graph.nodes[position].numel + _CARRIED + 8
            self._add(more(gamma(count, offset.dtype) * offset.detach().abs(), count))
        return pulled, offset

    def _stop(self, position: int, rows: Rows) -> Tensor:
        """The interval's end, less the rounding of the sum."""
        assert isinstance(rows, Tensor)
        with torch.no_grad():
            largest = size(self.state.intervals[position])
            count = largest[0].numel() + _CARRIED + 8
            lost = 8 * smallest(rows.dtype) * (1 + total(largest))
            charge = more(gamma(count, rows.dtype) * largest)
            charge = charge + lost.view(-1, *[1] * (charge.ndim - 1))
            self._pay(Charge(charge, count * lost), rows)
        return super()._stop(position, rows)

    def _concretise(self, node: Node, rows: Rows) -> Tensor:
        """The region's range, rounded outward."""
        region = self.state.region
        if isinstance(rows, Windows):
            clean = rows.cleaned(node.shape)
            part = region.picked(lambda t: clean.gather(t).flatten(1))
            coefs = clean.coefs.flatten(2)
            assert part is not None
        elif self.pick is None:
            part, coefs = region, rows
        else:
            part, coefs = region.picked(lambda t: t[self.pick]), rows
            part = part or region.select(self._inputs())
        found: Tensor
        found, error = ranges[type(part)](part, coefs, self.arriving + 4)
        self._add(error.detach())
        return found

    @property
    def _own(self) -> RigorousState:
        assert isinstance(self.state, RigorousState)
        return self.state

    @torch.no_grad()
    def _settle(self, position: int, rows: Rows, roundings: int) -> None:
        """Charge roundings that rows have brought to a node."""
        if roundings:
            largest = size(self.state.intervals[position])
            rate = gamma(roundings + 1, largest.dtype)
            lost = 8 * smallest(largest.dtype) * (1 + total(largest))
            self._pay(Charge(more(rate * largest), lost), rows, keep=False)
