"""The rows and columns of a mixed-integer program, and how each non-linear operation fills them."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core import Rules
from certus.graph.activation import Clamp, LeakyRelu, MaxPool, Relu
from certus.graph.op import Affine, Input
from certus.threats import Box
from certus.verifiers.affine_form import AffineForm

# (milp, node position) -> None, adding the node's columns and rows
encodings = Rules("the MILP encoding")

_SMALL = 1e-7  # a scaled entry below this is taken out of its row


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaled:
    """minimise unit * <cost, t> + constant, low <= matrix t <= high; columns = middle + half * t."""

    cost: np.ndarray
    unit: float
    constant: float
    matrix: Any
    low: np.ndarray
    high: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    middle: np.ndarray
    half: np.ndarray


class Program:
    """Columns with bounds (inputs, outputs of non-linear nodes, binaries) and sparse rows."""

    def __init__(self, region: Box) -> None:
        self.lower: list[float] = region.lower.flatten().tolist()
        self.upper: list[float] = region.upper.flatten().tolist()
        self.binaries: list[int] = []
        self._columns = {0: np.arange(len(self.lower))}
        self._entries: list[tuple[np.ndarray, np.ndarray]] = []
        self._low: list[float] = []
        self._high: list[float] = []

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self.lower)

    def columns(self, node: int) -> np.ndarray:
        """The columns that hold the values of a node."""
        return self._columns[node]

    def add_node(self, node: int, lower: Tensor, upper: Tensor) -> np.ndarray:
        """New columns for a node's values within [lower, upper]."""
        start = self.size
        self.lower += lower.flatten().tolist()
        self.upper += upper.flatten().tolist()
        self._columns[node] = np.arange(start, self.size)
        return self._columns[node]

    def add_column(self, lower: float, upper: float) -> int:
        """A new column of a number that is no node's value."""
        self.lower.append(lower)
        self.upper.append(upper)
        return self.size - 1

    def add_binary(self) -> int:
        """A new 0/1 column."""
        self.lower.append(0.0)
        self.upper.append(1.0)
        self.binaries.append(self.size - 1)
        return self.size - 1

    def add_row(self, columns: np.ndarray, values: np.ndarray, low: float, high: float) -> None:
        """low <= <values, columns> <= high."""
        self._entries.append((columns, values))
        self._low.append(low)
        self._high.append(high)

    def integrality(self) -> np.ndarray:
        """1 for binaries, 0 for the rest."""
        flags = np.zeros(self.size)
        flags[self.binaries] = 1
        return flags

    def scaled(self, cost: np.ndarray) -> Scaled:
        """The program to minimise <cost, columns>, scaled so that the solver's tolerances mean something.

        Every continuous column becomes middle + half * t with t in [-1, 1], every row is divided by
        its largest entry. HiGHS ignores entries below 1e-9, so small ones are taken out here and
        their range is added to the row's limits, which only enlarges the feasible set.
        """
        from scipy.sparse import csr_array

        lower, upper = np.array(self.lower), np.array(self.upper)
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        middle[self.binaries], half[self.binaries] = 0.0, 1.0
        low, high, indices, values, sizes = [], [], [], [], []
        for (columns, entries), bottom, top in zip(
            self._entries, self._low, self._high, strict=True
        ):
            shift, moved = entries @ middle[columns], entries * half[columns]
            unit = max(float(np.abs(moved).max(initial=0.0)), 1e-300)
            moved = moved / unit
            small = np.abs(moved) < _SMALL
            spare = float(np.abs(moved[small]).sum())
            indices.append(columns[~small])
            values.append(moved[~small])
            sizes.append(int((~small).sum()))
            low.append((bottom - shift) / unit - spare)
            high.append((top - shift) / unit + spare)
        pointers = np.concatenate([[0], np.cumsum(sizes)])
        matrix = csr_array(
            (np.concatenate(values), np.concatenate(indices), pointers), (len(sizes), self.size)
        )
        goal = cost * half
        unit = max(float(np.abs(goal).max()), 1e-300)
        goal = goal / unit
        small = np.abs(goal) < _SMALL
        constant = float(cost @ middle) - unit * float(np.abs(goal[small]).sum())
        limit = np.ones(self.size)
        bottom_of = -limit
        bottom_of[self.binaries] = 0.0
        return Scaled(
            cost=np.where(small, 0.0, goal),
            unit=unit,
            constant=constant,
            matrix=matrix,
            low=np.array(low),
            high=np.array(high),
            lower=bottom_of,
            upper=limit,
            middle=middle,
            half=half,
        )


@dataclass(eq=False)
class _Row:
    """One number z = <values, columns> + offset -+ error, over the program's columns."""

    columns: np.ndarray
    values: np.ndarray
    offset: float
    error: float

    @classmethod
    def of(cls, program: Program, form: AffineForm, index: int) -> "_Row":
        """A pre-activation."""
        parts = [(program.columns(n), m[index].numpy()) for n, m in form.matrices.items()]
        columns = np.concatenate([c for c, _ in parts])
        values = np.concatenate([v for _, v in parts])
        keep = values != 0
        return cls(columns[keep], values[keep], float(form.offset[index]), float(form.error[index]))

    def relate(
        self, program: Program, factor: float, extra: dict[int, float], low: float, high: float
    ) -> None:
        """low <= factor * z + sum of the extra columns <= high, for some z within the error."""
        columns = np.concatenate([self.columns, np.array(list(extra), dtype=int)])
        values = np.concatenate([factor * self.values, np.array(list(extra.values()))])
        shift, spare = factor * self.offset, max(abs(factor), 1.0) * self.error
        program.add_row(columns, values, low - shift - spare, high - shift + spare)


