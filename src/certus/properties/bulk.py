"""Bulk recognition: atoms in their most usual spelling are found by array operations.

Large properties consist of millions of `(<= X_3 0.25)` and `(>= Y_1 Y_0)`. What is written exactly so is
read here; everything else, odd spacing and mistakes included, is left to the parser, which gives the same
result slowly. Atoms with nothing but space between them form a run, which the parser takes as one token.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from certus.properties.atoms import NONE, Atoms

Bytes = NDArray[np.uint8]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

_CHUNK = 1 << 18  # bytes a step: the temporary arrays stay in the cache
_DIGITS = 7  # longest index of a variable
_WIDEST = 32  # longest number
_LONGEST = 64  # longest atom
_ASSERT = b"(assert "
_NUMERIC = np.zeros(256, bool)
_NUMERIC[list(b"0123456789+-.eE")] = True
_NUMERIC_OR_END = _NUMERIC.copy()
_NUMERIC_OR_END[0] = True
_LOW_BYTES = np.array([(1 << 8 * k) - 1 for k in range(9)], np.uint64)


@dataclass(frozen=True)
class Run:
    """Atoms first..last-1 stand at text[start:stop], with only white space between.

    asserted: each of them is a whole command (assert ...).
    """

    start: int
    stop: int
    first: int
    last: int
    asserted: bool


@dataclass(eq=False)
class _Found:
    """Columns of the atom table, chunk by chunk."""

    sign: list[NDArray[np.int8]] = field(default_factory=list)
    first: list[NDArray[np.int32]] = field(default_factory=list)
    second: list[NDArray[np.int32]] = field(default_factory=list)
    constant: list[NDArray[np.float64]] = field(default_factory=list)


def nothing() -> tuple[Atoms, list[Run]]:
    """No atoms: the parser does everything."""
    return _table(_Found()), []


def recognise(text: bytes) -> tuple[Atoms, list[Run]]:
    """The atoms in the usual spelling, and where their runs stand, in order."""
    found, runs, low, count = _Found(), list[Run](), 0, 0
    while low < len(text):
        high = _cut(text, low)
        part = np.frombuffer(text, np.uint8, high - low, low)
        start, stop = _chunk(part, found)
        runs += _runs(part, start, stop, low, count)
        count += len(start)
        low = high
    return _table(found), runs


def _table(found: _Found) -> Atoms:
    sign = np.concatenate([np.zeros(0, np.int8), *found.sign])
    return Atoms(
        sign,
        np.zeros(len(sign), bool),
        np.concatenate([np.zeros(0, np.int32), *found.first]),
        np.concatenate([np.zeros(0, np.int32), *found.second]),
        np.concatenate([np.zeros(0), *found.constant]),
    )


def _cut(text: bytes, low: int) -> int:
    """The end of the chunk that begins at low: before a `(`, so that no atom is cut in two."""
    high = min(low + _CHUNK, len(text))
    if high == len(text):
        return high
    found = text.rfind(b"(", low + 1, high)
    whole = found - len(_ASSERT)
    if whole > low and text.startswith(_ASSERT, whole):
        return whole
    return high if found < 0 else found


def _chunk(part: Bytes, found: _Found) -> tuple[Index, Index]:
    """Add a chunk's atoms; returns where they begin and where they end (past the parenthesis)."""
    padded = np.concatenate([part, np.zeros(_LONGEST + _WIDEST, np.uint8)])
    start, stop = _innermost(part)
    head = padded[start + 1]
    good = (
        ((head == ord("<")) | (head == ord(">")))
        & (padded[start + 2] == ord("="))
        & (padded[start + 3] == ord(" "))
    )
    start, stop = start[good], stop[good]
    code, after = _variable(padded, start + 4)
    good = (code >= 0) & (padded[after] == ord(" "))
    start, stop, code, right = start[good], stop[good], code[good], after[good] + 1
    other, after = _variable(padded, right)
    pair = (other >= 0) & (after == stop) & (other != code)
    value = _numbers(padded, right, stop - right)
    good = pair | ~np.isnan(value)
    other = np.where(pair, other, NONE)
    value = np.where(pair, 0.0, value)
    sign = np.where(padded[start + 1] == ord("<"), 1, -1)
    found.sign.append(sign[good].astype(np.int8))
    found.first.append(code[good].astype(np.int32))
    found.second.append(other[good].astype(np.int32))
    found.constant.append(value[good])
    return start[good], stop[good] + 1


