"""Functions of one value, entry by entry."""

import math
from collections.abc import Callable

from certus.graph import activation, division, inverse, piecewise, powers, smooth
from certus.graph.affine import Scale, Shift, Sum
from certus.graph.bilinear import Mul
from certus.graph.onnx.table import Call, Unsupported, broadcast, builds
from certus.graph.onnx.values import Data
from certus.graph.op import Op
from certus.graph.periodic import Cos, Sin, Tan

_LARGE = 3e38  # exporters write float32's limits where they mean no limit

_PLAIN: dict[str, Callable[[], Op]] = {
    "Relu": activation.Relu,
    "Sigmoid": activation.Sigmoid,
    "Tanh": activation.Tanh,
    "Softsign": smooth.Softsign,
    "Erf": smooth.Erf,
    "Atan": smooth.Atan,
    "Mish": smooth.Mish,
    "HardSwish": smooth.HardSwish,
    "Softplus": smooth.Softplus,
    "Abs": piecewise.Abs,
    "Exp": powers.Exp,
    "Log": powers.Log,
    "Sqrt": powers.Sqrt,
    "Reciprocal": powers.Reciprocal,
    "Sin": Sin,
    "Cos": Cos,
    "Tan": Tan,
    "Asin": inverse.Asin,
    "Asinh": inverse.Asinh,
    "Acosh": inverse.Acosh,
    "Atanh": inverse.Atanh,
}
_STAIRS: dict[str, Callable[[], Op]] = {
    "Sign": piecewise.Sign,
    "Floor": piecewise.Floor,
    "Ceil": piecewise.Ceil,
    "Round": piecewise.Round,
}


@builds(*_PLAIN)
def _plain(call: Call) -> Data:
    return call.same(_PLAIN[call.node.op](), call.data())


@builds("Acos")
def _acos(call: Call) -> Data:
    return shifted(call, scaled(call, call.same(inverse.Asin(), call.data()), -1.0), math.pi / 2)


@builds("Sinh", "Cosh")
def _hyperbolic(call: Call) -> Data:
    x, sign = call.data(), 1.0 if call.node.op == "Cosh" else -1.0
    up, down = (call.same(powers.Exp(), scaled(call, x, s)) for s in (1.0, -1.0))
    total = call.put(Sum(sign), up.position, down.position, shape=x.shape)
    return scaled(call, total, 0.5)


@builds("Mod")
def _mod(call: Call) -> Data:
    """C's fmod; without the attribute ONNX divides whole numbers alone."""
    if not call.attribute("fmod", 0):
        raise Unsupported("on numbers that are not whole")
    divisor = call.number(1)
    assert divisor is not None
    x = call.data()
    position = division.fmod(call.writer, x.position, call.tensor(divisor))
    return Data(position, x.shape, x.kind)


@builds(*_STAIRS)
def _stairs(call: Call) -> Data:
    x = call.data()
    if x.kind != "f" and call.node.op != "Sign":
        return x  # whole numbers stay where they are
    return call.same(_STAIRS[call.node.op](), x, x.kind)


@builds("Identity", "Dropout")
def _identity(call: Call) -> Data:
    training = call.array(2)
    if call.node.op == "Dropout" and training is not None and bool(training.all()):
        raise Unsupported("dropout in training mode")
    return call.data()


@builds("Neg")
def _neg(call: Call) -> Data:
    return scaled(call, call.data(), -1.0)


def scaled(call: Call, x: Data, factor: float) -> Data:
    """x times a number; two in a row become one, and one that undoes another disappears."""
    writer, position = call.writer, x.position
    op = writer.op(position)
    if isinstance(op, Scale) and op.factor.numel() == 1 and not op.divide:
        factor, position = factor * float(op.factor), writer.inputs(position)[0]
    if factor == 1.0 and writer.shape(position) == writer.shape(x.position):
        return Data(position, x.shape, x.kind)
    return call.put(Scale(call.tensor(factor)), position, shape=x.shape, kind=x.kind)


