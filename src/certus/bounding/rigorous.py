"""The reverse walk with its rounding errors: lower bounds that hold exact and for every float evaluation.

What is bounded is any evaluation in which the value of every node lies within the rounding bound of
the exact operation on the values before it. The evaluation in real arithmetic is one of them, and so is
every float evaluation in the dtype of the bounds, whatever its summation order, device or batch.
A rounding at a node is weighed by the row that arrives there, so the widening is a backward error.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.bounding.charged import Charge, ChargedState, Charging
from certus.bounding.gamma import gamma, more, size, smallest, total, unit
from certus.bounding.outer_range import ranges
from certus.bounding.outward import floor
from certus.bounding.rows import Rows
from certus.bounding.terms import terms
from certus.graph.graph import Graph, Node
from certus.graph.op import Affine, Input
from certus.relax import Interval, Lines
from certus.relax.pooling import Windowed
from certus.threats import Region

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


class RigorousMeter(Charging):
    """Adds up what the roundings of a walk and those of an evaluation may cost."""

    def __init__(self, state: RigorousState) -> None:
        super().__init__()
        self._state = state
        # roundings, each relative to its coefficient, that rows at a node have met since they were
        # last charged; of the rows at the node that is passed; of those that it sends on
        self._carried: dict[int, int] = {}
        self._arriving = self._leaving = 0

    def enter(self, position: int, node: Node, rows: Rows) -> None:
        """Charge the rows at a node; the input is charged with the range."""
        self._arriving, self._leaving = self._carried.pop(position, 0), 0
        if self._arriving > _CARRIED - 4:
            self._settle(position, rows, self._arriving)
            self._arriving = 0
        if isinstance(node.op, Affine):
            shapes = self._state.graph.shapes(node)
            if terms[type(node.op)](node.op, shapes, node.shape).moves:
                self._leaving = self._arriving
                return
        elif isinstance(node.op, Input):
            return
        elif position not in self._state.relaxations:
            self._stop(position, rows)
            return
        self.pay(charge_of(self._state, position), rows)
        if isinstance(self._state.relaxations.get(position), Lines):
            self._leaving = self._arriving + 2

    def meet(self, position: int, held: Rows | None, rows: Rows) -> None:
        """Where rows meet others, what each has brought along is charged: the sum may cancel."""
        if held is None:
            self._carried[position] = self._leaving
            return
        self._settle(position, held, self._carried.get(position, 0))
        self._settle(position, rows, self._leaving)
        self._carried[position] = 1

    def relaxed(self, position: int, offset: Tensor) -> None:
        """Without lower offsets <row, offset> is a sum of terms <= 0: its rounding is relative to it."""
        relaxation = self._state.relaxations[position]
        if isinstance(relaxation, Lines) and relaxation.lower_offset is None:
            count = self._state.graph.nodes[position].numel + _CARRIED + 8
            self.add(more(gamma(count, offset.dtype) * offset.detach().abs(), count))

    def added(self, total: Tensor) -> None:
        """The rounding of the sum."""
        self.add(4 * unit(total.dtype) * total.detach().abs())

    def range(self, rows: Rows, region: Region, shape: tuple[int, ...]) -> Tensor:
        """The region's range, rounded outward."""
        part, coefs = rows.within(region, shape)
        found, error = ranges[type(part)](part, coefs, self._arriving + 4)
        self.add(rows.totals(error.detach().expand_as(found)))
        return rows.totals(found)

    @torch.no_grad()
    def _stop(self, position: int, rows: Rows) -> None:
        """The rounding of the sum of an interval's ends."""
        largest = size(self._state.intervals[position])
        count = largest[0].numel() + _CARRIED + 8
        lost = 8 * smallest(largest.dtype) * (1 + total(largest))
        charge = more(gamma(count, largest.dtype) * largest)
        charge = charge + lost.view(-1, *[1] * (charge.ndim - 1))
        self.pay(Charge(charge, count * lost), rows)

    @torch.no_grad()
    def _settle(self, position: int, rows: Rows, roundings: int) -> None:
        """Charge roundings that rows have brought to a node."""
        if roundings:
            largest = size(self._state.intervals[position])
            rate = gamma(roundings + 1, largest.dtype)
            lost = 8 * smallest(largest.dtype) * (1 + total(largest))
            self.pay(Charge(more(rate * largest), lost), rows, keep=False)
