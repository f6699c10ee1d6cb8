"""certus.load: where the batch is, several inputs and outputs, replay, files that lie."""

import copy
import gzip
import importlib.util

import numpy as np
import pytest
import torch
from tests.graph.onnx_models import model, node
from tests.graph.test_onnx_operators import check, f, i64

import certus
from certus.graph import activation, affine, smooth, structural
from certus.graph.onnx.check import compare
from certus.graph.onnx.runtime import OnnxModel, Unchecked

pytest.importorskip("onnxruntime")
LINEAR = [node("Gemm", ["x", "w", "b"], transB=1)]
CONSTANTS = {"w": f(3, 6), "b": f(3)}


def kinds(graph):
    return [type(n.op) for n in graph.nodes[1:]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 6), (6,)), (("N", 6), (6,)), ((1, 1, 6), (1, 6)), ((6,), (6,)), ((2, 6), (2, 6))],
)
def test_the_batch_is_a_leading_dimension_of_one_or_without_a_size(shape, expected):
    graph = certus.load(model([node("Relu", "x")], shape))
    assert graph.input_shape == graph.output_shape == expected
    assert graph(torch.zeros(4, *expected)).shape == (4, *expected)


def test_a_scalar_output_gets_one_dimension():
    graph = certus.load(model([node("ReduceSum", "x", keepdims=0)], (1, 6)))
    assert graph.output_shape == (1,)
    check(graph)


def test_an_open_size_must_be_given():
    made = model([node("Relu", "x")], ("N", "length"))
    with pytest.raises(certus.ModelError, match=r"length.*sizes="):
        certus.load(made)
    assert certus.load(made, sizes={"length": 5}).input_shape == (5,)


def test_no_reshapes_between_layers():
    constants = {"w": f(5, 4, 3, 3), "b": f(5), "m": f(5), "v": abs(f(5)) + 1, "l": f(3, 20)}
    nodes = [
        node("Conv", ["x", "w", "b"], "c"),
        node("BatchNormalization", ["c", "b", "b", "m", "v"], "n"),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", ["f", "l"], transB=1),
    ]
    graph = certus.load(model(nodes, (1, 4, 6, 6), constants=constants))
    layers = [affine.Conv, activation.Relu, activation.MaxPool, structural.Reshape, affine.Linear]
    assert kinds(graph) == layers
    check(graph)


def test_a_constant_joins_only_what_nobody_else_reads():
    nodes = [
        node("MatMul", ["x", "w"], "h"),
        node("Add", ["h", "b"], "g"),
        node("Mul", ["g", "h"]),
    ]
    graph = certus.load(model(nodes, constants={"w": f(6, 3), "b": f(3)}))
    assert affine.Shift in kinds(graph)
    check(graph)


