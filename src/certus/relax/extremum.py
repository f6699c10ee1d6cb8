"""Intervals and planes for largest values, norms and the position of the largest value."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph.extremum import ArgMax, Maximum, Norm, ReduceMax
from certus.graph.op import Shape
from certus.relax.bilinear import onto
from certus.relax.interval import intervals
from certus.relax.lines import Interval, Relaxation, relaxations
from certus.relax.reduction import Reduction
from certus.threats.box import inner

_UP = 0.35  # share of the way from the lower to the upper bound


def largest(low: Tensor, high: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Planes for max_i x_i along one dimension: below sum b_i x_i, above sum a_i x_i + c; (b, a, c).

    Below, the element that is largest a little below its centre, which gave the tightest bounds of
    pooling networks among lower ends, centres and points between. Above, for any t >= every lower bound,
    max_i x_i <= t + sum_i relu(x_i - t) <= t + sum_i chord_i. At the centre of the box this is
    smallest for all t between the third and the second largest upper bound (or the largest lower
    bound, where that is more), and their mean is taken: each further element in reach adds half of
    u_i - t. c has size one along dim; elements with bounds of minus infinity do not count.
    """
    floor = low.amax(dim, keepdim=True)
    best = ((1 - _UP) * low + _UP * high).argmax(dim, keepdim=True)
    below = torch.zeros_like(low).scatter(dim, best, 1.0)
    top = high.topk(min(3, high.shape[dim]), dim).values
    ends = [torch.maximum(floor, top.narrow(dim, k, 1)) for k in range(1, top.shape[dim])]
    ends += [floor] * (2 - len(ends))
    level = (ends[0] + ends[1]) / 2
    reach = high > level
    width = torch.where(reach, high - low, torch.ones_like(low))
    slope = torch.where(reach, (high - level) / width, torch.zeros_like(low)).clamp(max=1.0)
    start = torch.where(reach, low, torch.zeros_like(low))
    return below, slope, level - (slope * start).sum(dim, keepdim=True)


