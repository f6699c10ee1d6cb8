"""Functions of one value in arbitrary precision, written from their definitions."""

from collections.abc import Callable
from typing import Any

import mpmath as mp

from certus.graph import activation, gated, inverse, periodic, piecewise, powers, smooth


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


def _gelu(op: Any, x: Any) -> Any:
    if op.tanh:
        return x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))
    return x / 2 * mp.erfc(-x / mp.sqrt(2))


def _softplus(op: Any, x: Any) -> Any:
    if op.beta * x > op.threshold:
        return x
    return max(x, mp.mpf(0)) + mp.log1p(mp.exp(-abs(op.beta * x))) / op.beta


def _elu(op: Any, x: Any) -> Any:
    return op.scale * (x if x > 0 else op.alpha * mp.expm1(x))


# class -> (operation, x) -> f(x)
TRUTH: dict[type, Callable[[Any, Any], Any]] = {
    activation.Sigmoid: lambda op, x: _sigmoid(x),
    activation.Tanh: lambda op, x: mp.tanh(x),
    activation.LeakyRelu: lambda op, x: x if x > 0 else op.slope * x,
    piecewise.Prelu: lambda op, x: x if x > 0 else float(op.weight) * x,
    gated.Gelu: _gelu,
    gated.Silu: lambda op, x: x * _sigmoid(x),
    gated.Mish: lambda op, x: x * mp.tanh(mp.log1p(mp.exp(x))) if x < 200 else x,
    gated.HardSwish: lambda op, x: x * min(max(x + 3, mp.mpf(0)), mp.mpf(6)) / 6,
    smooth.Elu: _elu,
    smooth.Celu: lambda op, x: x if x > 0 else op.alpha * mp.expm1(x / op.alpha),
    smooth.Softplus: _softplus,
    smooth.LogSigmoid: lambda op, x: min(x, mp.mpf(0)) - mp.log1p(mp.exp(-abs(x))),
    smooth.Softsign: lambda op, x: x / (1 + abs(x)),
    smooth.Erf: lambda op, x: mp.erf(x),
    smooth.Atan: lambda op, x: mp.atan(x),
    inverse.Asinh: lambda op, x: mp.asinh(x),
    inverse.Acosh: lambda op, x: mp.acosh(x) if x >= 1 else mp.nan,
    inverse.Atanh: lambda op, x: mp.atanh(x) if abs(x) < 1 else mp.nan,
    inverse.Asin: lambda op, x: mp.asin(x) if abs(x) <= 1 else mp.nan,
    powers.Exp: lambda op, x: mp.exp(x),
    powers.Log: lambda op, x: mp.log(x),
    powers.Sqrt: lambda op, x: mp.sqrt(x),
    powers.Reciprocal: lambda op, x: 1 / x,
    powers.Power: lambda op, x: (
        x ** int(op.exponent) if op.exponent == int(op.exponent) else x**op.exponent
    ),
    periodic.Sin: lambda op, x: mp.sin(x),
    periodic.Cos: lambda op, x: mp.cos(x),
    periodic.Tan: lambda op, x: mp.tan(x),
}
