"""From a formula over atoms to cases: boxes from bounds of single inputs, conditions from the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from certus.core import UnsupportedError
from certus.properties.atoms import GENERAL, NONE, Atoms
from certus.properties.case import Case
from certus.properties.conditions import Conditions
from certus.properties.formula import Conjunction, Piece, expand
from certus.properties.parser import Parsed

Ints = NDArray[np.int64]
Shorts = NDArray[np.int32]  # a property may have millions of literals
Floats = NDArray[np.float64]

_MOST_ENTRIES = 50_000_000  # numbers in all boxes; also literals in all conjunctions


@dataclass(frozen=True, eq=False)
class _Literals:
    """Atoms, each maybe negated, with the conjunction in which they stand."""

    atom: Shorts
    negated: NDArray[np.bool_]
    conjunction: Shorts

    def pick(self, mask: NDArray[np.bool_]) -> "_Literals":
        return _Literals(self.atom[mask], self.negated[mask], self.conjunction[mask])


def assemble(parsed: Parsed, limit: int) -> tuple[Case, ...]:
    """The cases of a property, one for each distinct box that is not empty, in order of appearance.

    Raises UnsupportedError for an input without bounds and for an expansion above the limits.
    """
    atoms = parsed.atoms
    common, found = expand(parsed.formula, limit)
    base, own = _literals([tuple(common)]), _literals(found)
    lower, upper, box_of = _boxes(parsed, base, own, len(found))
    kept = box_of >= 0
    # number the boxes by first appearance, and the conjunctions in that order
    first, inverse = np.unique(box_of[kept], return_index=True, return_inverse=True)[1:]
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    case_of = np.full(len(found), -1, np.int64)
    case_of[kept] = rank[inverse.ravel()]
    order = np.flatnonzero(kept)[np.argsort(case_of[kept], kind="stable")]
    conditions = _Table(parsed, _conditions(atoms, base, own, order, len(found)), len(order))
    ends = np.searchsorted(case_of[order], np.arange(len(first) + 1))
    used = box_of[order[ends[:-1]]] if len(first) else np.zeros(0, np.int64)
    lowers, uppers = torch.from_numpy(lower), torch.from_numpy(upper)
    return tuple(
        Case(lowers[box], uppers[box], conditions.slice(int(ends[c]), int(ends[c + 1])))
        for c, box in enumerate(used.tolist())
    )


def _literals(conjunctions: Sequence[Conjunction]) -> _Literals:
    """All literals of conjunctions, in order."""
    pieces: list[Piece] = [piece for one in conjunctions for piece in one]
    lengths = np.array([len(one) for one in conjunctions], np.int64)
    owner = np.repeat(np.arange(len(conjunctions), dtype=np.int32), lengths)
    start = np.array([piece[0] for piece in pieces], np.int32)
    length = np.array([piece[1] for piece in pieces], np.int32) - start
    negated = np.array([piece[2] for piece in pieces], bool)
    total = int(length.sum(dtype=np.int64))
    _guard(total, "literals in its conjunctions")
    # start[0], start[0] + 1, ..., start[1], ...: one range after the other
    shift = start - (np.cumsum(length, dtype=np.int32) - length)
    atom = np.repeat(shift, length) + np.arange(total, dtype=np.int32)
    return _Literals(
        atom.astype(np.int32, copy=False), np.repeat(negated, length), np.repeat(owner, length)
    )


def _guard(count: int, what: str) -> None:
    if count > _MOST_ENTRIES:
        raise UnsupportedError(
            f"the property has {count:,} {what}, above the limit of {_MOST_ENTRIES:,}"
        )


def _bounds_input(atoms: Atoms, found: _Literals) -> NDArray[np.bool_]:
    """Which literals bound a single input."""
    result: NDArray[np.bool_] = (atoms.second[found.atom] == NONE) & (
        atoms.first[found.atom] % 2 == 0
    )
    return result


def _boxes(
    parsed: Parsed, base: _Literals, own: _Literals, count: int
) -> tuple[Floats, Floats, Ints]:
    """Distinct boxes (lower, upper [boxes, inputs]) and the box of every conjunction, -1 if empty."""
    atoms, n = parsed.atoms, parsed.inputs
    base = base.pick(_bounds_input(atoms, base))
    own = own.pick(_bounds_input(atoms, own))
    bounded = np.bincount(own.conjunction, minlength=count) > 0
    owners = np.flatnonzero(bounded)
    _guard((len(owners) + 1) * n, "numbers in its boxes")
    lower, upper = np.full((1, n), -np.inf), np.full((1, n), np.inf)
    _tighten(atoms, base, np.zeros(len(base.atom), int), lower, upper)
    lower, upper = (np.repeat(limit, len(owners) + 1, axis=0) for limit in (lower, upper))
    row_of = np.where(bounded, np.cumsum(bounded), 0)
    _tighten(atoms, own, row_of[own.conjunction], lower, upper)
    lower += 0.0  # -0.0 becomes 0.0
    upper += 0.0
    distinct = _distinct(lower, upper)
    distinct[(lower > upper).any(axis=1)] = -1
    box_of: Ints = distinct[row_of]
    _check_bounded(lower, upper, np.unique(box_of[box_of >= 0]))
    return lower, upper, box_of


def _tighten(atoms: Atoms, found: _Literals, row: Ints, lower: Floats, upper: Floats) -> None:
    """Intersect the boxes with bounds of single inputs; row says whose."""
    place = row * lower.shape[1] + atoms.first[found.atom] // 2
    above = (atoms.sign[found.atom] > 0) != found.negated
    value = atoms.constant[found.atom]
    np.minimum.at(upper.reshape(-1), place[above], value[above])
    np.maximum.at(lower.reshape(-1), place[~above], value[~above])


def _distinct(lower: Floats, upper: Floats) -> Ints:
    """For every row, the first row with the same limits."""
    seen: dict[tuple[bytes, bytes], int] = {}
    keys = ((low.tobytes(), high.tobytes()) for low, high in zip(lower, upper, strict=True))
    return np.array([seen.setdefault(key, i) for i, key in enumerate(keys)], np.int64)


def _check_bounded(lower: Floats, upper: Floats, used: Ints) -> None:
    for limit, side in ((lower, "lower"), (upper, "upper")):
        missing = np.isinf(limit[used]).any(axis=0)
        if missing.any():
            raise UnsupportedError(
                f"the input X_{int(missing.argmax())} has no {side} bound; every input needs both"
            )


def _conditions(
    atoms: Atoms, base: _Literals, own: _Literals, order: Ints, count: int
) -> _Literals:
    """The literals that remain beside the boxes; conjunctions numbered by their place in `order`.

    A strict bound of an input stays as well, since a box is closed.
    """
    base, own = (
        found.pick(~_bounds_input(atoms, found) | (atoms.strict[found.atom] != found.negated))
        for found in (base, own)
    )
    place = np.full(count, -1, np.int32)
    place[order] = np.arange(len(order))
    own = own.pick(place[own.conjunction] >= 0)
    _guard(len(base.atom) * len(order) + len(own.atom), "literals in its conjunctions")
    conjunction = np.concatenate(
        [np.repeat(np.arange(len(order), dtype=np.int32), len(base.atom)), place[own.conjunction]]
    )
    sort = np.argsort(conjunction, kind="stable")
    atom = np.concatenate([np.tile(base.atom, len(order)), own.atom])
    negated = np.concatenate([np.tile(base.negated, len(order)), own.negated])
    return _Literals(atom[sort], negated[sort], conjunction[sort])


class _Table:
    """Conditions of all conjunctions in one sparse layout, from which each case takes its slice."""

    def __init__(self, parsed: Parsed, found: _Literals, count: int) -> None:
        self._parsed = parsed
        atoms = parsed.atoms
        direction = np.where(found.negated, -1, 1) * atoms.sign[found.atom]
        codes, values, self._starts, bounds = _sparse(atoms, found.atom)
        factor = np.repeat(direction, np.diff(self._starts))
        outputs = codes % 2 == 1
        columns = np.where(outputs, codes // 2, parsed.outputs + codes // 2).astype(np.int64)
        # the same condition has one form, however it was written
        sort = np.lexsort((columns, np.repeat(np.arange(len(direction)), np.diff(self._starts))))
        self._columns = torch.from_numpy(columns[sort])
        self._values = torch.from_numpy((factor * values)[sort])
        self._bounds = torch.from_numpy(direction * bounds + 0.0)
        self._strict = torch.from_numpy(atoms.strict[found.atom] != found.negated)
        self._conjunctions = np.searchsorted(found.conjunction, np.arange(count + 1))

    def slice(self, first: int, last: int) -> Conditions:
        """The conjunctions first..last-1."""
        conjunctions = self._conjunctions[first : last + 1]
        a, b = int(conjunctions[0]), int(conjunctions[-1])
        starts = self._starts[a : b + 1]
        terms = slice(int(starts[0]), int(starts[-1]))
        return Conditions(
            self._parsed.inputs,
            self._parsed.outputs,
            self._columns[terms],
            self._values[terms],
            torch.from_numpy(starts - starts[0]),
            self._bounds[a:b],
            self._strict[a:b],
            torch.from_numpy(conjunctions - a),
        )


def _sparse(atoms: Atoms, atom: Shorts) -> tuple[Ints, Floats, Ints, Floats]:
    """(codes, values, starts, bounds) of atoms as rows sum <= bound, before any sign."""
    second = atoms.second[atom]
    general = np.flatnonzero(second == GENERAL)
    length = np.where(second >= 0, 2, 1)
    rows = [atoms.general[k] for k in atoms.first[atom[general]].tolist()]
    length[general] = [len(row.codes) for row in rows]
    starts = np.concatenate([[0], np.cumsum(length)])
    codes, values = np.zeros(int(starts[-1]), np.int64), np.ones(int(starts[-1]))
    bounds = atoms.constant[atom].astype(np.float64)
    simple, pair = second != GENERAL, second >= 0
    codes[starts[:-1][simple]] = atoms.first[atom][simple]
    codes[starts[:-1][pair] + 1] = second[pair]
    values[starts[:-1][pair] + 1] = -1.0
    for place, row in zip(general.tolist(), rows, strict=True):
        terms = slice(int(starts[place]), int(starts[place + 1]))
        codes[terms], values[terms], bounds[place] = row.codes, row.values, row.bound
    return codes, values, starts, bounds
