"""ATen arithmetic of one or two tensors, of which some may be constants."""

import math
from typing import Any

import torch
from torch import fx

from certus.graph import affine, composite, conversion
from certus.graph.activation import Relu
from certus.graph.builders import Arguments, Unsupported, builds
from certus.graph.expression import Expression
from certus.graph.powers import Exp, Power, Reciprocal, Sqrt
from certus.graph.structural import Reshape
from certus.graph.whole import FloorDivide


def operand(a: Arguments, name: str) -> Any:
    """A constant operand, checked against the batch; a number becomes a tensor."""
    value = a.constant(name)
    a.broadcasts(value)
    return value


def widened(a: Arguments, x: int) -> int:
    """x with leading dimensions of size one, as many as the result has."""
    missing = len(a.canonical()) - len(a.shape(x))
    return a.add(Reshape((1,) * missing + a.shape(x)), x) if missing > 0 else x


def scaled(a: Arguments, x: int, factor: float) -> int:
    """x * factor for a number."""
    return x if factor == 1 else a.add(affine.Scale(a.value(factor)), x)


def shifted(a: Arguments, x: int, amount: float) -> int:
    """x + amount for a number."""
    return x if amount == 0 else a.add(affine.Shift(a.value(amount)), x)


def plus(a: Arguments, x: int, value: Any, factor: float = 1.0) -> int:
    """x + factor * value for a position x of the result's shape and any operand."""
    if factor == 0:
        return x
    if a.is_data(value):
        return a.add(affine.Sum(factor), *a.pair(x, a.at(value)))
    constant = a.value(value)
    a.broadcasts(constant)
    now = constant.evaluate() if isinstance(constant, Expression) else constant
    if now.is_floating_point() and bool(torch.isinf(now).any()):  # an attention mask
        return composite.plus(a.scope.builder, widened(a, x), factor * now.detach(), a.source)
    return a.add(affine.Shift(constant, factor), widened(a, x))


@builds("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", anywhere=True)
def _add(a: Arguments) -> int:
    factor = float(1 if a["alpha"] is None else a["alpha"])
    factor = -factor if a.target.startswith("sub") else factor
    return _sum(a, a["self"], a["other"], factor)


@builds("rsub.Tensor", "rsub.Scalar", anywhere=True)
def _rsub(a: Arguments) -> int:
    return _sum(a, a["other"], a["self"], -float(1 if a["alpha"] is None else a["alpha"]))


def _sum(a: Arguments, left: Any, right: Any, factor: float) -> int:
    a.aligned(left, right)
    if a.is_data(left):
        return plus(a, a.at(left), right, factor)
    return plus(a, scaled(a, a.at(right), factor), left)


@builds("mul.Tensor", "mul.Scalar", anywhere=True)
def _mul(a: Arguments) -> int:
    left, right = a["self"], a["other"]
    if a.is_data(left) and a.is_data(right):
        a.aligned(left, right)
        rectified = _rectified(left, right) or _rectified(right, left)
        if rectified is not None:
            return rectify(a, a.at(rectified))
        return composite.multiply(a.scope.builder, a.at(left), a.at(right), a.source)
    data, name = (left, "other") if a.is_data(left) else (right, "self")
    return a.add(affine.Scale(operand(a, name)), widened(a, a.at(data)))


def _rectified(sign: fx.Node, size: fx.Node) -> fx.Node | None:
    """t where the product is sign(t) * relu(|t|) of a t >= 0, as torch's lp_pool spells it."""
    t = sign.args[0] if str(sign.target) == "aten.sign.default" else None
    inner = size.args[0] if str(size.target) == "aten.relu.default" else None
    if not isinstance(inner, fx.Node) or str(inner.target) != "aten.abs.default":
        return None
    same = inner.args[0] is t and nonnegative(t)
    return t if same and isinstance(t, fx.Node) else None


def rectify(a: Arguments, x: int) -> int:
    """max(x, 0) of an x that is >= 0: the same value, with bounds inside the domain of a root."""
    return a.add(Relu(), x)


_KEEP_SIGN = (
    *("aten.mean.", "aten.sum.", "aten.avg_pool", "aten.view.", "aten.reshape.", "aten.flatten."),
    *("aten.permute.", "aten.transpose.", "aten.expand.", "aten.unsqueeze.", "aten.squeeze."),
)
_NOT_NEGATIVE = (
    *("aten.relu.", "aten.abs.", "aten.square.", "aten.exp.", "aten.sigmoid.", "aten.softplus."),
    *("aten.softmax.", "aten.linalg_vector_norm.", "aten.var."),
)


