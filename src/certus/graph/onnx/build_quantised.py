"""QuantizeLinear and DequantizeLinear of values that depend on the input, spelled out."""

from dataclasses import replace
from typing import Any

import numpy as np

from certus.graph.activation import Clamp
from certus.graph.onnx.build_arithmetic import add, divide, multiply
from certus.graph.onnx.table import Call, Unsupported, axis_of, builds
from certus.graph.onnx.values import Data, is_whole, kind_of
from certus.graph.piecewise import Round
from certus.graph.whole import LIMITS


@builds("QuantizeLinear")
def _quantize(call: Call) -> Data:
    """round(x / scale) + zero point, held inside its type; halves go to even."""
    x = call.data()
    zero = _zero(call, np.uint8)
    steps = call.same(Round(), divide(call, x, _along(call, x, call.array(1))))
    low, top = LIMITS[kind_of(zero.dtype)]
    moved = add(call, steps, _along(call, x, zero.astype(np.float64)))
    held = call.same(Clamp(low, top - 1), moved)
    return replace(held, kind=kind_of(zero.dtype))


@builds("DequantizeLinear")
def _dequantize(call: Call) -> Data:
    """(x - zero point) scale."""
    x = call.data()
    if not is_whole(x.kind):
        raise Unsupported(f"of values of type {x.kind}")
    zero = _along(call, x, _zero(call, x.kind).astype(np.float64))
    found = multiply(call, add(call, x, zero, -1.0), _along(call, x, call.array(1)))
    return replace(found, kind="f")


def _zero(call: Call, kind: Any) -> Any:
    """The zero point, of at most 8 bits: whole numbers that every float holds."""
    zero = call.array(2, np.zeros((), kind))
    if zero.dtype.name not in ("int8", "uint8"):
        raise Unsupported(f"quantisation to {zero.dtype.name}")
    return zero


def _along(call: Call, x: Data, constant: Any) -> Any:
    """One number, or one for each place of an axis."""
    if constant.ndim == 0 or constant.size == 1:
        return constant.reshape(())
    axis = axis_of(int(call.attribute("axis", 1)), x.rank)
    if constant.ndim != 1 or call.attribute("block_size", 0):
        raise Unsupported("quantisation by blocks")
    return constant.reshape(-1, *[1] * (x.rank - 1 - axis))
