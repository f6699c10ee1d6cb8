"""Activations of eight bits: equal to onnxruntime, which runs the file as it says, and inside bounds."""

import numpy as np
import pytest
import torch
from tests.graph.onnx_models import model, node
from tests.graph.test_onnx_operators import check, f

import certus

pytest.importorskip("onnxruntime")

SCALE, SCALES = np.float32(0.05), np.array([0.05, 0.125, 0.02, 0.3], np.float32)
CASES = {
    "signed": ((1, 6), {}, {"s": SCALE, "z": np.int8(7)}),
    "unsigned": ((1, 6), {}, {"s": SCALE, "z": np.uint8(100)}),
    "channels": ((1, 4, 3), {"axis": 1}, {"s": SCALES, "z": np.array([0, -3, 9, 1], np.int8)}),
    "last": ((1, 3, 4), {"axis": -1}, {"s": SCALES, "z": np.array([128, 3, 9, 1], np.uint8)}),
}


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_equals_onnxruntime(case):
    shape, axis, constants = CASES[case]
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q", **axis),
        node("DequantizeLinear", ["q", "s", "z"], "d", **axis),
        node("Relu", "d"),
    ]
    graph = certus.load(model(nodes, shape, opset=13, constants=constants))
    check(graph)
    g = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(300, *graph.input_shape, generator=g)
    assert torch.allclose(graph(x), graph.original(x), atol=1e-5)


def test_a_network_of_eight_bits_equals_onnxruntime():
    q = (20 * f(6, 3)).astype(np.int8)
    constants = {"q": q, "s": SCALE, "z": np.int8(0), "t": np.float32(0.03), "u": np.uint8(120)}
    nodes = [
        node("QuantizeLinear", ["x", "t", "u"], "a"),
        node("DequantizeLinear", ["a", "t", "u"], "b"),
        node("DequantizeLinear", ["q", "s", "z"], "w"),
        node("MatMul", ["b", "w"]),
    ]
    check(certus.load(model(nodes, (1, 6), opset=13, constants=constants)))


def test_other_widths_and_blocks_are_refused():
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"]),
    ]
    constants = {"s": SCALE, "z": np.uint16(5)}
    with pytest.raises(certus.UnsupportedError, match="quantisation to uint16"):
        certus.load(model(nodes, (1, 6), opset=21, constants=constants))