def _innermost(part: Bytes) -> tuple[Index, Index]:
    """Positions of `(` and its `)` wherever no other parenthesis stands between."""
    at = np.flatnonzero(part & 0xFE == ord("("))
    kind = part[at]
    inner = (kind[:-1] == ord("(")) & (kind[1:] == ord(")"))
    start, stop = at[:-1][inner], at[1:][inner]
    fits = stop - start <= _LONGEST
    return start[fits], stop[fits]


def _variable(padded: Bytes, at: Index) -> tuple[Index, Index]:
    """The code of the variable at every position (-1: none there), and the position after it."""
    letter = padded[at]
    good = ((letter == ord("X")) | (letter == ord("Y"))) & (padded[at + 1] == ord("_"))
    index, count, alive = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64), good.copy()
    for k in range(_DIGITS + 1):
        digit = padded[at + 2 + k] - np.uint8(ord("0"))  # wraps around for what is no digit
        alive &= digit < 10
        if not alive.any():
            break
        index = np.where(alive, 10 * index + digit, index)
        count += alive
    good &= (count >= 1) & (count <= _DIGITS)
    good &= (count == 1) | (padded[at + 2] != ord("0"))
    return np.where(good, 2 * index + (letter == ord("Y")), -1), at + 2 + count


def _numbers(padded: Bytes, at: Index, width: Index) -> NDArray[np.float64]:
    """The numbers written in `width` bytes at every position; NaN where there is none."""
    result = np.full(len(at), np.nan)
    plausible = (width >= 1) & (width <= _WIDEST) & _NUMERIC[padded[at]]
    short = np.flatnonzero(plausible & (width <= 8))
    if len(short):  # short numbers repeat: each distinct one is converted once
        window = np.lib.stride_tricks.sliding_window_view(padded, 8)[at[short]]
        key = window.view("<u8").ravel() & _LOW_BYTES[width[short]]
        distinct, inverse = np.unique(key, return_inverse=True)
        result[short] = _converted(distinct.astype("<u8").view(np.uint8).reshape(-1, 8))[inverse]
    long = np.flatnonzero(plausible & (width > 8))
    if len(long):
        widest = int(width[long].max())
        letters = np.lib.stride_tricks.sliding_window_view(padded, widest)[at[long]]
        letters[np.arange(widest) >= width[long, None]] = 0
        result[long] = _converted(letters)
    return result


def _converted(letters: Bytes) -> NDArray[np.float64]:
    """The numbers written in rows [m, W] that end in zero bytes; NaN where there is none."""
    clean = _NUMERIC_OR_END[letters].all(axis=1)
    words = letters.view(f"S{letters.shape[1]}").ravel()
    words[~clean] = b"nan"
    try:
        value = words.astype(np.float64)
    except ValueError:  # such as 1.2.3: leave them all to the parser, which names the line
        return np.full(len(words), np.nan)
    value[np.isinf(value)] = np.nan
    return value


def _runs(part: Bytes, start: Index, stop: Index, low: int, count: int) -> list[Run]:
    """Group a chunk's atoms that have only white space between them.

    low and count are where the chunk begins in the text, and how many atoms came before.
    """
    if not len(start):
        return []
    asserted = _asserted(part, start, stop)
    start = start - len(_ASSERT) * asserted
    stop = stop + asserted
    apart = start[1:] - stop[:-1] > 1
    apart |= part[start[1:] - 1] > ord(" ")  # a byte between them, or the `)` of the one before
    apart &= start[1:] != stop[:-1]
    for k in np.flatnonzero(start[1:] - stop[:-1] > 1).tolist():
        apart[k] = bool(part[stop[k] : start[k + 1]].tobytes().strip())
    split = np.flatnonzero(apart | (asserted[1:] != asserted[:-1])) + 1
    first = np.concatenate([[0], split])
    last = np.concatenate([split, [len(start)]])
    columns = (start[first] + low, stop[last - 1] + low, first + count, last + count)
    rows = zip(*(column.tolist() for column in (*columns, asserted[first])), strict=True)
    return [Run(*row) for row in rows]


def _asserted(part: Bytes, start: Index, stop: Index) -> Mask:
    """Which atoms are a whole command (assert ...) in the usual spelling."""
    padded = np.concatenate([part, np.zeros(1, np.uint8)])
    result = (start >= len(_ASSERT)) & (padded[stop] == ord(")"))
    for k, letter in enumerate(_ASSERT):
        result &= padded[start - len(_ASSERT) + k] == letter
    return result
