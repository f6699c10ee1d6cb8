"""Types of results: whole numbers stay inside their type, and what they would do otherwise is refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from certus.graph import conversion
from certus.graph.onnx.table import Call, Result, Unsupported, Value
from certus.graph.onnx.values import Data, is_whole

# operators whose result has another type than the input that counts; their builders say which
_OWN = {
    *("Cast", "CastLike", "ArgMax", "ArgMin", "OneHot", "Shape", "Size", "EyeLike"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor"),
    *("QuantizeLinear", "DequantizeLinear"),
}
# of whole numbers: operators whose result is one of their values, and those that may leave the type
_CHOICES = {
    *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"),
    *("Gather", "GatherElements", "GatherND", "Concat", "Expand", "Tile", "Pad", "Where"),
    *("ScatterND", "ScatterElements", "Scatter", "DepthToSpace", "SpaceToDepth", "Trilu"),
    *("Max", "Min", "Clip", "Sign", "ReduceMax", "ReduceMin", "Relu"),
}
_SUMS = {
    *("Add", "Sub", "Mul", "Sum", "Neg", "Abs", "MatMul", "Gemm", "CumSum"),
    *("ReduceSum", "ReduceL1", "ReduceSumSquare"),
}


def typed(call: Call, build: Callable[[Call], Result]) -> Result:
    """A builder's result with its type: arithmetic on whole numbers is NaN where it would wrap around.

    Raises Unsupported for operators that mean something else on whole numbers (a division cuts off),
    and for constants that the network's own type does not hold exactly.
    """
    op = call.node.op
    kind = "f" if op in _OWN else _kind(call, call[1 if op == "Where" else 0])
    if not is_whole(kind):
        return build(call)
    if op not in _CHOICES | _SUMS:
        raise Unsupported(f"on whole numbers ({kind})")
    for value in call.values:
        _exact(call, value)
    found = build(call)
    results = found if isinstance(found, list) else [found]
    kept = [_held(call, v, kind) if isinstance(v, Data) else v for v in results]
    return kept if isinstance(found, list) else kept[0]


def _held(call: Call, value: Data, kind: str) -> Data:
    if call.node.op not in _SUMS:
        return replace(value, kind=kind)
    return replace(value, kind=kind, position=conversion.held(call.writer, value.position, kind))


def _kind(call: Call, value: Value) -> str:
    if isinstance(value, Data):
        return value.kind
    return call.kind(value.dtype) if isinstance(value, np.ndarray) else "f"


def _exact(call: Call, value: Value) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        return
    held = np.asarray(torch.as_tensor(value.astype(np.float64)).to(call.writer.like.dtype).double())
    if any(int(a) != int(b) for a, b in zip(held.reshape(-1), value.reshape(-1), strict=True)):
        raise Unsupported("whole numbers that are too large for the network's own type")
