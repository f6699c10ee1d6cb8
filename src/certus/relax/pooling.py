"""Linear relaxation of max pooling, for any kernel, stride and padding in 1, 2 or 3 dimensions."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from certus.graph.activation import MaxPool
from certus.relax.extremum import largest
from certus.relax.lines import Interval, Relaxation, relaxations
from certus.threats.box import inner


@dataclass(frozen=True, eq=False)
class Windowed(Relaxation):
    """Per window: sum_i lower_i x_i <= max_i x_i <= sum_i upper_i x_i + offset.

    lower and upper are [B, C, kernel elements, *out]; offset is [B, C, *out]; size is the input's.
    """

    op: MaxPool
    lower: Tensor
    upper: Tensor
    offset: Tensor
    size: tuple[int, ...]

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Spread each coefficient over its window; overlapping windows add up."""
        above, below = rows.clamp(min=0), rows.clamp(max=0)

        def pieces() -> Iterator[Tensor]:
            for lower, upper in zip(self.lower.unbind(2), self.upper.unbind(2), strict=True):
                yield above * lower + below * upper

        return (self.op.spread(pieces(), self.size),), inner(below, self.offset)


@relaxations.register(MaxPool)
def max_pool(op: MaxPool, interval: Interval) -> Windowed:
    """The planes of `largest` in each window; what lies outside the input does not count."""
    shape = op.forward(interval[0]).shape
    low, high = (op.windows(x, float("-inf")) for x in interval)
    below, slope, offset = largest(low, high, 2)
    below, slope = (x.unflatten(3, shape[2:]) for x in (below, slope))
    return Windowed(op, below, slope, offset.reshape(shape), tuple(interval[0].shape[2:]))
