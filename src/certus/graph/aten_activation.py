"""ATen activation functions and other functions of one element."""

import math
from collections.abc import Callable

import torch

from certus.graph import (
    activation,
    affine,
    composite,
    gated,
    inverse,
    periodic,
    piecewise,
    powers,
    smooth,
)
from certus.graph.aten_arithmetic import scaled, shifted
from certus.graph.builders import Arguments, Unsupported, builds, value_shape, viewed
from certus.graph.op import Op
from certus.graph.structural import Slice

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_PLAIN: dict[str, Callable[[], Op]] = {
    "relu": activation.Relu,
    "relu6": lambda: activation.Clamp(0.0, 6.0),
    "sigmoid": activation.Sigmoid,
    "special_expit": activation.Sigmoid,
    "tanh": activation.Tanh,
    "exp": powers.Exp,
    "log": powers.Log,
    "reciprocal": powers.Reciprocal,
    "sin": periodic.Sin,
    "cos": periodic.Cos,
    "tan": periodic.Tan,
    "atan": smooth.Atan,
    "arctan": smooth.Atan,
    "asin": inverse.Asin,
    "asinh": inverse.Asinh,
    "acosh": inverse.Acosh,
    "atanh": inverse.Atanh,
    "erf": smooth.Erf,
    "special_erf": smooth.Erf,
    "abs": piecewise.Abs,
    "sign": piecewise.Sign,
    "sgn": piecewise.Sign,
    "floor": piecewise.Floor,
    "ceil": piecewise.Ceil,
    "round": piecewise.Round,
    "silu": gated.Silu,
    "hardswish": gated.HardSwish,
    "mish": gated.Mish,
    "log_sigmoid": smooth.LogSigmoid,
    "selu": lambda: smooth.Elu(_SELU_ALPHA, _SELU_SCALE),
}


@builds(*(f"{name}.default" for name in _PLAIN), anywhere=True)
def _plain(a: Arguments) -> int:
    return a.add(_PLAIN[a.target.split(".")[0]](), a.x())


@builds("leaky_relu.default", anywhere=True)
def _leaky_relu(a: Arguments) -> int:
    return leaky(a, float(a["negative_slope"]))


@builds("rrelu.default", anywhere=True)
def _rrelu(a: Arguments) -> int:
    if a["training"]:
        raise Unsupported("a random slope in training mode")
    return leaky(a, (float(a["lower"]) + float(a["upper"])) / 2)


def leaky(a: Arguments, slope: float) -> int:
    """Leaky ReLU with any slope."""
    if 0 <= slope <= 1:
        return a.add(activation.LeakyRelu(slope), a.x())
    return a.add(piecewise.Prelu(a.value(slope)), a.x())


@builds("prelu.default")
def _prelu(a: Arguments) -> int:
    weight = a.constant("weight")
    count = torch.Size(value_shape(weight)).numel()
    x, dims = a.x(), a.ndim() - 2
    if count == 1 or dims <= 0:
        return a.add(piecewise.Prelu(weight), x)
    return a.add(piecewise.Prelu(viewed(weight, (1, count, *[1] * dims))), x)


@builds("elu.default", anywhere=True)
def _elu(a: Arguments) -> int:
    inner = float(a["input_scale"])
    if inner != 1:
        raise Unsupported("ELU with an input scale")
    return a.add(smooth.Elu(float(a["alpha"]), float(a["scale"])), a.x())


@builds("celu.default", anywhere=True)
def _celu(a: Arguments) -> int:
    return a.add(smooth.Celu(float(a["alpha"])), a.x())


@builds("gelu.default", anywhere=True)
def _gelu(a: Arguments) -> int:
    return a.add(gated.Gelu(a["approximate"] == "tanh"), a.x())


@builds("softplus.default", anywhere=True)
def _softplus(a: Arguments) -> int:
    return a.add(smooth.Softplus(float(a["beta"]), float(a["threshold"])), a.x())


@builds("hardsigmoid.default", anywhere=True)
def _hardsigmoid(a: Arguments) -> int:
    return composite.hard_sigmoid(a.scope.builder, a.x(), source=a.source)


@builds("hardtanh.default", anywhere=True)
def _hardtanh(a: Arguments) -> int:
    return clamp(a, a.x(), float(a["min_val"]), float(a["max_val"]))


