"""Sums, products, quotients, powers and extrema of two or more values, with ONNX's broadcasting."""

from typing import Any

import numpy as np
import torch

from certus.graph import composite, powers, smooth
from certus.graph.activation import Relu, Sigmoid
from certus.graph.affine import Scale, Shift, Sum
from certus.graph.bilinear import Mul
from certus.graph.onnx.absorb import absorb
from certus.graph.onnx.build_elementwise import clipped, scaled, shifted
from certus.graph.onnx.table import Call, Unsupported, Value, broadcast, builds
from certus.graph.onnx.values import Data
from certus.graph.onnx.writer import Writer
from certus.graph.op import Op
from certus.graph.smooth import Erf
from certus.graph.structural import Expand


@builds("Add")
def _add(call: Call) -> Data:
    return add(call, call[0], call[1])


@builds("Sub")
def _sub(call: Call) -> Data:
    return add(call, call[0], call[1], -1.0)


@builds("Sum", "Mean")
def _sum(call: Call) -> Data:
    total = call[0]
    for value in call.values[1:]:
        total = total + value if _constants(total, value) else add(call, total, value)
    return scaled(call, total, 1 / len(call.values)) if call.node.op == "Mean" else total


def add(call: Call, x: Value, y: Value, sign: float = 1.0) -> Data:
    """x + sign * y, at least one of which depends on the input."""
    if isinstance(x, Data) and isinstance(y, Data):
        a, b, shape = aligned(call, x, y)
        return call.put(Sum(sign), a, b, shape=shape, kind=_joint(x, y))
    if not isinstance(x, Data):
        return add(call, scaled(call, y, sign) if sign != 1 else y, x)
    amount = sign * _numbers(y)
    if bool(np.isneginf(amount).any()):
        return _masked(call, x, amount)
    return _affine(call, x, None, amount)


def _masked(call: Call, x: Data, amount: Any) -> Data:
    """x + amount with entries of minus infinity, as attention masks have them."""
    position, fitted, shape = _fitted(call, x, amount)
    expanded = call.writer.add(Expand(shape[len(shape) - fitted.ndim + 1 :]), position)
    summand = torch.tensor(fitted, dtype=call.writer.like.dtype, device=call.writer.like.device)
    return Data(composite.plus(call.writer, expanded, summand), shape)


@builds("Mul")
def _mul(call: Call) -> Data:
    return multiply(call, call[0], call[1])


def multiply(call: Call, x: Value, y: Value) -> Data:
    """x * y, at least one of which depends on the input; gates such as GELU are recognised."""
    if isinstance(x, Data) and isinstance(y, Data):
        if x.position == y.position and x.shape == y.shape:
            return call.same(powers.Power(2.0), x, x.kind)
        gated = _gate(call, x, y) or _gate(call, y, x)
        if gated is not None:
            return gated
        a, b, shape = aligned(call, x, y)
        return call.put(Mul(), a, b, shape=shape, kind=_joint(x, y))
    data, constant = (x, y) if isinstance(x, Data) else (y, x)
    return _affine(call, data, _numbers(constant), None)


def _gate(call: Call, x: Data, gate: Data) -> Data | None:
    """x sigmoid(x), x (1 + erf(x / sqrt 2)): written as one function, whose bounds are tighter."""
    writer = call.writer
    if x.shape != gate.shape:
        return None
    if isinstance(writer.op(gate.position), Sigmoid) and writer.inputs(gate.position) == (
        x.position,
    ):
        return call.same(smooth.Silu(), x)
    if _scaled_erf(writer, gate.position) == x.position:
        return scaled(call, call.same(smooth.Gelu(), x), 2.0)
    return None


def _scaled_erf(writer: Writer, position: int) -> int | None:
    """x where the node is 1 + erf(x / sqrt 2)."""
    chain = []
    for kind in (Shift, Erf, Scale):
        if not isinstance(writer.op(position), kind):
            return None
        chain.append(writer.op(position))
        position = writer.inputs(position)[0]
    shift, _, scale = chain
    assert isinstance(shift, Shift)
    assert isinstance(scale, Scale)
    if shift.amount.numel() != 1 or scale.factor.numel() != 1:
        return None
    factor = 1 / float(scale.factor) if scale.divide else float(scale.factor)
    fits = float(shift.amount) * shift.factor == 1 and abs(factor - 0.5**0.5) < 1e-6
    return position if fits else None


@builds("Div")
def _div(call: Call) -> Data:
    return divide(call, call[0], call[1])


def divide(call: Call, x: Value, y: Value) -> Data:
    """x / y, at least one of which depends on the input."""
    if not isinstance(y, Data):
        divisor = _numbers(y)
        if bool((divisor == 0).any()):
            raise Unsupported("a division by zero")
        if divisor.size == 1:
            return call.same(Scale(call.tensor(divisor.reshape(())), divide=True), x)
        position, fitted, shape = _fitted(call, x, divisor)
        return call.put(Scale(call.tensor(fitted), divide=True), position, shape=shape)
    if isinstance(x, Data):
        a, b, shape = aligned(call, x, y)
        return Data(composite.div(call.writer, a, b), shape)
    return multiply(call, call.same(powers.Reciprocal(), y), x)


