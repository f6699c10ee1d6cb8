"""Parser of VNN-LIB 1.0: a stack machine over tokens, with a line for every mistake.

VNN-LIB is a subset of SMT-LIB 2 (Demarchi et al. 2023, "Supporting standardization of neural networks
verification with VNNLIB and CoCoNet"). Read are declare-const and declare-fun of X_i and Y_j, and assert
with and, or, not, =>, true, false over chains of <=, <, >=, >, = between linear terms of +, -, *, /.
"""

import re
from dataclasses import dataclass

import numpy as np

from certus.core import FileError
from certus.properties import closing
from certus.properties.atoms import AtomList, Atoms
from certus.properties.bulk import Run, nothing, recognise
from certus.properties.closing import COMMANDS, IGNORED, JUNCTIONS, KNOWN, Frame, Operand
from certus.properties.formula import Node, Span
from certus.properties.source import Source
from certus.properties.terms import TermError, spelling, variable

DEEPEST = 10_000  # levels of parentheses
_REREAD = 1 << 22  # bytes that are read again to find a line
MOST = 3_000_000  # symbols that are read one by one: beyond the usual spelling it takes seconds a million

# The usual declaration is one token: networks have thousands of them.
_TOKEN = re.compile(rb"\((?:declare-const ([XY]_[0-9]+) Real\))?|\)|[^\s()]+")


@dataclass(frozen=True, eq=False)
class Parsed:
    """What a text says: how many variables, which atoms, and how they are combined."""

    inputs: int
    outputs: int
    atoms: Atoms
    formula: Node


def parse(source: Source, *, bulk: bool = True) -> Parsed:
    """Read a property. Without `bulk` every token goes through the parser: slow, with the same result.

    Raises FileError with the line and what was expected there.
    """
    atoms, runs = recognise(source.text) if bulk else nothing()
    machine = _Machine(source, len(atoms))
    position = 0
    for run in runs:
        machine.feed(position, run.start)
        machine.take(run)
        position = run.stop
    machine.feed(position, len(source.text))
    inputs, outputs = machine.finish()
    if not all(_declared(codes, inputs, outputs) for codes in (atoms.first, atoms.second)):
        if len(source.text) > _REREAD:
            raise FileError(f"{source.name} compares variables that are not declared")
        return parse(source, bulk=False)  # names the line of the undeclared variable
    return Parsed(inputs, outputs, machine.atoms.after(atoms), Node(True, machine.assertions))


def _declared(codes: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]", n: int, k: int) -> bool:
    """Whether all variables are among n inputs and k outputs."""
    odd = codes[(codes & 1 == 1) & (codes >= 0)]
    even = codes[(codes & 1 == 0) & (codes >= 0)]
    return int(even.max(initial=-1)) < 2 * n and int(odd.max(initial=-1)) < 2 * k


