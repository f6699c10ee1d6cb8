"""The rounding guard's rule for a softmax that leaves entries out."""

from torch import Tensor

from certus.bounding.rounding import rules
from certus.graph.op import Shape
from certus.graph.softmax import MaskedSoftmax, Softmax
from certus.relax import Interval
from certus.relax.masked import without


@rules.register(MaskedSoftmax)
def masked_softmax(
    op: MaskedSoftmax,
    errors: list[Tensor],
    ranges: list[Interval],
    shapes: list[Shape],
    unit: float,
) -> Tensor:
    """That of the softmax over the rest; errors of what is left out do not count."""
    own = errors[0].masked_fill(~op.keep, 0.0)
    ranges = [without(op, ranges[0])]
    found: Tensor = rules[Softmax](Softmax(op.dim), [own], ranges, shapes, unit)
    return found
