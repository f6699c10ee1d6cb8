"""The ONNX operator that stands for a function of one value, run by onnxruntime."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from certus.graph import activation, gated, inverse, periodic, piecewise, powers, smooth
from certus.graph.op import Elementwise

# class -> (operation) -> (operator, attributes, constant second input)
OPERATORS: dict[type, Callable[[Any], tuple[str, dict[str, Any], float | None] | None]] = {
    activation.Sigmoid: lambda op: ("Sigmoid", {}, None),
    activation.Tanh: lambda op: ("Tanh", {}, None),
    activation.LeakyRelu: lambda op: ("LeakyRelu", {"alpha": op.slope}, None),
    piecewise.Prelu: lambda op: ("PRelu", {}, float(op.weight)),
    gated.Gelu: lambda op: ("Gelu", {"approximate": "tanh" if op.tanh else "none"}, None),
    gated.Silu: lambda op: ("Swish", {}, None),
    gated.Mish: lambda op: ("Mish", {}, None),
    gated.HardSwish: lambda op: ("HardSwish", {}, None),
    smooth.Elu: lambda op: ("Elu", {}, None) if op.scale == 1 else ("Selu", {}, None),
    smooth.Celu: lambda op: ("Celu", {"alpha": op.alpha}, None),
    smooth.Softplus: lambda op: ("Softplus", {}, None) if op.threshold == float("inf") else None,
    smooth.Softsign: lambda op: ("Softsign", {}, None),
    smooth.Erf: lambda op: ("Erf", {}, None),
    smooth.Atan: lambda op: ("Atan", {}, None),
    inverse.Asinh: lambda op: ("Asinh", {}, None),
    inverse.Acosh: lambda op: ("Acosh", {}, None),
    inverse.Atanh: lambda op: ("Atanh", {}, None),
    inverse.Asin: lambda op: ("Asin", {}, None),
    powers.Exp: lambda op: ("Exp", {}, None),
    powers.Log: lambda op: ("Log", {}, None),
    powers.Sqrt: lambda op: ("Sqrt", {}, None),
    powers.Reciprocal: lambda op: ("Reciprocal", {}, None),
    powers.Power: lambda op: ("Pow", {}, op.exponent),
    periodic.Sin: lambda op: ("Sin", {}, None),
    periodic.Cos: lambda op: ("Cos", {}, None),
    periodic.Tan: lambda op: ("Tan", {}, None),
}


def session(op: Elementwise, dtype: torch.dtype) -> Callable[[np.ndarray], np.ndarray] | None:
    """Values [N] of arrays [N]; None where onnxruntime has no such operator in this type."""
    found = OPERATORS[type(op)](op) if type(op) in OPERATORS else None
    if found is None:
        return None
    name, attributes, second = found
    kind = TensorProto.FLOAT if dtype == torch.float32 else TensorProto.DOUBLE
    constants = [] if second is None else [numpy_helper.from_array(_array(second, dtype), "c")]
    for opset in (24, 20):
        node = helper.make_node(name, ["x", *(c.name for c in constants)], ["y"], **attributes)
        ports = [helper.make_tensor_value_info(n, kind, ["N"]) for n in "xy"]
        graph = helper.make_graph([node], "g", ports[:1], ports[1:], constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
        )
        options = ort.SessionOptions()
        options.log_severity_level = 4
        try:
            run = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # an operator or type that this version does not have
            continue
        return lambda x, run=run: run.run(None, {"x": x})[0]
    return None


def _array(value: float, dtype: torch.dtype) -> np.ndarray:
    return np.array(value, np.float32 if dtype == torch.float32 else np.float64).reshape(1)


assert onnx