class _Machine:
    """Reads tokens; open parentheses wait on a stack until they are closed."""

    def __init__(self, source: Source, atoms: int) -> None:
        self.atoms = AtomList(atoms)
        self.assertions: list[Node | Span] = []
        self._source = source
        self._stack: list[Frame] = []
        self._declared: dict[int, int] = {}  # code -> position
        self._used: dict[int, int] = {}
        self._left = MOST

    def feed(self, start: int, stop: int) -> None:
        """Read the tokens of text[start:stop]."""
        for found in _TOKEN.finditer(self._source.text, start, stop):
            token = found.group()
            self._left -= 1
            if self._left < 0:
                raise self._source.error(
                    found.start(),
                    f"more than {MOST:,} symbols outside of plain comparisons such as (<= X_0 1); "
                    "write more of it in that way",
                )
            if found.lastindex:
                self._declaration(found[1], found.start())
            elif token == b"(":
                self._open(found.start())
            elif token == b")":
                self._close(found.start())
            else:
                self._symbol(token, found.start())

    def _declaration(self, name: bytes, position: int) -> None:
        """(declare-const `name` Real) in one token."""
        self._open(position)
        self._symbol(b"declare-const", position)
        self._stack[-1].operands.extend((name, b"Real"))
        self._close(position)

    def take(self, run: Run) -> None:
        """A run of atoms that were recognised in bulk."""
        if run.asserted:
            self._asserted(run)
            return
        if not self._stack:
            raise self._source.error(
                run.start, "expected a command such as (assert ...), found (<="
            )
        if self._stack[-1].head is None:
            raise self._source.error(run.start, "expected a symbol after '(', found another '('")
        self._give(self._stack[-1], (run.first, run.last))

    def _asserted(self, run: Run) -> None:
        """Whole commands: whatever was open before them must be closed."""
        if not self._stack:
            self.assertions.append((run.first, run.last))
        elif self._stack[-1].head not in IGNORED:
            self._open(run.start)
            self._symbol(b"assert", run.start)  # raises

    def finish(self) -> tuple[int, int]:
        """(inputs, outputs), after checking that the text is whole."""
        if self._stack:
            frame = self._stack[-1]
            shown = (frame.head or b"").decode("ascii", "backslashreplace")
            raise self._source.error(frame.position, f"'({shown}' is never closed: expected ')'")
        counts = [0, 0]
        for code in self._declared:
            counts[code % 2] += 1
        for code, position in self._declared.items():
            if code // 2 >= counts[code % 2]:
                raise self._source.error(
                    position, f"{spelling(code)} is declared, but not every variable before it"
                )
        for code, position in self._used.items():
            if code not in self._declared:
                raise self._source.error(position, f"{spelling(code)} is not declared")
        for count, name in zip(counts, ("input X_0", "output Y_0"), strict=True):
            if not count:
                raise FileError(f"{self._source.name} declares no {name}")
        if not self.assertions:
            raise FileError(f"{self._source.name} has no assertion; expected (assert ...)")
        return counts[0], counts[1]

    def _open(self, position: int) -> None:
        if len(self._stack) >= DEEPEST:
            raise self._source.error(position, f"nested deeper than {DEEPEST:,} levels")
        if self._stack and self._stack[-1].head is None:
            raise self._source.error(position, "expected a symbol after '(', found another '('")
        self._stack.append(Frame(position))

    def _symbol(self, token: bytes, position: int) -> None:
        if not self._stack:
            raise self._source.error(position, f"expected '(', found {_shown(token)}")
        frame = self._stack[-1]
        if frame.head is not None:
            frame.operands.append(token)
            return
        frame.head = token
        outer = self._stack[-2] if len(self._stack) > 1 else None
        if outer is not None and outer.head in IGNORED:
            return
        if token not in KNOWN:
            raise self._source.error(
                position, f"unknown symbol {_shown(token)}; {closing.EXPECTED}"
            )
        if outer is None and token not in COMMANDS:
            raise self._source.error(
                position, f"expected a command such as (assert ...), found ({_shown(token)[1:-1]}"
            )
        if outer is not None and token in COMMANDS:
            line = self._source.text.count(b"\n", 0, outer.position) + 1
            raise self._source.error(
                position,
                f"the command {_shown(token)} stands inside another one: "
                f"expected ')' for the '(' of line {line} first",
            )

    def _close(self, position: int) -> None:
        if not self._stack:
            raise self._source.error(position, "unexpected ')': nothing is open")
        frame = self._stack.pop()
        if not self._stack:
            self._command(frame)
            return
        outer = self._stack[-1]
        if frame.head is None or outer.head in IGNORED:
            outer.operands.append(None)
            return
        try:
            self._give(outer, closing.value(frame, self.atoms, self._used))
        except TermError as error:
            raise self._source.error(frame.position, str(error)) from error

    def _give(self, outer: Frame, value: Operand) -> None:
        """Append an operand; atoms that follow each other become one span under and, or."""
        operands = outer.operands
        if isinstance(value, tuple) and outer.head not in JUNCTIONS:
            operands.extend((i, i + 1) for i in range(*value))
            return
        last = operands[-1] if operands else None
        if isinstance(value, tuple) and isinstance(last, tuple) and last[1] == value[0]:
            operands[-1] = (last[0], value[1])
            return
        operands.append(value)

    def _command(self, frame: Frame) -> None:
        try:
            if frame.head == b"assert":
                self.assertions.append(closing.only_formula(frame))
            elif frame.head in (b"declare-const", b"declare-fun"):
                self._declare(frame)
            elif frame.head is None:
                raise TermError("expected a command such as (assert ...), found ()")
        except TermError as error:
            raise self._source.error(frame.position, str(error)) from error

    def _declare(self, frame: Frame) -> None:
        rest = frame.operands
        name = rest[0] if rest and isinstance(rest[0], bytes) else b""
        code = variable(name)
        if code is None:
            raise TermError(f"expected the name X_i or Y_j of a variable, found {_shown(name)}")
        form = [b"Real"] if frame.head == b"declare-const" else [None, b"Real"]
        if rest[1:] != form:
            raise TermError(f"expected the sort Real for {spelling(code)} and then ')'")
        if code in self._declared:
            raise TermError(f"{spelling(code)} is declared twice")
        self._declared[code] = frame.position


def _shown(token: bytes) -> str:
    return repr(token[:24].decode("ascii", "backslashreplace"))
