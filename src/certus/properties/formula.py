"""Formulas over atoms, and their expansion into a disjunction of conjunctions."""

from collections.abc import Iterator
from dataclasses import dataclass

from certus.core import UnsupportedError

Span = tuple[int, int]  # atoms first..last-1
Piece = tuple[int, int, bool]  # atoms first..last-1, each of them negated where True
Conjunction = tuple[Piece, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """All (conjunctive) or any of the parts; a span stands for each of its atoms; negated: the opposite."""

    conjunctive: bool
    parts: "list[Node | Span]"
    negated: bool = False


class _Frame:
    """One node under expansion: `common` holds in every conjunction of `found`."""

    def __init__(self, node: Node, negated: bool) -> None:
        self.negated = node.negated != negated
        self.conjunctive = node.conjunctive != self.negated
        self.parts: Iterator[Node | Span] = iter(node.parts)
        self.common: list[Piece] = []
        self.found: list[Conjunction] = [()] if self.conjunctive else []

    def conjunctions(self) -> list[Conjunction]:
        common = tuple(self.common)
        return [common + one for one in self.found] if common else self.found


def expand(root: Node, limit: int) -> tuple[list[Piece], list[Conjunction]]:
    """(common, found): the formula is `common` and one of `found`.

    The walk keeps its own stack, so nesting is no matter. Raises UnsupportedError as soon as the
    expansion would have more than `limit` conjunctions.
    """
    stack = [_Frame(root, False)]
    while True:
        frame = stack[-1]
        part = next(frame.parts, None)
        if part is None:
            stack.pop()
            if not stack:
                return (frame.common if frame.conjunctive else []), frame.found
            _combine(stack[-1], frame, limit)
        elif isinstance(part, Node):
            stack.append(_Frame(part, frame.negated))
        elif frame.conjunctive:
            frame.common.append((*part, frame.negated))
        else:
            frame.found.extend(((i, i + 1, frame.negated),) for i in range(*part))
            _check(len(frame.found), limit)


def _combine(outer: _Frame, inner: _Frame, limit: int) -> None:
    """Add a finished part to the node that it belongs to."""
    if outer.conjunctive and inner.conjunctive:
        outer.common.extend(inner.common)
        inner.common = []
    many = inner.conjunctions()
    if not outer.conjunctive:
        outer.found.extend(many)
        _check(len(outer.found), limit)
    elif len(many) == 1 and not many[0]:
        return
    else:
        _check(len(outer.found) * len(many), limit)
        outer.found = [a + b for a in outer.found for b in many]


def _check(count: int, limit: int) -> None:
    if count > limit:
        raise UnsupportedError(
            f"the property expands to {count:,} conjunctions or more, above the limit of {limit:,}; "
            "simplify it or pass a larger limit"
        )
