"""Conditions: a disjunction of conjunctions of linear inequalities over outputs and inputs."""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from certus.core import ArgumentError


@dataclass(frozen=True, eq=False)
class Conditions:
    """D conjunctions of A atoms in all; atom i says a_i . y + c_i . x <= bounds[i] (< where strict[i]).

    Rows are sparse: the entries starts[i]..starts[i+1]-1 of `columns` and `values` are atom i; columns
    0..outputs-1 are y, the next `inputs` are x. Conjunction d is the atoms conjunctions[d] to
    conjunctions[d+1]-1; one without atoms holds everywhere. All numbers are float64, each the nearest to
    the exact number that the property states.
    """

    inputs: int
    outputs: int
    columns: Tensor
    values: Tensor
    starts: Tensor
    bounds: Tensor
    strict: Tensor
    conjunctions: Tensor

    def __len__(self) -> int:
        """Number of conjunctions."""
        return len(self.conjunctions) - 1

    @property
    def mixed(self) -> bool:
        """Whether an atom speaks of inputs."""
        return bool((self.columns >= self.outputs).any())

    @property
    def atom_of_term(self) -> Tensor:
        """The atom of every sparse entry."""
        return _expanded(self.starts)

    @property
    def conjunction_of_atom(self) -> Tensor:
        """The conjunction of every atom."""
        return _expanded(self.conjunctions)

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """(A [atoms, outputs], C [atoms, inputs], b [atoms]) of A y + C x <= b."""
        rows = self.values.new_zeros(len(self.bounds), self.outputs + self.inputs)
        rows[self.atom_of_term, self.columns] = self.values
        return rows[:, : self.outputs], rows[:, self.outputs :], self.bounds

    def select(self, kept: Tensor) -> "Conditions":
        """Some of the conjunctions, by index or mask."""
        index = torch.arange(len(self))[kept]
        atoms, conjunctions = _gathered(self.conjunctions, index)
        terms, starts = _gathered(self.starts, atoms)
        columns, values = self.columns[terms], self.values[terms]
        bounds, strict = self.bounds[atoms], self.strict[atoms]
        return Conditions(
            self.inputs, self.outputs, columns, values, starts, bounds, strict, conjunctions
        )

    def holds(self, x: Tensor, y: Tensor, tolerance: float = 0.0) -> Tensor:
        """Bool [B, D]: which conjunctions hold at x [B, inputs] and y [B, outputs], both float64.

        Every inequality is loosened by the tolerance. Decisions that float64 sums leave open are made
        in rational arithmetic, so the answer is exact. False where x or y holds NaN or infinity.
        """
        z = torch.cat([y, x], dim=1)
        finite = torch.isfinite(z).all(dim=1, keepdim=True)
        z = torch.where(torch.isfinite(z), z, 0.0)
        terms = z[:, self.columns] * self.values
        atom = self.atom_of_term
        zeros = z.new_zeros(len(z), len(self.bounds))
        excess = zeros.index_add(1, atom, terms) - self.bounds - tolerance
        size = zeros.index_add(1, atom, terms.abs()) + self.bounds.abs() + abs(tolerance)
        unit = torch.ones_like(self.bounds).scatter_reduce(0, atom, self.values.abs(), "amax")
        parts = self.starts.diff() + (self.bounds != 0) + (tolerance != 0)
        # a difference of two float64 numbers has the right sign, so plain atoms are decided already
        doubt = torch.where((parts <= 2) & (unit == 1) & self._all_one(), 0.0, 4.0 + parts)
        radius = doubt * torch.finfo(torch.float64).eps * size
        good = torch.where(self.strict, excess < 0, excess <= 0)
        for b, a in ((excess.abs() <= radius) & (radius > 0)).nonzero().tolist():
            good[b, a] = self._exactly(z[b], a, tolerance)
        failing = z.new_zeros(len(z), len(self))
        failing.index_add_(1, self.conjunction_of_atom, (~good).double())
        return (failing == 0) & finite

    def _all_one(self) -> Tensor:
        """Bool [A]: every coefficient of the atom is 1 or -1."""
        other = torch.zeros_like(self.bounds)
        return other.index_add(0, self.atom_of_term, (self.values.abs() != 1).double()) == 0

    def _exactly(self, z: Tensor, atom: int, tolerance: float) -> bool:
        terms = slice(int(self.starts[atom]), int(self.starts[atom + 1]))
        pairs = zip(self.columns[terms].tolist(), self.values[terms].tolist(), strict=True)
        total = sum(
            (Fraction(float(z[column])) * Fraction(value) for column, value in pairs), _ZERO
        )
        excess = total - Fraction(float(self.bounds[atom])) - Fraction(tolerance)
        return excess < 0 if bool(self.strict[atom]) else excess <= 0


