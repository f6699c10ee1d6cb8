"""The linear programming relaxation (Planet triangle, Ehlers 2017) on HiGHS, with safe dual bounds."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.bounding import Crown
from certus.bounding.base import BoundMethod
from certus.bounding.state import State
from certus.core import Bounds
from certus.core.validate import positive
from certus.graph import Graph
from certus.graph.activation import LeakyRelu, MaxPool, Relu
from certus.graph.op import Affine, Input
from certus.threats import Box, Region
from certus.verifiers.affine_form import affine_form

_Piece = tuple[
    dict[int, Tensor], Tensor
]  # matrices over nodes and offsets: matrices v + offset <= 0


@dataclass(frozen=True, kw_only=True)
class LP(BoundMethod):
    """The best bound that the convex hull of single neurons allows, one program per input and row.

    Columns are the input and the values of non-linear nodes; affine nodes are substituted. A non-linear
    node is held between the planes of its linear relaxation (CROWN's); ReLU and LeakyReLU get both
    lower lines and with that the triangle, max pooling every member of its windows. The solver is
    not trusted: from its multipliers, clipped to their sign, the Lagrangian is minimised over the region
    and the columns' intervals in float64, which bounds the program for any multipliers (weak duality), and
    its rounding is subtracted. So a bound holds whatever the solver does, and is never looser than
    CROWN's on the same intervals. Regions that are no boxes are solved on their bounding box and
    evaluated on themselves. seconds limits one program. Not differentiable.
    """

    crown: Crown = field(default_factory=Crown)
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Validate."""
        positive(self.seconds, "seconds")

    @property
    def memory(self) -> int | None:
        """That of CROWN."""
        return self.crown.memory

    def prepare(self, graph: Graph, region: Region) -> State:
        """CROWN's intervals and relaxations, and one program for each input."""
        with torch.no_grad():
            state = self.crown.prepare(graph, region)
            programs = [Relaxed(state, b) for b in range(len(region))]
        fields = state.graph, region, state.intervals, state.table
        return _Programs(*fields, programs=programs)

    @torch.no_grad()
    def bound(self, state: State, rows: Tensor) -> Bounds:
        """The better of CROWN's and the program's bounds, two programs for each row and input."""
        assert isinstance(state, _Programs)
        plain = self.crown.bound(state, rows)
        lower, upper = plain.lower.clone(), plain.upper.clone()
        every = rows.expand(-1, len(state.region), *rows.shape[2:])
        for b, program in enumerate(state.programs):
            for r in range(len(rows)):
                low = program.minimum(every[r, b], self.seconds)
                high = -program.minimum(-every[r, b], self.seconds)
                lower[r, b] = torch.maximum(lower[r, b], lower.new_tensor(low))
                upper[r, b] = torch.minimum(upper[r, b], upper.new_tensor(high))
        return Bounds(lower, upper)


class Relaxed:
    """The program of one input: matrix v + offset <= 0 over columns v within [lower, upper]."""

    def __init__(self, state: State, index: int) -> None:
        from scipy.sparse import csr_array

        self._graph = state.graph
        self._region = state.region.select(torch.tensor([index], device=state.region.center.device))
        self._first: dict[int, int] = {}
        lower, upper, size = [], [], 0
        for position, node in enumerate(state.graph.nodes):
            if position in state.intervals and not isinstance(node.op, Affine):
                self._first[position], size = size, size + node.numel
                low, high = state.intervals[position]
                lower.append(low[index].flatten())
                upper.append(high[index].flatten())
        self.lower, self.upper = (torch.cat(side).double().cpu().numpy() for side in (lower, upper))
        self.usable = bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())
        pieces = list(_constraints(state, index)) if self.usable else []
        self.matrix = csr_array(np.concatenate([np.zeros((0, size)), *map(self._dense, pieces)]))
        self.offset = np.concatenate([np.zeros(0), *(_array(offset) for _, offset in pieces)])

    def minimum(self, row: Tensor, seconds: float) -> float:
        """A proven lower bound of <row, output> for a row [*out]; -inf where there is none."""
        from scipy.optimize import linprog

        form = affine_form(self._graph, self._graph.output, row.unsqueeze(0))
        cost = self._dense((form.matrices, form.offset))[0]
        if not (self.usable and np.isfinite(cost).all()):
            return -np.inf
        if not len(self.offset):
            return self.lagrangian(cost, np.zeros(0)) + form.offset[0].item()
        found = linprog(
            cost,
            A_ub=self.matrix,
            b_ub=-self.offset,
            bounds=np.stack([self.lower, self.upper], 1),
            method="highs",
            options={"time_limit": seconds},
        )
        return self.lagrangian(cost, _multipliers(found, len(self.offset))) + form.offset[0].item()

    def lagrangian(self, cost: np.ndarray, multipliers: np.ndarray) -> float:
        """min over v of <cost, v> + <multipliers, matrix v + offset>, less its rounding."""
        moved = self.matrix.T @ multipliers
        reduced = cost + moved
        inputs = len(self._region.center.flatten())
        low, high = self.lower[inputs:], self.upper[inputs:]
        rest = reduced[inputs:]
        value = np.minimum(rest * low, rest * high).sum() + multipliers @ self.offset
        value += self._at_input(reduced[:inputs])
        reach = np.maximum(np.abs(self.lower), np.abs(self.upper))
        terms = (np.abs(cost) + abs(self.matrix).T @ multipliers) @ reach
        terms += multipliers @ np.abs(self.offset)
        return float(value - np.finfo(float).eps * (len(cost) + len(self.offset)) * terms)

    def _at_input(self, row: np.ndarray) -> float:
        """The least <row, x>: in float64 on a box, by the region itself elsewhere."""
        if isinstance(self._region, Box):
            ends = row * self.lower[: len(row)], row * self.upper[: len(row)]
            return float(np.minimum(*ends).sum())
        center = self._region.center
        rows = torch.from_numpy(row).to(center).view(1, *center.shape)
        return float(self._region.linear_range(rows)[0])

    def _dense(self, piece: _Piece) -> np.ndarray:
        matrices, offset = piece
        dense = np.zeros((len(offset), len(self.lower)))
        for position, matrix in matrices.items():
            first = self._first[position]
            dense[:, first : first + matrix.shape[1]] = _array(matrix)
        return dense


