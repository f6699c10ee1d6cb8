"""Changes of type spelled out in operations that have bounds; both importers write them through here."""

from certus.graph.activation import Relu
from certus.graph.affine import Sum
from certus.graph.builder import Builder
from certus.graph.composite import negative
from certus.graph.piecewise import Floor, Step
from certus.graph.whole import LIMITS, Fits


def truncated(b: Builder, x: int, source: str = "") -> int:
    """x rounded towards zero: floor(relu(x)) - floor(relu(-x))."""
    up = b.add(Floor(), b.add(Relu(), x, source=source), source=source)
    down = b.add(Relu(), negative(b, x, source), source=source)
    return b.add(Sum(-1.0), up, b.add(Floor(), down, source=source), source=source)


def held(b: Builder, x: int, kind: str, source: str = "") -> int:
    """A whole number in a type such as int8, NaN where it would wrap around."""
    return b.add(Fits(*LIMITS[kind]), x, source=source)


def not_zero(b: Builder, x: int, source: str = "") -> int:
    """1 where x differs from zero: [x > 0] + [-x > 0]."""
    below = b.add(Step(), negative(b, x, source), source=source)
    return b.add(Sum(), b.add(Step(), x, source=source), below, source=source)