@encodings.register(Input, Affine)
def nothing(milp: Any, position: int) -> None:
    """Inputs have their columns already; affine operations are substituted."""


@encodings.register(Relu)
def relu(milp: Any, position: int) -> None:
    """Big-M with the neuron's own bounds."""
    _hinge(milp, position, 0.0)


@encodings.register(LeakyRelu)
def leaky_relu(milp: Any, position: int) -> None:
    """As ReLU, with the lower slope in place of zero."""
    _hinge(milp, position, milp.graph.nodes[position].op.slope)


@encodings.register(Clamp)
def clamp(milp: Any, position: int) -> None:
    """max(z, low), then min(t, high): a hinge for each limit that is finite and in reach."""
    node, program = milp.graph.nodes[position], milp.program
    op, form, own = node.op, milp.inner_form(position), milp.error(position)
    spare = 0.0 if own is None else float(own.max())
    lower, upper = milp.state.intervals[node.inputs[0]]
    ends = zip(lower.flatten().tolist(), upper.flatten().tolist(), strict=True)
    columns = program.add_node(
        position, op.forward(lower) - spare, op.forward(upper) + spare
    ).tolist()
    for i, (column, (low, high)) in enumerate(zip(columns, ends, strict=True)):
        row = _Row.of(program, form, i)
        row.error += spare
        reach = low, high
        if low < op.low and high > op.high:
            reach = op.low - spare, high + spare
            middle = program.add_column(*reach)
            _limited(program, row, middle, (low, high), op.low, 1.0)
            row = _Row(np.array([middle]), np.ones(1), 0.0, spare)
        sign, limit = (-1.0, op.high) if high > op.high else (1.0, op.low)
        _limited(program, row, column, reach, limit, sign)


def _limited(
    program: Program,
    row: _Row,
    column: int,
    ends: tuple[float, float],
    limit: float,
    sign: float,
) -> None:
    """The column is max(z, limit), or min(z, limit) for sign -1, with z of a row within its ends."""
    if not isfinite(limit):
        row.relate(program, -1.0, {column: 1.0}, 0.0, 0.0)
        return
    least, most = sorted(sign * (end - limit) for end in ends)
    if least >= 0:
        row.relate(program, -1.0, {column: 1.0}, 0.0, 0.0)
        return
    spare, here = row.error, np.array([column])
    if most <= 0:
        program.add_row(here, np.ones(1), limit - spare, limit + spare)
        return
    delta = program.add_binary()
    row.relate(program, -sign, {column: sign}, 0.0, np.inf)
    row.relate(program, -sign, {column: sign, delta: -least}, -np.inf, -least)
    program.add_row(here, np.array([sign]), sign * limit - spare, np.inf)
    both = np.array([column, delta])
    program.add_row(both, np.array([sign, -most]), -np.inf, sign * limit + spare)


@encodings.register(MaxPool)
def max_pool(milp: Any, position: int) -> None:
    """A binary for each element of a window that can be its maximum; exactly one is chosen."""
    node = milp.graph.nodes[position]
    source = node.inputs[0]
    lower, upper = milp.state.intervals[source]
    form, program = milp.inner_form(position), milp.program
    columns = program.add_node(position, node.op.forward(lower), node.op.forward(upper))
    numbers = torch.arange(lower.numel(), dtype=torch.float64).view(lower.shape)
    windows = node.op.windows(numbers, -1.0).transpose(2, 3).reshape(len(columns), -1).long()
    low, high = lower.flatten(), upper.flatten()
    for column, window in zip(columns, windows, strict=True):
        members = window[window >= 0]
        top, floor = float(high[members].max()), float(low[members].max())
        choice = {}
        for i in members.tolist():
            row = _Row.of(program, form, i)
            row.relate(program, -1.0, {int(column): 1.0}, 0.0, np.inf)  # a >= x_i
            if float(high[i]) >= floor:
                delta, gap = program.add_binary(), top - float(low[i])
                row.relate(program, -1.0, {int(column): 1.0, delta: gap}, -np.inf, gap)
                choice[delta] = 1.0
        program.add_row(np.array(list(choice)), np.array(list(choice.values())), 1.0, 1.0)


def _hinge(milp: Any, position: int, leak: float) -> None:
    """a = max(z, leak z): four rows and a binary where the sign of z is open, one row elsewhere."""
    node = milp.graph.nodes[position]
    lower, upper = milp.state.intervals[node.inputs[0]]
    form, program = milp.inner_form(position), milp.program
    own = milp.error(position)
    spare = torch.zeros_like(lower) if own is None else own
    columns = program.add_node(
        position, node.op.forward(lower) - spare, node.op.forward(upper) + spare
    )
    for i, column in enumerate(columns.tolist()):
        low, high = float(lower.flatten()[i]), float(upper.flatten()[i])
        row = _Row.of(program, form, i)
        row.error += float(spare.flatten()[i])
        if low >= 0 or high <= 0:
            slope = 1.0 if low >= 0 else leak
            row.relate(program, -slope, {column: 1.0}, 0.0, 0.0)
            continue
        delta, rest = program.add_binary(), 1.0 - leak
        row.relate(program, -1.0, {column: 1.0}, 0.0, np.inf)
        row.relate(program, -leak, {column: 1.0}, 0.0, np.inf)
        row.relate(program, -1.0, {column: 1.0, delta: -rest * low}, -np.inf, -rest * low)
        row.relate(program, -leak, {column: 1.0, delta: -rest * high}, -np.inf, 0.0)
