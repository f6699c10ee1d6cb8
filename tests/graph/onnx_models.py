"""Small ONNX models for tests, built node by node."""

from collections.abc import Sequence

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attributes):
    """One node; a text names one value."""
    names = [[v] if isinstance(v, str) else list(v) for v in (inputs, outputs)]
    return helper.make_node(op, *names, **attributes)


def model(
    nodes,
    shape=(1, 6),
    out="y",
    opset=13,
    constants=None,
    dtype=TensorProto.FLOAT,
    inputs=None,
    outputs=None,
):
    """The bytes of a model with one input x (or `inputs`, name to shape) and one output."""
    ports = inputs or {"x": shape}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, dtype, list(s)) for n, s in ports.items()],
        [helper.make_tensor_value_info(o, dtype, None) for o in (outputs or [out])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(10, 3 + opset // 2)
    )
    return made.SerializeToString()