@dataclass(frozen=True, eq=False)
class Pair(Relaxation):
    """The same for two inputs: all tensors are [B, *out]."""

    x_lower: Tensor
    y_lower: Tensor
    x_upper: Tensor
    y_upper: Tensor
    upper_offset: Tensor
    shapes: tuple[Shape, Shape]

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Coefficients >= 0 take the lower plane, the others the upper one."""
        above, below = rows.clamp(min=0), rows.clamp(max=0)
        x = above * self.x_lower + below * self.x_upper
        y = above * self.y_lower + below * self.y_upper
        return (onto(x, self.shapes[0]), onto(y, self.shapes[1])), inner(below, self.upper_offset)


@relaxations.register(Maximum)
def maximum(op: Maximum, x: Interval, y: Interval) -> Pair:
    """`largest` of two."""
    low = torch.stack(torch.broadcast_tensors(x[0], y[0]))
    high = torch.stack(torch.broadcast_tensors(x[1], y[1]))
    below, slope, offset = largest(low, high, 0)
    shapes = (tuple(x[0].shape[1:]), tuple(y[0].shape[1:]))
    return Pair(below[0], below[1], slope[0], slope[1], offset[0], shapes)


@relaxations.register(ReduceMax)
def reduce_max(op: ReduceMax, interval: Interval) -> Reduction:
    """`largest` along the dimensions, joined to one."""
    low, high = (_joined(x, op.dims) for x in interval)
    below, slope, offset = largest(low, high, -1)
    below, slope = (_parted(x, interval[0], op.dims) for x in (below, slope))
    offset = offset.reshape(_kept(interval[0], op.dims))
    return Reduction(below, torch.zeros_like(offset), slope, offset)


@intervals.register(Norm)
def norm_range(op: Norm, interval: Interval) -> Interval:
    """Exact: the norms of the smallest and of the largest absolute values."""
    low, high = _absolute(*interval)
    return op.forward(low), op.forward(high)


@relaxations.register(Norm)
def norm(op: Norm, interval: Interval) -> Reduction:
    """Below the tangent at the centre; above by chords of |x| or x^2.

    p = 2: the root of the sum of chords of x^2 is concave, and its tangent lies above.
    """
    low, high = interval
    lower = _tangent(op, (low + high) / 2)
    zero = lower.new_zeros(_kept(low, op.dims))
    if op.p == 2:
        slope = low + high  # of the chords of x^2, whose values at zero are -l u
        square = ((low.square() + high.square()) / 2).sum(op.dims, keepdim=True)
        root = square.sqrt()
        twice = torch.where(root > 0, 2 * root, torch.ones_like(root))
        start = root + (-(low * high).sum(op.dims, keepdim=True) - square) / twice
        return Reduction(lower, zero, slope / twice, start)
    size = high.abs() - low.abs()
    wide = high - low > torch.finfo(low.dtype).tiny
    slope = size / torch.where(wide, high - low, torch.ones_like(low))
    height = torch.maximum(low.abs() - slope * low, high.abs() - slope * high)
    if op.p == 1:
        return Reduction(lower, zero, slope, height.sum(op.dims, keepdim=True))
    least, most = (_joined(x, op.dims) for x in _absolute(low, high))
    _, share, offset = largest(least, most, -1)
    share, offset = _parted(share, low, op.dims), offset.reshape(_kept(low, op.dims))
    offset = offset + (share * height).sum(op.dims, keepdim=True)
    return Reduction(lower, zero, share * slope, offset)


@intervals.register(ArgMax)
def arg_max_range(op: ArgMax, interval: Interval) -> Interval:
    """First and last position whose upper bound reaches the largest lower bound; NaN if none does."""
    low, high = interval
    wins = high >= low.amax(op.dim, keepdim=True)
    shape = [1] * low.ndim
    shape[op.dim] = -1
    places = torch.arange(low.shape[op.dim], dtype=low.dtype, device=low.device).view(shape)
    first = torch.where(wins, places, float("inf")).amin(op.dim, keepdim=op.keepdim)
    last = torch.where(wins, places, float("-inf")).amax(op.dim, keepdim=op.keepdim)
    none = ~wins.any(op.dim, keepdim=op.keepdim)
    return first.masked_fill(none, float("nan")), last.masked_fill(none, float("nan"))


@relaxations.register(ArgMax)
def arg_max(op: ArgMax, interval: Interval) -> Reduction:
    """Constants: the interval."""
    first, last = arg_max_range(op, interval)
    if not op.keepdim:
        first, last = first.unsqueeze(op.dim), last.unsqueeze(op.dim)
    zero = torch.zeros_like(interval[0])
    return Reduction(zero, first, zero, last)


def _absolute(low: Tensor, high: Tensor) -> Interval:
    """The range of |x|."""
    return low.clamp(min=0) - high.clamp(max=0), torch.maximum(low.abs(), high.abs())


def _tangent(op: Norm, middle: Tensor) -> Tensor:
    """A subgradient of the norm, which is homogeneous: the tangent has no offset."""
    if op.p == 1:
        return middle.sign()
    if op.p == 2:
        size = torch.linalg.vector_norm(middle, 2, op.dims, True)
        return middle / torch.where(size > 0, size, torch.ones_like(size))
    flat = _joined(middle, op.dims)
    best = flat.abs().argmax(-1, keepdim=True)
    chosen = torch.zeros_like(flat).scatter(-1, best, 1.0)
    return _parted(chosen, middle, op.dims) * middle.sign()


def _joined(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The dimensions moved to the end and joined to one."""
    return x.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims))


def _parted(x: Tensor, like: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Undo `_joined`."""
    sizes = [like.shape[d] for d in dims]
    return x.unflatten(-1, sizes).movedim(tuple(range(-len(dims), 0)), dims)


def _kept(like: Tensor, dims: tuple[int, ...]) -> list[int]:
    """The shape with the reduced dimensions of size one."""
    return [1 if d in dims else s for d, s in enumerate(like.shape)]