@dataclass(frozen=True, eq=False)
class _Programs(State):
    programs: list[Relaxed] = field(kw_only=True)

    def select(self, index: Tensor) -> "_Programs":
        """The programs of these inputs."""
        every = torch.arange(len(self.region), device=index.device)[index]
        programs = [self.programs[b] for b in every.tolist()]
        return replace(super().select(index), programs=programs)


def _multipliers(found: Any, count: int) -> np.ndarray:
    """The solver's multipliers with the sign that duality asks for; zeros where it has none."""
    marginals = getattr(getattr(found, "ineqlin", None), "marginals", None)
    if marginals is None or len(marginals) != count:
        return np.zeros(count)
    return np.nan_to_num(-np.asarray(marginals), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)


def _constraints(state: State, index: int) -> Iterator[_Piece]:
    """What holds a non-linear node's value a: planes - a <= 0 below and a - planes <= 0 above."""
    for position, relaxation in state.relaxations.items():
        node = state.graph.nodes[position]
        if isinstance(node.op, Affine | Input):
            continue
        like = state.region.center
        unit = torch.eye(node.numel, dtype=like.dtype, device=like.device)
        own = relaxation.select(slice(index, index + 1))
        for sign in (1.0, -1.0):
            rows = sign * unit
            pulled, offset = own.pull(rows.view(-1, 1, *node.shape))
            parts = dict[int, Tensor]()
            for source, part in zip(node.inputs, pulled, strict=True):
                parts[source] = part[:, 0] + parts[source] if source in parts else part[:, 0]
            yield _below(state.graph, position, rows, parts, offset[:, 0])
        yield from _corners(state.graph, position)


def _corners(graph: Graph, position: int) -> Iterator[_Piece]:
    """Lower planes beyond those of the relaxation: the other slope, the other members of a window."""
    node = graph.nodes[position]
    source = node.inputs[0] if node.inputs else 0
    unit = torch.eye(node.numel, dtype=graph.dtype, device=graph.device)
    zero = unit.new_zeros(node.numel)
    if isinstance(node.op, Relu | LeakyRelu):
        leak = node.op.slope if isinstance(node.op, LeakyRelu) else 0.0
        for slope in (1.0, leak):
            rows = slope * unit.view(-1, *node.shape)
            yield _below(graph, position, unit, {source: rows}, zero)
    if isinstance(node.op, MaxPool):
        shape = graph.nodes[source].shape
        size = graph.nodes[source].numel
        numbers = torch.arange(size, dtype=torch.float64).view(1, *shape)
        windows = node.op.windows(numbers, -1.0).transpose(2, 3).reshape(node.numel, -1).long()
        output, member = (windows >= 0).nonzero(as_tuple=True)
        rows = unit.new_zeros(len(output), size)
        rows[torch.arange(len(output)), windows[output, member]] = 1.0
        yield _below(graph, position, unit[output], {source: rows.view(-1, *shape)}, zero[output])


def _below(
    graph: Graph, position: int, rows: Tensor, parts: dict[int, Tensor], offset: Tensor
) -> _Piece:
    """sum <part, input> + offset - <rows, value> <= 0, over columns."""
    matrices: dict[int, Tensor] = {position: -rows}
    for source, part in parts.items():
        form = affine_form(graph, source, part)
        offset = offset + form.offset
        for node, matrix in form.matrices.items():
            matrices[node] = matrices[node] + matrix if node in matrices else matrix
    return matrices, offset


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().double().cpu().numpy())