@builds("clamp.default", "clip.default", anywhere=True)
def _clamp(a: Arguments) -> int:
    return clamp(a, a.x(), a["min"], a["max"])


@builds("clamp_min.default", "clamp_max.default", anywhere=True)
def _clamp_side(a: Arguments) -> int:
    return clamp(a, a.x(), a["min"], a["max"])


def clamp(a: Arguments, x: int, low: float | None, high: float | None) -> int:
    """min(max(x, low), high) for any limits; None and infinity limit nothing."""
    least = -math.inf if low is None else float(low)
    most = math.inf if high is None else float(high)
    if least >= most:  # torch gives the upper limit
        return shifted(a, scaled(a, x, 0.0), most)
    if least == 0 and math.isinf(most):
        return a.add(activation.Relu(), x)
    if math.isinf(least) and math.isinf(most):
        return x
    return a.add(activation.Clamp(least, most), x)


@builds("threshold.default", anywhere=True)
def _threshold(a: Arguments) -> int:
    limit, value = float(a["threshold"]), float(a["value"])
    x = a.x()
    if limit == value:
        return clamp(a, x, limit, None)
    over = a.add(piecewise.Step(), shifted(a, x, -limit))
    rest = shifted(a, x, -value)
    return shifted(a, composite.multiply(a.scope.builder, over, rest, a.source), value)


@builds("softshrink.default", anywhere=True)
def _softshrink(a: Arguments) -> int:
    size, x = float(a["lambd"]), a.x()
    above = a.add(activation.Relu(), shifted(a, x, -size))
    below = a.add(activation.Relu(), shifted(a, scaled(a, x, -1.0), -size))
    return a.add(affine.Sum(-1.0), above, below)


@builds("hardshrink.default", anywhere=True)
def _hardshrink(a: Arguments) -> int:
    x = a.x()
    far = shifted(a, a.add(piecewise.Abs(), x), -float(a["lambd"]))
    return composite.multiply(a.scope.builder, x, a.add(piecewise.Step(), far), a.source)


@builds("tanhshrink.default", anywhere=True)
def _tanhshrink(a: Arguments) -> int:
    return a.add(affine.Sum(-1.0), a.x(), a.add(activation.Tanh(), a.x()))


@builds("glu.default")
def _glu(a: Arguments) -> int:
    dim, x = a.dim(a["dim"]), a.x()
    half = a.shape(x)[dim - 1] // 2
    first, gate = a.add(Slice(dim, 0, half), x), a.add(Slice(dim, half, 2 * half), x)
    gate = a.add(activation.Sigmoid(), gate)
    return composite.multiply(a.scope.builder, first, gate, a.source)


_LOGARITHMS = {"log2": math.log(2), "log10": math.log(10)}


@builds("log2.default", "log10.default", "log1p.default", anywhere=True)
def _log(a: Arguments) -> int:
    base = _LOGARITHMS.get(a.target.split(".")[0], 1.0)
    x = shifted(a, a.x(), 1.0) if a.target.startswith("log1p") else a.x()
    return scaled(a, a.add(powers.Log(), x), 1 / base)


@builds("exp2.default", "expm1.default", anywhere=True)
def _exp(a: Arguments) -> int:
    two = a.target.startswith("exp2")
    power = a.add(powers.Exp(), scaled(a, a.x(), math.log(2) if two else 1.0))
    return power if two else shifted(a, power, -1.0)


@builds("acos.default", anywhere=True)
def _acos(a: Arguments) -> int:
    return shifted(a, scaled(a, a.add(inverse.Asin(), a.x()), -1.0), math.pi / 2)


@builds("sinh.default", "cosh.default", anywhere=True)
def _hyperbolic(a: Arguments) -> int:
    sign = 1.0 if a.target.startswith("cosh") else -1.0
    up = a.add(powers.Exp(), a.x())
    down = a.add(powers.Exp(), scaled(a, a.x(), -1.0))
    return scaled(a, a.add(affine.Sum(sign), up, down), 0.5)


@builds("erfc.default", "special_erfc.default", anywhere=True)
def _erfc(a: Arguments) -> int:
    return shifted(a, scaled(a, a.add(smooth.Erf(), a.x()), -1.0), 1.0)
