"""Imported reductions, running sums and recurrent layers: equal to onnxruntime, inside bounds."""

import pytest
from tests.graph.onnx_models import model, node
from tests.graph.test_onnx_operators import X4, check, f, i64

import certus

pytest.importorskip("onnxruntime")


def reduce(name, axes, opset, **more):
    if (opset >= 13 and name == "ReduceSum") or opset >= 18:
        return [node(name, ["x", "a"], **more)], {"a": i64(*axes)}
    return [node(name, "x", axes=list(axes), **more)], {}


CASES = {
    "depth to space": ((11,), [node("DepthToSpace", "x", blocksize=2, mode="CRD")], X4, {}),
    "space to depth": ((11,), [node("SpaceToDepth", "x", blocksize=2)], X4, {}),
    "cumsum": ((13,), [node("CumSum", ["x", "a"], reverse=1, exclusive=1)], (1, 6), {"a": i64(1)}),
    "trilu": ((14,), [node("Trilu", "x", upper=0)], (1, 4, 4), {}),
}
for name, sets in {
    **{f"Reduce{k}": (7, 18) for k in ("Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp")},
    "ReduceSum": (7, 13),
}.items():
    for opset in sets:
        for axes, keep in (((1,), 1), ((2, 3), 0), ((0, 1, 2, 3), 0)):
            nodes, constants = reduce(name, axes, opset, keepdims=keep)
            CASES[f"{name} {axes} {opset}"] = ((opset,), nodes, X4, constants)


@pytest.mark.parametrize(
    ("name", "opset"), [(name, opset) for name, case in CASES.items() for opset in case[0]]
)
def test_equals_onnxruntime_and_lies_in_bounds(name, opset):
    _, nodes, shape, constants = CASES[name]
    check(certus.load(model(nodes, shape, opset=opset, constants=constants)))


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("opset", [7, 14])
def test_recurrent_layers(kind, direction, opset):
    count = 2 if direction == "bidirectional" else 1
    gates, hidden, width = GATES[kind], 3, 4
    more = {"linear_before_reset": opset // 14} if kind == "GRU" else {}
    constants = {
        "w": 0.3 * f(count, gates * hidden, width),
        "r": 0.3 * f(count, gates * hidden, hidden),
        "b": f(count, 2 * gates * hidden),
        "h": f(count, 1, hidden),
    }
    layer = node(
        kind,
        ["x", "w", "r", "b", "", "h"],
        ("y", "last"),
        direction=direction,
        hidden_size=hidden,
        **more,
    )
    for out in ("y", "last"):
        made = model([layer], (3, 1, width), out, opset=opset, constants=constants)
        check(certus.load(made), 0.1)