def shifted(call: Call, x: Data, amount: float) -> Data:
    """x plus a number."""
    return x if amount == 0 else call.same(Shift(call.tensor(amount)), x, x.kind)


@builds("LeakyRelu")
def _leaky(call: Call) -> Data:
    slope = float(call.attribute("alpha", 0.01))
    if 0 <= slope <= 1:
        return call.same(activation.LeakyRelu(slope), call.data())
    return call.same(piecewise.Prelu(call.tensor(slope)), call.data())


@builds("PRelu")
def _prelu(call: Call) -> Data:
    x, slope = call.data(), call.array(1)
    if slope.size == 1:
        return call.same(piecewise.Prelu(call.tensor(slope.reshape(()))), x)
    if broadcast(x.shape, slope.shape) != x.shape:
        raise Unsupported("a slope that does not broadcast to the value")
    full = slope.reshape((1,) * (x.rank - slope.ndim) + slope.shape)
    position = call.at(x, x.shape)
    return call.put(piecewise.Prelu(call.tensor(full[None])), position, shape=x.shape)


@builds("Elu")
def _elu(call: Call) -> Data:
    return call.same(smooth.Elu(float(call.attribute("alpha", 1.0))), call.data())


@builds("Selu")
def _selu(call: Call) -> Data:
    alpha = float(call.attribute("alpha", 1.67326319217681884765625))
    scale = float(call.attribute("gamma", 1.05070102214813232421875))
    return call.same(smooth.Elu(alpha, scale), call.data())


@builds("Celu")
def _celu(call: Call) -> Data:
    return call.same(smooth.Celu(float(call.attribute("alpha", 1.0))), call.data())


@builds("Gelu")
def _gelu(call: Call) -> Data:
    return call.same(smooth.Gelu(call.attribute("approximate", "none") == "tanh"), call.data())


@builds("Swish")
def _swish(call: Call) -> Data:
    alpha = float(call.attribute("alpha", 1.0))
    if alpha == 1.0:
        return call.same(smooth.Silu(), call.data())
    inner = call.same(smooth.Silu(), scaled(call, call.data(), alpha))
    return scaled(call, inner, 1 / alpha)


@builds("HardSigmoid")
def _hard_sigmoid(call: Call) -> Data:
    slope, middle = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    line = shifted(call, scaled(call, call.data(), float(slope)), float(middle))
    return call.same(activation.Clamp(0.0, 1.0), line)


@builds("ThresholdedRelu")
def _thresholded(call: Call) -> Data:
    x = call.data()
    above = shifted(call, x, -float(call.attribute("alpha", 1.0)))
    gate = call.same(piecewise.Step(), above)
    return call.put(Mul(), x.position, gate.position, shape=x.shape)


@builds("Shrink")
def _shrink(call: Call) -> Data:
    bias, limit = float(call.attribute("bias", 0.0)), float(call.attribute("lambd", 0.5))
    if bias != limit:
        raise Unsupported("a shrink that jumps (bias differs from lambd)")
    x = call.data()  # soft shrinking is x less its part within the limits
    inside = call.same(activation.Clamp(-limit, limit), x)
    return call.put(Sum(-1.0), x.position, inside.position, shape=x.shape)


@builds("Clip")
def _clip(call: Call) -> Data:
    return clipped(call, call.data(), call.number(1, "min"), call.number(2, "max"))


def clipped(call: Call, x: Data, low: float | None, high: float | None) -> Data:
    """min(max(x, low), high) with either side open."""
    low = None if low is None or low <= -_LARGE else low
    high = None if high is None or high >= _LARGE else high
    if low is None and high is None:
        return x
    if low == 0 and high is None:
        return call.same(activation.Relu(), x, x.kind)
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    if not least < most:
        raise Unsupported(f"a clip to [{low}, {high}]")
    return call.same(activation.Clamp(least, most), x, x.kind)