@dataclass(frozen=True, eq=False)
class Specification:
    """Conditions as rows for a BoundMethod: rows [1, R, K] in the dtype of the model.

    A conjunction cannot hold where the minimum of one of its atoms exceeds its threshold. Coefficients
    are float64 numbers; where one is no number of the model's dtype, its atom is written exactly as
    the sum of several rows, and the sum of their lower bounds is a lower bound of the atom. So nothing
    is rounded, and what the caller passes to `refuted` must only be true lower bounds of these rows:
    subtract the rounding error that the method states before.
    """

    rows: Tensor
    atom_of_row: Tensor
    thresholds: Tensor
    conjunction_of_atom: Tensor
    count: int

    def conjunctions(self, lower: Tensor) -> Tensor:
        """Bool [B, D]: which conjunctions lower bounds [B, R] of the rows refute. NaN refutes nothing."""
        if lower.shape[-1] != self.rows.shape[1] or lower.ndim not in (1, 2):
            raise ArgumentError(
                f"expected lower bounds [B, {self.rows.shape[1]}], got {tuple(lower.shape)}"
            )
        found = lower.detach().double().cpu()
        found = found.unsqueeze(0) if found.ndim == 1 else found
        zeros = found.new_zeros(len(found), len(self.thresholds))
        total = zeros.index_add(1, self.atom_of_row, found)
        size = zeros.index_add(1, self.atom_of_row, found.abs())
        parts = torch.bincount(self.atom_of_row, minlength=len(self.thresholds))
        slack = torch.where(parts > 1, (parts + 2) * torch.finfo(torch.float64).eps, 0.0) * size
        refuted = torch.isfinite(total) & (total - slack > self.thresholds)
        votes = found.new_zeros(len(found), self.count)
        return votes.index_add(1, self.conjunction_of_atom, refuted.double()) > 0

    def refuted(self, lower: Tensor) -> Tensor:
        """Bool [B]: whether lower bounds [B, R] of the rows refute every conjunction."""
        return self.conjunctions(lower).all(dim=1)


def specification(
    conditions: Conditions,
    box: tuple[Tensor, Tensor],
    dtype: torch.dtype,
    inputs: bool,
) -> Specification:
    """The rows of conditions for inputs in a box (lower, upper [inputs], float64).

    inputs: rows over [y; x], for a graph that was `augmented`. Otherwise rows over y alone: an atom's
    part in x is replaced by its minimum over the box, which is sound and looser. Raises ArgumentError
    for a coefficient outside the dtype's range.
    """
    over_y = conditions.columns < conditions.outputs
    kept = torch.ones_like(over_y) if inputs else over_y
    atom = conditions.atom_of_term
    thresholds = conditions.bounds
    if not inputs and not bool(over_y.all()):
        thresholds = thresholds + _relief(conditions, box, ~over_y)
    parts = _parts(conditions.values[kept], dtype)
    atoms, columns = atom[kept], conditions.columns[kept]
    needed = torch.ones(len(parts), len(thresholds), dtype=torch.bool)
    for k in range(1, len(parts)):
        needed[k] = torch.zeros(len(thresholds)).index_add(0, atoms, (parts[k] != 0).float()) > 0
    row_of = torch.full(needed.shape, -1)
    row_of[needed] = torch.arange(int(needed.sum()))
    width = conditions.outputs + (conditions.inputs if inputs else 0)
    rows = torch.zeros(int(needed.sum()), width, dtype=dtype)
    for k, part in enumerate(parts):
        there = part != 0
        rows[row_of[k][atoms[there]], columns[there]] = part[there].to(dtype)
    return Specification(
        rows.unsqueeze(0),
        needed.nonzero()[:, 1],
        thresholds,
        conditions.conjunction_of_atom,
        len(conditions),
    )


_ZERO = Fraction(0)
_MOST_PARTS = 12  # 8-bit mantissas need 7 for the 53 bits of float64


def _parts(values: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Numbers of the dtype (as float64) that add up to the values exactly; at least one tensor."""
    found: list[Tensor] = []
    rest = values
    while not found or bool((rest != 0).any()):
        part = rest.to(dtype).double()
        if len(found) == _MOST_PARTS or not bool(torch.isfinite(part).all()):
            raise ArgumentError(f"a coefficient of the property is outside the range of {dtype}")
        found.append(part)
        rest = rest - part
    return found


def _relief(conditions: Conditions, box: tuple[Tensor, Tensor], over_x: Tensor) -> Tensor:
    """At least -min c . x for every atom: what the part in x can take off its left side."""
    values, columns = conditions.values[over_x], conditions.columns[over_x] - conditions.outputs
    ends = torch.where(values > 0, box[0][columns], box[1][columns])
    atom = conditions.atom_of_term[over_x]
    zeros = torch.zeros_like(conditions.bounds)
    least = zeros.index_add(0, atom, values * ends)
    size = zeros.index_add(0, atom, (values * ends).abs()) + conditions.bounds.abs()
    terms = zeros.index_add(0, atom, torch.ones_like(values))
    tiny = torch.finfo(torch.float64).tiny
    error = (terms + 4) * (torch.finfo(torch.float64).eps * size + tiny)
    return torch.where(terms > 0, error - least, 0.0)


def _expanded(starts: Tensor) -> Tensor:
    """[0, 2, 3] -> [0, 0, 1]."""
    return torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())


def _gathered(starts: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of some groups of a sparse layout, and the layout of these groups."""
    lengths = starts.diff()[index]
    layout = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    shift = torch.repeat_interleave(starts[:-1][index] - layout[:-1], lengths)
    return torch.arange(int(layout[-1])) + shift, layout