def test_gates_become_one_function():
    gelu = [
        node("Mul", ["x", "r"], "d"),
        node("Erf", "d", "e"),
        node("Add", ["e", "one"], "g"),
        node("Mul", ["x", "g"], "h"),
        node("Mul", ["h", "half"]),
    ]
    numbers = {"r": np.float32(0.5**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    assert kinds(certus.load(model(gelu, constants=numbers))) == [smooth.Gelu]
    silu = [node("Sigmoid", "x", "h"), node("Mul", ["h", "x"])]
    assert kinds(certus.load(model(silu))) == [smooth.Silu]
    numbers["r"] = np.float32(0.7)  # not one over the root of two
    assert smooth.Gelu not in kinds(certus.load(model(gelu, constants=numbers)))


def test_several_inputs_become_one_flat_input():
    made = model([node("Add", ["a", "b"])], inputs={"a": (1, 2, 3), "b": (1, 3)})
    graph = certus.load(made)
    assert graph.input_shape == (9,)
    check(graph)


def test_several_outputs_need_a_name():
    made = model([node("Relu", "x"), node("Sin", "x", "z")], outputs=["y", "z"])
    with pytest.raises(certus.ModelError, match=r"pass output=, one of \['y', 'z'\]"):
        certus.load(made)
    check(certus.load(made, output="z"))
    with pytest.raises(certus.ModelError, match="no output 'q'"):
        certus.load(made, output="q")


def test_a_slice_at_a_place_that_the_input_gives():
    """mask[:, p : p + 2] = 0 as exporters write it, also where the slice leaves the mask."""
    nodes = [
        node("Slice", ["x", "six", "seven", "ax1"], "s"),
        node("Reshape", ["s", "scalar"], "r"),
        node("Cast", "r", "p", to=7),
        node("Add", ["p", "two"], "q"),
        node("Unsqueeze", "p", "p1", axes=[0]),
        node("Unsqueeze", "q", "q1", axes=[0]),
        node("Slice", ["x", "zero", "six", "ax1"], "d"),
        node("Slice", ["range", "p1", "q1", "zero"], "w"),
        node("Shape", "w", "n"),
        node("Expand", ["nil", "n"], "u"),
        node("Unsqueeze", "w", "i", axes=[1]),
        node("ScatterND", ["ones", "i", "u"], "m"),
        node("Mul", ["d", "m"]),
    ]
    constants = {
        "zero": i64(0),
        "six": i64(6),
        "seven": i64(7),
        "ax1": i64(1),
        "scalar": np.zeros(0, np.int64),
        "two": np.int64(2),
        "range": np.arange(6),
        "nil": np.zeros(1, np.float32),
        "ones": np.ones(6, np.float32),
    }
    graph = certus.load(model(nodes, (1, 7), constants=constants, opset=11))
    x = torch.rand(60, 7) + 0.5
    x[:, 6] = torch.linspace(-7.0, 8.0, 60)
    torch.testing.assert_close(graph(x), graph.original(x))
    assert len(set((graph.original(x) == 0).sum(1).tolist())) == 3  # 0, 1 and 2 zeros do occur
    from tests.graph.test_onnx_operators import values

    lower, upper = values(graph, (x.amin(0, keepdim=True), x.amax(0, keepdim=True)))
    assert ((graph(x) >= lower) & (graph(x) <= upper)).all()


@pytest.mark.parametrize("opset", range(9, 21))
def test_networks_exported_from_torch(opset):
    import io
    import warnings

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 4, 3, 2, 1)
            self.norm = torch.nn.BatchNorm2d(4)
            self.attention = torch.nn.Linear(4, 12)
            self.head = torch.nn.Linear(36, 3)

        def forward(self, x):
            x = torch.nn.functional.elu(self.norm(self.conv(x)))
            x = x.flatten(2).transpose(1, 2)
            q, k, v = self.attention(x).chunk(3, 2)
            x = (q @ k.transpose(1, 2) / 2).softmax(2) @ v
            return self.head(torch.nn.functional.gelu(x).reshape(x.shape[0], -1)).clamp(min=-1)

    torch.manual_seed(1)
    net, buffer = Net().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(1, 2, 6, 6),),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes={"x": {0: "N"}},
        )
    graph = certus.load(buffer.getvalue())
    x = torch.randn(3, 2, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), net(x), rtol=1e-4, atol=1e-5)
    check(graph, 0.05)


def test_certify_and_attack_replay_on_the_file():
    graph = certus.load(model(LINEAR, constants=CONSTANTS))
    x = torch.randn(4, 6)
    y = graph(x).argmax(1)
    small = certus.certify(graph, x, y, certus.Linf(1e-4, clip=None), method="crown")
    assert small.verdict.count(certus.Verdict.VERIFIED) >= 3
    found = certus.attack(graph, x, y, certus.Linf(3.0, clip=None))
    assert found.success.any()
    z = graph.original(found.inputs)
    assert (z.argmax(1) != y)[found.success].all()


def test_the_original_runs_the_file():
    graph = certus.load(model(LINEAR, ("N", 6), constants=CONSTANTS))
    assert isinstance(graph.original, OnnxModel)
    assert graph.original.batched
    assert not certus.load(model(LINEAR, constants=CONSTANTS)).original.batched
    x = torch.randn(3, 6)
    torch.testing.assert_close(copy.deepcopy(graph.original)(x), graph(x))
    assert not graph.original(x.requires_grad_()).requires_grad
    with pytest.raises(certus.ArgumentError, match="float64"):
        graph.original(x.double())
    assert len(repr(graph.original)) < 300


def test_float64_networks():
    made = model(
        LINEAR, constants={k: v.astype(np.float64) for k, v in CONSTANTS.items()}, dtype=11
    )
    graph = certus.load(made)
    assert graph.dtype == torch.float64
    x = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(graph(x), graph.original(x), rtol=1e-12, atol=1e-12)


def test_without_onnxruntime_the_graph_stands_for_the_file(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "onnxruntime" else find(n, *a)
    )
    graph = certus.load(model(LINEAR, constants=CONSTANTS))
    assert isinstance(graph.original, Unchecked)
    assert "not compared" in repr(graph.original)
    x = torch.randn(2, 6)
    assert torch.equal(graph.original(x), graph(x))


def test_a_wrong_import_is_noticed():
    graph = certus.load(model(LINEAR, constants=CONSTANTS))
    wrong = affine.Linear(graph.nodes[1].op.weight * 1.001, graph.nodes[1].op.bias)
    with pytest.raises(certus.ModelError, match="differs from onnxruntime"):
        compare(graph.substituted({1: wrong}))


def test_paths_and_archives(tmp_path):
    raw = model(LINEAR, constants=CONSTANTS)
    (tmp_path / "a.onnx").write_bytes(raw)
    (tmp_path / "a.onnx.gz").write_bytes(gzip.compress(raw))
    graphs = [certus.load(p) for p in (tmp_path / "a.onnx", str(tmp_path / "a.onnx.gz"), raw)]
    assert len({g.fingerprint() for g in graphs}) == 1
