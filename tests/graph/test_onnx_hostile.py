"""certus.load on files that are damaged, lie, or hold what cannot be bounded: one line each."""

import gzip

import numpy as np
import pytest
from tests.graph.onnx_models import helper, model, node, onnx
from tests.graph.test_onnx_operators import check, f, i64

import certus

pytest.importorskip("onnxruntime")
LINEAR = [node("Gemm", ["x", "w", "b"], transB=1)]
CONSTANTS = {"w": f(3, 6), "b": f(3)}


def external(tmp_path, location, **entries):
    made = onnx.load_from_string(model(LINEAR, constants=CONSTANTS))
    tensor = made.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in ({"location": location} | entries).items():
        tensor.external_data.add(key=key, value=str(value))
    (tmp_path / "a.onnx").write_bytes(made.SerializeToString())
    return tmp_path / "a.onnx", data


def test_external_data(tmp_path):
    path, data = external(tmp_path, "weights/w.bin", offset=8, length=72)
    with pytest.raises(certus.FileError, match="cannot be read"):
        certus.load(path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(bytes(8) + data)
    check(certus.load(path))
    with pytest.raises(certus.FileError, match="given as bytes"):
        certus.load(path.read_bytes())
    (tmp_path / "weights" / "w.bin").write_bytes(data)
    with pytest.raises(certus.FileError, match="ends early"):
        certus.load(path)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "link"]
)
def test_external_data_stays_in_its_folder(tmp_path, location):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(72))
    (home / "link").symlink_to(tmp_path / "secret.bin")
    path, _ = external(home, location)
    with pytest.raises(certus.FileError, match="outside the model's folder"):
        certus.load(path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not an ONNX model"),
        (b"plain text, no protobuf", "not an ONNX model"),
        (b"\x1f\x8bbroken", "archive is damaged"),
        (gzip.compress(b"x" * 100, mtime=0)[:-6], "archive is damaged"),
        (model(LINEAR, constants=CONSTANTS)[:-40], "not an ONNX model|damaged"),
    ],
)
def test_damaged_files(raw, message):
    with pytest.raises(certus.FileError, match=message) as caught:
        certus.load(raw)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(certus.FileError, match=r"none\.onnx cannot be read .No such file"):
        certus.load(tmp_path / "none.onnx")
    with pytest.raises(certus.FileError):
        certus.load(tmp_path)


def test_any_cut_of_a_file_is_refused_in_one_line():
    raw = model(LINEAR, constants=CONSTANTS)
    for end in range(0, len(raw) - 1, 7):
        with pytest.raises(certus.CertusError) as caught:
            certus.load(raw[:end])
        assert "\n" not in str(caught.value)


def test_any_flipped_byte_loads_or_is_refused_in_one_line():
    raw = model(LINEAR, constants=CONSTANTS)
    draw, outcomes = np.random.default_rng(0), {"loaded": 0, "refused": 0}
    for _ in range(150):
        broken = bytearray(raw)
        broken[draw.integers(len(raw))] ^= 1 << int(draw.integers(8))
        try:
            certus.load(bytes(broken))
            outcomes["loaded"] += 1
        except certus.CertusError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10, outcomes


def test_weights_that_are_not_finite():
    bad = CONSTANTS["w"].copy()
    bad[0, 0] = np.nan
    with pytest.raises(certus.ModelError, match="'w' contains NaN"):
        certus.load(model(LINEAR, constants=CONSTANTS | {"w": bad}))
    bad[0, 0] = np.inf
    with pytest.raises(certus.ModelError, match="infinite"):
        certus.load(model(LINEAR, constants=CONSTANTS | {"w": bad}))


def test_everything_unsupported_is_named_at_once():
    nodes = [
        helper.make_node("Magic", ["x"], ["a"], name="one", domain="custom"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("TopK", ["b", "k"], ["c", "d"], name="two"),
        helper.make_node("Asinh", ["x"], ["e"], name="three"),
        helper.make_node("Add", ["c", "e"], ["y"]),
    ]
    with pytest.raises(certus.UnsupportedError) as caught:
        certus.load(model(nodes, constants={"k": i64(2)}))
    text = str(caught.value)
    assert "custom:Magic in node 'one'" in text
    assert "Asinh in node 'three'" in text
    assert "Relu" not in text
    assert "\n" not in text


@pytest.mark.parametrize("op", ["Loop", "Scan"])
def test_loops_are_refused_by_name(op):
    body = helper.make_graph([], "body", [], [])
    with pytest.raises(certus.UnsupportedError, match=op):
        certus.load(model([node(op, "x", body=body)]))


def branch(op):
    out = helper.make_tensor_value_info("r", 1, None)
    return helper.make_graph([helper.make_node(op, ["x"], ["r"])], op, [], [out])


def test_a_branch_on_a_constant_is_taken_and_one_on_data_refused():
    parts = {"then_branch": branch("Relu"), "else_branch": branch("Sin")}
    graph = certus.load(model([node("If", "c", **parts)], constants={"c": np.array(False)}))
    assert [n.op.name for n in graph.nodes[1:]] == ["Sin"]
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", ["m", "z"], "c"),
        node("If", "c", **parts),
    ]
    with pytest.raises(certus.UnsupportedError, match="branch that depends on the input"):
        certus.load(model(nodes, constants={"z": np.float32(0)}))


def test_inputs_that_are_not_real_numbers():
    with pytest.raises(certus.UnsupportedError, match="int64"):
        certus.load(model([node("Identity", "x")], dtype=7))


def test_nodes_out_of_order_and_outputs_without_input():
    nodes = [node("Relu", "h"), node("Sin", "x", "h")]
    with pytest.raises(certus.ModelError, match="'h', which nothing before it computes"):
        certus.load(model(nodes))
    with pytest.raises(certus.ModelError, match="does not depend"):
        certus.load(model([node("Relu", "c")], constants={"c": f(3)}))


def test_shapes_that_do_not_fit():
    with pytest.raises(certus.CertusError, match=r"Gemm|matrix product"):
        certus.load(model(LINEAR, (1, 7), constants=CONSTANTS))
