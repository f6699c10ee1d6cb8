"""Texts of properties for the tests, and a reading of them that shares nothing with the library."""

import operator
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

BINARY = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "=": operator.eq,
}


def declared(n: int = 1, k: int = 1) -> str:
    names = [f"X_{i}" for i in range(n)] + [f"Y_{j}" for j in range(k)]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def unit_box(n: int = 1) -> str:
    return "".join(f"(assert (>= X_{i} -1.0))\n(assert (<= X_{i} 1.0))\n" for i in range(n))


def text(body: str, n: int = 1, k: int = 1, box: bool = True) -> str:
    return declared(n, k) + (unit_box(n) if box else "") + body + "\n"


def trees(source: str) -> list:
    """S-expressions as nested lists of strings."""
    tokens = re.sub(r";[^\n]*", "", source).replace("(", " ( ").replace(")", " ) ").split()
    stack: list[list] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    assert len(stack) == 1
    return stack[0]


def evaluate(tree, point: dict[str, Fraction]):
    """The value of a tree at a point, in rational arithmetic on the nearest float64 numbers."""
    if isinstance(tree, str):
        if tree in ("true", "false"):
            return tree == "true"
        return point[tree] if tree in point else Fraction(float(tree))
    head, *rest = tree
    values = [evaluate(part, point) for part in rest]
    if head in BINARY:
        return all(BINARY[head](a, b) for a, b in pairwise(values))
    if head == "=>":
        return not all(values[:-1]) or values[-1]
    return FUNCTIONS[head](values)


def minus(values):
    return -values[0] if len(values) == 1 else values[0] - sum(values[1:])


def product(values):
    result = Fraction(1)
    for value in values:
        result *= value
    return result


def quotient(values):
    result = values[0]
    for value in values[1:]:
        result /= value
    return result


FUNCTIONS = {
    "and": all,
    "or": any,
    "not": lambda values: not values[0],
    "+": sum,
    "-": minus,
    "*": product,
    "/": quotient,
}


def satisfied(source: str, x: list[float], y: list[float]) -> bool:
    """Whether all assertions of a text hold at a point."""
    point = {f"X_{i}": Fraction(v) for i, v in enumerate(x)}
    point |= {f"Y_{j}": Fraction(v) for j, v in enumerate(y)}
    return all(evaluate(tree[1], point) for tree in trees(source) if tree[0] == "assert")
