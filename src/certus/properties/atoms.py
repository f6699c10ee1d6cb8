"""The table of atoms: every relation of a property, in arrays, addressed by number."""

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# A variable's code: X_i is 2 i, Y_j is 2 j + 1. What stands in place of a second variable:
NONE = -1  # the atom compares `first` with `constant`
GENERAL = -2  # the atom is a general linear one; `first` is its number among these


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms as arrays of one length.

    Atom i says: first <= constant, or first - second <= 0, or row `first` of `general`; with >= where
    sign[i] is -1; without equality where strict[i].
    """

    sign: NDArray[np.int8]
    strict: NDArray[np.bool_]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    constant: NDArray[np.float64]
    general: "list[Row]" = field(default_factory=list)

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self.sign)


@dataclass(frozen=True)
class Row:
    """sum_k values[k] * variable codes[k] <= bound (or <, as the atom says)."""

    codes: tuple[int, ...]
    values: tuple[float, ...]
    bound: float


class AtomList:
    """Atoms that are found one by one, numbered from `start`."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._sign, self._strict = array("b"), array("b")
        self._first, self._second = array("i"), array("i")
        self._constant = array("d")
        self._general: list[Row] = []

    def simple(self, sign: int, strict: bool, first: int, second: int, constant: float) -> int:
        """Add an atom of one variable, or of two with coefficients 1 and -1; returns its number."""
        self._sign.append(sign)
        self._strict.append(strict)
        self._first.append(first)
        self._second.append(second)
        self._constant.append(constant)
        return self._start + len(self._sign) - 1

    def general(self, strict: bool, row: Row) -> int:
        """Add any other linear atom; returns its number."""
        self._general.append(row)
        return self.simple(1, strict, len(self._general) - 1, GENERAL, 0.0)

    def after(self, bulk: Atoms) -> Atoms:
        """One table: those found in bulk, then these."""
        if not self._sign:
            return bulk
        return Atoms(
            np.concatenate([bulk.sign, np.frombuffer(self._sign, np.int8)]),
            np.concatenate([bulk.strict, np.frombuffer(self._strict, np.int8).astype(bool)]),
            np.concatenate([bulk.first, np.frombuffer(self._first, np.int32)]),
            np.concatenate([bulk.second, np.frombuffer(self._second, np.int32)]),
            np.concatenate([bulk.constant, np.frombuffer(self._constant, np.float64)]),
            self._general,
        )