@builds("Pow")
def _pow(call: Call) -> Data:
    x = call[0]
    if isinstance(x, Data):
        if not isinstance(call[1], np.ndarray):
            raise Unsupported("a power whose exponent depends on the input")
        return power(call, x, call.number(1) or 0.0)
    base = call.number(0) or 0.0
    if base <= 0:
        raise Unsupported("a power of a number that is not positive")
    return call.same(powers.Exp(), scaled(call, call.data(1), float(np.log(base))))


def power(call: Call, x: Data, exponent: float) -> Data:
    """x to a constant."""
    if exponent == 1:
        return x
    special: dict[float, Op] = {0.5: powers.Sqrt(), -1.0: powers.Reciprocal()}
    return call.same(special.get(exponent, powers.Power(exponent)), x)


@builds("Max", "Min")
def _extreme(call: Call) -> Data:
    largest = call.node.op == "Max"
    constants = [v for v in call.values if not isinstance(v, Data)]
    values = [v for v in call.values if isinstance(v, Data)]
    result = values[0]
    for value in values[1:]:
        a, b, shape = aligned(call, result, value)
        pick = composite.maximum if largest else composite.minimum
        result = Data(pick(call.writer, a, b), shape, _joint(result, value))
    if not constants:
        return result
    limit = constants[0]
    for other in constants[1:]:
        limit = (np.maximum if largest else np.minimum)(limit, other)
    return _limited(call, result, limit, largest)


def _limited(call: Call, x: Data, limit: Any, largest: bool) -> Data:
    """max(x, c) = c + relu(x - c) and min(x, c) = c - relu(c - x) for a constant c."""
    flat = np.unique(_numbers(limit))
    if len(flat) == 1 and broadcast(x.shape, np.shape(limit)) == x.shape:
        low, high = (float(flat[0]), None) if largest else (None, float(flat[0]))
        return clipped(call, x, low, high)
    sign = 1.0 if largest else -1.0
    above = add(call, x if largest else scaled(call, x, -1.0), limit, -sign)
    return add(call, scaled(call, call.same(Relu(), above), sign), limit)


@builds("Not")
def _not(call: Call) -> Data:
    return shifted(call, scaled(call, call.data(), -1.0), 1.0)


def aligned(call: Call, x: Data, y: Data) -> tuple[int, int, tuple[int, ...]]:
    """Positions of two values with one number of dimensions, and the ONNX shape of the result."""
    shape = broadcast(x.shape, y.shape)
    writer = call.writer
    if x.shape == y.shape:
        if writer.shape(x.position) != writer.shape(y.position):
            return call.at(x), call.at(y), shape
        return x.position, y.position, shape
    rank = len(shape)
    padded = [(1,) * (rank - v.rank) + v.shape for v in (x, y)]
    lead = 1 if rank >= 2 and shape[0] == 1 else 0
    a, b = (call.at(v, s[lead:]) for v, s in zip((x, y), padded, strict=True))
    return a, b, shape


def _affine(call: Call, x: Data, factor: Any, amount: Any) -> Data:
    """x * factor or x + amount; joins a linear operation before it that nothing else reads."""
    constant = factor if factor is not None else amount
    if constant.size == 1 and broadcast(x.shape, constant.shape) == x.shape:
        number = float(constant.reshape(-1)[0])
        neutral = number == (1.0 if factor is not None else 0.0)
        if neutral and np.isfinite(number):
            return x
    merged = absorb(call, x, factor, amount) if call.alone(x) else None
    if merged is not None:
        return merged
    if constant.size == 1 and broadcast(x.shape, constant.shape) == x.shape:
        if factor is not None:
            return scaled(call, x, number)
        return shifted(call, x, number)
    position, fitted, shape = _fitted(call, x, constant)
    op = Scale(call.tensor(fitted)) if factor is not None else Shift(call.tensor(fitted))
    return call.put(op, position, shape=shape, kind=x.kind)


def _fitted(call: Call, x: Data, constant: Any) -> tuple[int, Any, tuple[int, ...]]:
    """A position and a constant that broadcast as ONNX says, the batch in front of both."""
    shape = broadcast(x.shape, constant.shape)
    rank = len(shape)
    full = (1,) * (rank - x.rank) + x.shape
    lead = 1 if rank >= 2 and shape[0] == 1 else 0
    constant = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    if lead:
        constant = constant[0]
    return call.at(x, full[lead:] or (1,)), constant[None], shape


def _numbers(value: Any) -> Any:
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "biu" else array


def _joint(x: Data, y: Data) -> str:
    return x.kind if x.kind == y.kind else "f"


def _constants(x: Value, y: Value) -> bool:
    return not isinstance(x, Data) and not isinstance(y, Data)
