"""How many numbers a node's result holds, from the shapes of its inputs, before anything is computed.

A file of a kilobyte can ask for the product of two vectors with 10^12 entries, or join a value with itself
forty times over. Operators that are told their result's shape look at it themselves (`table.affordable`).
"""

import math
from collections.abc import Callable, Sequence

from certus.graph.onnx.table import Call, broadcast

Shapes = Sequence[tuple[int, ...]]


def extent(call: Call) -> int:
    """The size of the result of an operator that can enlarge its inputs; 0 for any other.

    Raises what shapes raise that do not fit.
    """
    rule = _RULES.get(call.node.op)
    if rule is None:
        return 0
    return rule(call, [tuple(int(d) for d in v.shape) for v in call.values if v is not None])


def _elementwise(call: Call, shapes: Shapes) -> int:
    return math.prod(broadcast(*shapes))


def _joined(call: Call, shapes: Shapes) -> int:
    return sum(map(math.prod, shapes))


def _matmul(call: Call, shapes: Shapes) -> int:
    first, second = shapes
    return math.prod((*broadcast(first[:-2], second[:-2]), *first[-2:-1], *second[1:][-1:]))


def _gemm(call: Call, shapes: Shapes) -> int:
    rows = shapes[0][1 if call.attribute("transA", 0) else 0]
    return rows * shapes[1][0 if call.attribute("transB", 0) else 1]


def _gathered(call: Call, shapes: Shapes) -> int:
    data, places = shapes
    return math.prod(places) * math.prod(data) // max(1, data[int(call.attribute("axis", 0))])


def _points(call: Call, shapes: Shapes) -> int:
    data, places = shapes
    return math.prod(places[:-1]) * math.prod(
        data[places[-1] + int(call.attribute("batch_dims", 0)) :]
    )


def _convolved(call: Call, shapes: Shapes) -> int:
    steps = math.prod(call.ints(-1, "strides", [1]))
    return shapes[1][0] * math.prod(shapes[0][2:]) // max(1, steps)


def _one_hot(call: Call, shapes: Shapes) -> int:
    return math.prod(shapes[0]) * max(call.ints(1))


def _einsum(call: Call, shapes: Shapes) -> int:
    """Every letter of the result once; all letters where the result is not written out."""
    terms, _, result = str(call.attribute("equation", "")).replace(" ", "").partition("->")
    pairs = zip(terms.split(","), shapes, strict=True)
    sizes = {letter: d for term, shape in pairs for letter, d in zip(term, shape, strict=True)}
    return math.prod(sizes[letter] for letter in set(result or terms) & set(sizes))


_BROADCAST = (
    "Add Sub Mul Div Pow Mod Max Min Mean Sum And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual "
    "Where PRelu"
)
_RULES: dict[str, Callable[[Call, Shapes], int]] = {
    **dict.fromkeys(_BROADCAST.split(), _elementwise),
    "Concat": _joined,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gathered,
    "GatherND": _points,
    "Conv": _convolved,
    "OneHot": _one_hot,
    "Einsum": _einsum,
}
