"""Operators on constants alone: whatever onnxruntime evaluates, within bounds of size, and nothing random."""

import numpy as np
import pytest
import torch
from tests.graph.onnx_models import model, node
from tests.graph.test_onnx_operators import check, f, i64

import certus

pytest.importorskip("onnxruntime")


def test_an_operator_without_a_rule_is_evaluated_on_constants():
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], "w", axis=1),
        node("MatMul", ["x", "w"], "h"),
        node("Det", "k", "d"),
        node("Mul", ["h", "d"]),
    ]
    constants = {
        "q": (10 * f(6, 3)).astype(np.int8),
        "scale": np.abs(f(3)) / 10,
        "zero": np.array([1, -2, 3], np.int8),
        "k": f(3, 3),
    }
    check(certus.load(model(nodes, (1, 6), constants=constants)))


def test_weights_of_eight_bits_are_scaled_and_activations_stay_as_they_are():
    """By default onnxruntime rounds what it multiplies them with to eight bits, too."""
    q = np.array([[100, -7], [3, 50], [-90, 1]], np.int8)
    nodes = [node("DequantizeLinear", ["q", "s", "z"], "w"), node("MatMul", ["x", "w"])]
    constants = {"q": q, "s": np.float32(0.02), "z": np.int8(3)}
    graph = certus.load(model(nodes, (1, 3), constants=constants))
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    expected = x.double() @ torch.tensor(np.float32(0.02) * (q.astype(np.float64) - 3))
    for found in (graph(x), graph.original(x)):
        assert torch.allclose(found.double(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "drawn",
    [
        node("RandomNormalLike", "c", "r", seed=3.0),
        node("RandomUniform", [], "r", shape=[1, 6], seed=1.0),
        node("Bernoulli", "c", "r", seed=1.0),
        node("Dropout", ["c", "half", "yes"], "r"),
    ],
    ids=lambda made: made.op_type,
)
def test_constants_drawn_at_random_are_refused(drawn):
    constants = {"c": np.full((1, 6), 0.5, np.float32), "half": np.float32(0.5)}
    constants["yes"] = np.array(True)
    with pytest.raises(certus.UnsupportedError, match="drawn at random"):
        certus.load(model([drawn, node("Add", ["x", "r"])], opset=15, constants=constants))


@pytest.mark.parametrize(
    "grown",
    [
        node("ConstantOfShape", "n", "g"),
        node("Expand", ["one", "n"], "g"),
        node("Tile", ["one", "n"], "g"),
        node("Range", ["zero", "far", "step"], "g"),
        node("Pad", ["one", "widths"], "g"),
    ],
    ids=lambda made: made.op_type,
)
def test_constants_beyond_the_memory_are_refused_before_they_are_made(grown):
    constants = {"n": i64(2**20, 2**20), "one": f(1, 1), "widths": i64(2**40, 0, 0, 0)}
    constants |= {"zero": np.int64(0), "far": np.int64(2**40), "step": np.int64(1)}
    nodes = [grown, node("ReduceMax", "g", "m", keepdims=0), node("Cast", "m", "c", to=1)]
    with pytest.raises(certus.UnsupportedError, match="a value of shape"):
        certus.load(model([*nodes, node("Add", ["x", "c"])], constants=constants))