def nonnegative(node: Any) -> bool:
    """Whether a value cannot be negative, by the operations that lead to it."""
    if isinstance(node, int | float):
        return node >= 0
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    target, args = str(node.target), node.args
    even = target.startswith("aten.pow.Tensor_Scalar") and args[1] % 2 == 0  # type: ignore[operator]
    squared = target.startswith("aten.mul.") and args[0] is args[1]
    if even or squared or target.startswith(_NOT_NEGATIVE):
        return True
    if target.startswith(("aten.mul.", "aten.add.T", "aten.add.S")) and not node.kwargs:
        return all(nonnegative(arg) for arg in args[:2])
    return target.startswith(_KEEP_SIGN) and nonnegative(args[0])


@builds("div.Tensor", "div.Scalar", "div.Tensor_mode", "true_divide.Tensor", anywhere=True)
def _div(a: Arguments) -> int:
    if a["rounding_mode"] == "floor":
        return _floor_division(a)
    found = _quotient(a, a["self"], a["other"])
    if a["rounding_mode"] is None:
        return found
    return conversion.truncated(a.scope.builder, found, a.source)


def _floor_division(a: Arguments) -> int:
    """x // c for a constant c that cannot change; x // -c is -x // c."""
    if a.is_data(a["other"]) or not a.is_data(a["self"]):
        raise Unsupported("a floor division by a value that depends on the input")
    divisor = a.fixed(a["other"])
    a.broadcasts(divisor)
    if not bool((divisor > 0).all() or (divisor < 0).all()):
        raise Unsupported("a floor division by numbers of both signs or by zero")
    x = widened(a, a.at(a["self"]))
    x = scaled(a, x, -1.0) if bool((divisor < 0).any()) else x
    return a.add(FloorDivide(divisor.abs().to(a.scope.builder.like)), x)


def _quotient(a: Arguments, left: Any, right: Any) -> int:
    if not a.is_data(right):
        divisor = operand(a, "other")
        return a.add(affine.Scale(divisor, divide=True), widened(a, a.at(left)))
    a.aligned(left, right)
    if a.is_data(left):
        return composite.div(a.scope.builder, a.at(left), a.at(right), a.source)
    inverse = a.add(Reciprocal(), a.at(right))
    return a.add(affine.Scale(operand(a, "self")), widened(a, inverse))


@builds("neg.default", anywhere=True)
def _neg(a: Arguments) -> int:
    return scaled(a, a.x(), -1.0)


@builds("square.default", anywhere=True)
def _square(a: Arguments) -> int:
    return a.add(Power(2.0), a.x())


@builds("sqrt.default", anywhere=True)
def _sqrt(a: Arguments) -> int:
    return a.add(Sqrt(), root_argument(a))


@builds("rsqrt.default", anywhere=True)
def _rsqrt(a: Arguments) -> int:
    return a.add(Power(-0.5), a.x())


def root_argument(a: Arguments) -> int:
    """The argument of a root; rounding of bounds below zero is cut off where it cannot be negative."""
    return rectify(a, a.x()) if nonnegative(a["self"]) else a.x()


@builds("pow.Tensor_Scalar", "pow.Tensor_Tensor", anywhere=True)
def _pow(a: Arguments) -> int:
    if not a.is_data(a["self"]):
        return _exponential(a)
    exponent = a.number(a["exponent"])
    if exponent == 0:
        return shifted(a, scaled(a, a.x(), 0.0), 1.0)
    if exponent == 1:
        return a.x()
    if exponent == 0.5:
        return a.add(Sqrt(), root_argument(a))
    if exponent == -1:
        return a.add(Reciprocal(), a.x())
    whole = float(exponent).is_integer()
    return a.add(Power(exponent), a.x() if whole else root_argument(a))


@builds("pow.Scalar", anywhere=True)
def _exponential(a: Arguments) -> int:
    base = a.number(a["self"])
    if base <= 0:
        raise Unsupported(f"a power of {base}")
    return a.add(Exp(), scaled(a, a.x("exponent"), math.log(base)))
