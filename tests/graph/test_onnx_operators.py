"""Every ONNX operator that is imported: equal to onnxruntime, and inside interval bounds."""

import numpy as np
import pytest
import torch
from tests.graph.onnx_models import model, node

import certus
from certus.relax import intervals

pytest.importorskip("onnxruntime")
R = np.random.default_rng(0)


def f(*shape):
    return R.normal(size=shape).astype(np.float32)


def i64(*values):
    return np.array(values, dtype=np.int64)


X4 = (1, 4, 6, 6)
UNARY = [
    *("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Abs", "Neg", "Sign", "Floor", "Ceil"),
    *("Exp", "Sin", "Cos", "Atan", "Erf", "Elu", "Selu", "LeakyRelu", "Identity", "HardSigmoid"),
    *("Celu", "ThresholdedRelu", "Round", "HardSwish", "Mish", "Gelu", "Asinh", "Sinh", "Cosh"),
]
# name: (operator sets, nodes, shape of the input, constants)
CASES = {name: ((20,), [node(name, "x")], (1, 6), {}) for name in UNARY}
CASES |= {
    "leaky above one": ((13,), [node("LeakyRelu", "x", alpha=1.5)], (1, 6), {}),
    "elu alpha": ((7, 13), [node("Elu", "x", alpha=0.7)], (1, 6), {}),
    "gelu tanh": ((20,), [node("Gelu", "x", approximate="tanh")], (1, 6), {}),
    "shrink": ((13,), [node("Shrink", "x", lambd=0.3, bias=0.3)], (1, 6), {}),
    "prelu": ((9, 16), [node("PRelu", ["x", "s"])], X4, {"s": f(4, 1, 1)}),
    "log": ((13,), [node("Exp", "x", "h"), node("Log", "h")], (1, 6), {}),
    "scatter elements add": (
        (16, 18),
        [node("ScatterElements", ["x", "i", "x"], axis=-1, reduction="add")],
        (1, 2, 3),
        {"i": np.array([[[0, -1, 0], [1, 1, 1]]], np.int64)},
    ),
    "scatter nd add": (
        (16, 18),
        [node("ScatterND", ["o", "i", "x"], reduction="add")],
        (3, 2),
        {"o": f(4, 2), "i": np.array([[2], [0], [2]], np.int64)},
    ),
    "topk": ((10, 13), [node("TopK", ["x", "k"], ["y", "i"])], (1, 6), {"k": i64(3)}),
    "topk low": (
        (13,),
        [node("TopK", ["x", "k"], ["y", "i"], axis=1, largest=0)],
        X4,
        {"k": i64(2)},
    ),
    "acosh": (
        (13,),
        [node("Exp", "x", "h"), node("Add", ["h", "one"], "g"), node("Acosh", "g")],
        (1, 6),
        {"one": np.float32(1)},
    ),
    "atanh": (
        (13,),
        [node("Sin", "x", "h"), node("Mul", ["h", "a"], "g"), node("Atanh", "g")],
        (1, 6),
        {"a": np.float32(0.9)},
    ),
    "asin": ((13,), [node("Sin", "x", "h"), node("Asin", "h")], (1, 6), {}),
    "acos": ((13,), [node("Sin", "x", "h"), node("Acos", "h")], (1, 6), {}),
    "mod": ((13,), [node("Mod", ["x", "a"], fmod=1)], (1, 6), {"a": np.float32(-0.7)}),
    "sqrt": ((13,), [node("Exp", "x", "h"), node("Sqrt", "h")], (1, 6), {}),
    "reciprocal": ((13,), [node("Exp", "x", "h"), node("Reciprocal", "h")], (1, 6), {}),
    "clip attributes": ((7, 10), [node("Clip", "x", min=-0.2, max=0.4)], (1, 6), {}),
    "clip low": ((13,), [node("Clip", ["x", "a"])], (1, 6), {"a": np.float32(0.1)}),
    "clip high": ((13,), [node("Clip", ["x", "", "a"])], (1, 6), {"a": np.float32(0.1)}),
    "pow 3": ((7, 13), [node("Pow", ["x", "a"])], (1, 6), {"a": np.float32(3)}),
    "pow base": ((13,), [node("Pow", ["a", "x"])], (1, 6), {"a": np.float32(2)}),
    "square": ((13,), [node("Mul", ["x", "x"])], (1, 6), {}),
    "sub constant minus": ((7, 14), [node("Sub", ["a", "x"])], (1, 6), {"a": f(6)}),
    "add broadcasts up": ((7, 14), [node("Add", ["x", "a"])], (1, 6), {"a": f(5, 3, 1, 6)}),
    "mul broadcasts channel": ((7, 14), [node("Mul", ["x", "a"])], X4, {"a": f(4, 1, 1)}),
    "div by constant": ((7, 14), [node("Div", ["x", "a"])], (1, 6), {"a": f(6)}),
    "constant div": (
        (13,),
        [node("Exp", "x", "h"), node("Div", ["a", "h"])],
        (1, 6),
        {"a": f(6)},
    ),
    "div data": (
        (13,),
        [node("Exp", "x", "h"), node("Sin", "x", "g"), node("Div", ["g", "h"])],
        (1, 6),
        {},
    ),
    "max min": (
        (8, 13),
        [
            node("Sin", "x", "h"),
            node("Max", ["x", "h", "a"], "m"),
            node("Min", ["m", "b"]),
        ],
        (1, 6),
        {"a": f(6), "b": np.float32(0.5)},
    ),
    "sum mean": (
        (8, 13),
        [node("Sum", ["x", "a", "x"], "h"), node("Mean", ["h", "x"])],
        (1, 6),
        {"a": f(1, 6)},
    ),
    "silu spelled": ((13,), [node("Sigmoid", "x", "h"), node("Mul", ["x", "h"])], (1, 6), {}),
    "gelu spelled": (
        (13,),
        [
            node("Div", ["x", "r"], "d"),
            node("Erf", "d", "e"),
            node("Add", ["e", "one"], "g"),
            node("Mul", ["x", "g"], "h"),
            node("Mul", ["h", "half"]),
        ],
        (1, 6),
        {"r": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "gemm": (
        (7, 11, 13),
        [node("Gemm", ["x", "w", "b"], alpha=0.5, beta=2.0, transB=1)],
        (1, 6),
        {"w": f(3, 6), "b": f(3)},
    ),
    "gemm transA": (
        (13,),
        [node("Gemm", ["x", "w", "b"], transA=1)],
        (6, 4),
        {"w": f(6, 3), "b": f(4, 1)},
    ),
    "gemm left": ((13,), [node("Gemm", ["w", "x"])], (6, 2), {"w": f(3, 6)}),
    "matmul left column": (
        (13,),
        [node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", ["w", "t"])],
        (1, 6),
        {"w": f(3, 6)},
    ),
    "matmul vector": ((13,), [node("MatMul", ["x", "w"])], (1, 6), {"w": f(6)}),
    "matmul batch": ((13,), [node("MatMul", ["x", "w"])], (1, 2, 3, 4), {"w": f(2, 4, 5)}),
    "matmul left batch": ((13,), [node("MatMul", ["w", "x"])], (1, 2, 4, 3), {"w": f(2, 5, 4)}),
    "matmul data": (
        (13,),
        [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", ["x", "t"])],
        (1, 3, 4),
        {},
    ),
    "einsum constant": (
        (12, 13),
        [node("Einsum", ["x", "w"], equation="bij,jk->bik")],
        (1, 3, 4),
        {"w": f(4, 2)},
    ),
    "einsum data": (
        (13,),
        [node("Sin", "x", "h"), node("Einsum", ["x", "h"], equation="bhid,bhjd->bhij")],
        (1, 2, 3, 4),
        {},
    ),
    "linear and constants merge": (
        (13,),
        [
            node("MatMul", ["x", "w"], "h"),
            node("Add", ["h", "b"], "g"),
            node("Mul", ["g", "s"], "k"),
            node("Relu", "k"),
        ],
        (1, 6),
        {"w": f(6, 3), "b": f(3), "s": f(1, 3)},
    ),
    "and or not": (
        (13,),
        [
            node("Greater", ["x", "a"], "p"),
            node("Less", ["x", "b"], "q"),
            node("And", ["p", "q"], "r"),
            node("Or", ["p", "q"], "s"),
            node("Xor", ["r", "s"], "t"),
            node("Not", "t", "u"),
            node("Cast", "u", to=1),
        ],
        (1, 6),
        {"a": np.float32(-0.3), "b": f(6)},
    ),
    "compare inclusive": (
        (16,),
        [node("GreaterOrEqual", ["x", "a"], "p"), node("Cast", "p", to=1)],
        (1, 6),
        {"a": np.float32(0.1)},
    ),
    "cast whole equal": (
        (13,),
        [
            node("Cast", "x", "p", to=7),
            node("Equal", ["p", "a"], "q"),
            node("Cast", "q", to=1),
        ],
        (1, 6),
        {"a": i64(0)},
    ),
    "cast to truth": ((13,), [node("Cast", "x", "p", to=9), node("Cast", "p", to=1)], (1, 6), {}),
    "where constant": (
        (9, 16),
        [node("Where", ["c", "x", "a"])],
        (1, 6),
        {"c": np.array([1, 0, 1, 1, 0, 0], bool), "a": f(6)},
    ),
    "where data": (
        (13,),
        [
            node("Less", ["x", "a"], "c"),
            node("Sin", "x", "h"),
            node("Where", ["c", "x", "h"]),
        ],
        (1, 6),
        {"a": np.float32(0.0)},
    ),
    "argmax": ((7, 13), [node("ArgMax", "x", "h", axis=1), node("Cast", "h", to=1)], (1, 6), {}),
    "argmin pair": (
        (13,),
        [node("ArgMin", "x", "h", axis=2, keepdims=0), node("Cast", "h", to=1)],
        (1, 5, 2),
        {},
    ),
    "one hot": (
        (11,),
        [
            node("ArgMax", "x", "h", axis=1, keepdims=0),
            node("OneHot", ["h", "d", "v"], axis=1),
        ],
        (1, 2, 4),
        {"d": i64(3), "v": np.array([0.5, 2.0], np.float32)},
    ),
    "table": (
        (13,),
        [node("ArgMax", "x", "h", axis=1, keepdims=0), node("Gather", ["t", "h"], axis=0)],
        (1, 4),
        {"t": f(4, 3)},
    ),
}


def values(graph, box):
    """Interval of every node; the last is the output's."""
    found = {0: box}
    for position, n in enumerate(graph.nodes[1:], 1):
        found[position] = intervals[type(n.op)](n.op, *[found[k] for k in n.inputs])
    return found[graph.output]


def check(graph, radius=0.3):
    """The graph equals onnxruntime on new inputs, and its interval bounds hold their values."""
    x = torch.randn(3, *graph.input_shape)
    torch.testing.assert_close(graph(x), graph.original(x), rtol=1e-4, atol=1e-4)
    lower, upper = values(graph, (x[:1] - radius, x[:1] + radius))
    inside = graph.original(x[:1] + radius * (2 * torch.rand(200, *graph.input_shape) - 1))
    slack = 1e-4 * inside.abs().max().clamp(min=1.0)
    assert not torch.isnan(lower).any()
    assert (inside >= lower - slack).all()
    assert (inside <= upper + slack).all()


@pytest.mark.parametrize(
    ("name", "opset"), [(name, opset) for name, case in CASES.items() for opset in case[0]]
)
def test_equals_onnxruntime_and_lies_in_bounds(name, opset):
    _, nodes, shape, constants = CASES[name]
    check(certus.load(model(nodes, shape, opset=opset, constants=constants)))


@pytest.mark.parametrize(
    ("size", "start", "end", "step"),
    [(5, -1, -100, -2), (5, -1, -100, -1), (2, -1, -100, -2), (6, 4, 0, -2), (6, -2, 1, -3)],
)
def test_slices_backwards(size, start, end, step):
    constants = {"s": i64(start), "e": i64(end), "a": i64(1), "t": i64(step)}
    check(
        certus.load(
            model([node("Slice", ["x", "s", "e", "a", "t"])], (1, size), constants=constants)
        )
    )


@pytest.mark.parametrize("op", ["Where", "Add"])
def test_masks_of_minus_infinity(op):
    """Scores far below zero keep their order; what is masked has no weight."""
    keep = np.tril(np.ones((3, 3), bool))[None]
    mask = (
        [node("Where", ["k", "s", "i"], "m")] if op == "Where" else [node("Add", ["s", "n"], "m")]
    )
    constants = {
        "c": np.float32(-3e10),
        "k": keep,
        "i": np.float32(-np.inf),
        "n": np.where(keep, 0, -np.inf).astype(np.float32),
        "f": np.float32(1e10),
    }
    nodes = [node("Mul", ["x", "f"], "l"), node("Add", ["l", "c"], "s"), *mask]
    check(
        certus.load(model([*nodes, node("Softmax", "m", axis=-1)], (1, 3, 3), constants=constants))
    )
