"""Operators on constants alone: onnxruntime evaluates each as a network of one node."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from certus.core.errors import require
from certus.graph.onnx.reader import Network, Node
from certus.graph.onnx.table import Call, Unsupported, affordable

_SMALL = 64  # numbers of an input that may say how large the result is
_DRAWN = ("Random", "Bernoulli", "Multinomial")
_DOMAINS = {"": None, "com.microsoft": 1}


def folded(call: Call) -> list[np.ndarray]:
    """The results of a node whose inputs are constants, in the types that ONNX gives them.

    Raises Unsupported where onnxruntime has no such operator for these types, for values drawn at random,
    for loops, and for results too large for any network.
    """
    return evaluated(call.node, call.values, call.opset)


def evaluated(node: Node, values: Sequence[Any], opset: int) -> list[np.ndarray]:
    """A node on arrays; None stands for an input that is absent."""
    _refuse(node, values)
    onnx: Any = require("onnx", "onnx")
    model = _model(onnx, node, values, opset)
    _refuse_large(onnx, model, values)
    runtime: Any = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    feed = {f"i{k}": np.ascontiguousarray(v).reshape(v.shape) for k, v in _given(values)}
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise Unsupported(f"on these constants: {_line(error)}") from error
    found = session.run(None, feed)
    if not all(isinstance(value, np.ndarray) for value in found):
        raise Unsupported("a constant that is no tensor")
    if node.op.startswith("Cast"):
        _refuse_undefined(values[0], found[0])
    return found


def runs(node: Node) -> bool:
    """Whether onnxruntime may know the operator: its own sets, no loops."""
    inner = any(isinstance(value, Network) for value in node.attributes.values())
    return node.domain in _DOMAINS and not inner


def _refuse(node: Node, values: Sequence[Any]) -> None:
    if not runs(node):
        raise Unsupported("")
    training = values[2] if node.op == "Dropout" and len(values) > 2 else None
    if node.op.startswith(_DRAWN) or (training is not None and bool(np.any(training))):
        raise Unsupported("a constant drawn at random")
    if any(v.dtype.kind in "OUS" for _, v in _given(values)):
        raise Unsupported("on text")


def _refuse_undefined(before: np.ndarray, after: np.ndarray) -> None:
    """Unsupported where a whole type does not hold a float: what it becomes is the machine's choice."""
    undefined = before.dtype.kind == "f" and after.dtype.kind in "iu"
    if undefined and not np.array_equal(np.trunc(before), after):
        raise Unsupported(f"a constant that {after.dtype.name} does not hold")


def _given(values: Sequence[Any]) -> list[tuple[int, np.ndarray]]:
    return [(k, np.asarray(v)) for k, v in enumerate(values) if v is not None]


def _model(onnx: Any, node: Node, values: Sequence[Any], opset: int) -> Any:
    """One node; its inputs are i0, i1, ..., its outputs o0, o1, ...."""
    make, given = onnx.helper, dict(_given(values))
    attributes = {
        name: onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attributes.items()
    }
    names = [f"i{k}" if k in given else "" for k in range(len(values))]
    outputs = [f"o{k}" if name else "" for k, name in enumerate(node.outputs)]
    body = make.make_node(node.op, names, outputs, domain=node.domain, **attributes)
    inputs = [
        make.make_tensor_value_info(
            f"i{k}", make.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for k, value in given.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs if name]
    sets = [make.make_opsetid("", opset)]
    if node.domain:
        sets.append(make.make_opsetid(node.domain, _DOMAINS[node.domain]))
    model = make.make_model(
        make.make_graph([body], "constant", inputs, results), opset_imports=sets
    )
    model.ir_version = min(model.ir_version, 10)
    return model


def _refuse_large(onnx: Any, model: Any, values: Sequence[Any]) -> None:
    """Unsupported for results beyond what a network holds, as far as shapes and small inputs tell."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    known.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, f"i{k}")
        for k, value in _given(values)
        if value.size <= _SMALL
    )
    try:
        known = onnx.shape_inference.infer_shapes(known, data_prop=True)
    except Exception:  # what is malformed is refused by the engine
        return
    for result in known.graph.output:
        held = sum(
            value.size for _, value in _given(values)
        )  # weights may be larger than any value
        affordable([dim.dim_value for dim in result.type.tensor_type.shape.dim], held)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
