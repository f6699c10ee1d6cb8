"""ATen functions with jumps: the Heaviside step, rounding, buckets, remainders."""

from certus.graph import conversion, division
from certus.graph.affine import Scale, Shift, Sum
from certus.graph.aten_arithmetic import scaled, widened
from certus.graph.builders import Arguments, Unsupported, builds
from certus.graph.piecewise import Round, Step
from certus.graph.structural import Reduce, Reshape


@builds("heaviside.default", anywhere=True)
def _heaviside(a: Arguments) -> int:
    """v [x >= 0] + (1 - v) [x > 0]."""
    if a.is_data(a["values"]):
        raise Unsupported("a value at zero that depends on the input")
    value, x = a.fixed(a["values"]), widened(a, a.x())
    a.broadcasts(value)
    if bool((value == value.flatten()[0]).all()) and float(value.flatten()[0]) in (0.0, 1.0):
        return a.add(Step(inclusive=bool(value.flatten()[0])), x)
    reached = a.add(Scale(value), a.add(Step(inclusive=True), x))
    return a.add(Sum(), reached, a.add(Scale(1 - value), a.add(Step(), x)))


@builds("trunc.default", "fix.default", anywhere=True)
def _trunc(a: Arguments) -> int:
    return conversion.truncated(a.scope.builder, a.x(), a.source)


@builds("frac.default", anywhere=True)
def _frac(a: Arguments) -> int:
    x = a.x()
    return a.add(Sum(-1.0), x, conversion.truncated(a.scope.builder, x, a.source))


@builds("round.decimals", anywhere=True)
def _round(a: Arguments) -> int:
    """Multiples of 10^-decimals, as torch computes them: the jumps lie where x 10^decimals rounds."""
    unit = 10.0 ** int(a["decimals"] or 0)
    return scaled(a, a.add(Round(), scaled(a, a.x(), unit)), 1 / unit)


@builds("bucketize.Tensor", anywhere=True)
def _bucketize(a: Arguments) -> int:
    """How many boundaries lie below the value (right: or at it)."""
    limits, x = a.fixed(a["boundaries"]).to(a.scope.builder.like), a.x()
    column = a.add(Reshape((*a.shape(x), 1)), x)
    passed = a.add(Step(inclusive=bool(a["right"])), a.add(Shift(limits, -1.0), column))
    return a.add(Reduce((len(a.shape(passed)),), False), passed)


@builds("remainder.Scalar", "remainder.Tensor", "fmod.Scalar", "fmod.Tensor", anywhere=True)
def _remainder(a: Arguments) -> int:
    if a.is_data(a["other"]):
        raise Unsupported("a division by a value that depends on the input")
    divisor = a.fixed(a["other"]).to(a.scope.builder.like)
    a.broadcasts(divisor)
    rest = division.fmod if a.target.startswith("fmod") else division.remainder
    return rest(a.scope.builder, widened(a, a.x()), divisor, a.source)
