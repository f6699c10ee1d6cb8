"""Intervals and planes for softmax and log-sum-exp.

Softmax, above: log p_i is concave, and exp is below its chord between the ends of log p_i (Wei et al.
2023, Convex Bounds on the Softmax Function, upper bound LSE). Below: with chords of exp(x_j - x_k)
under the fraction, p_i = exp(x_i - x_k) / sum_j exp(x_j - x_k) is at least a convex function, which is
above its tangent (there: lower bound LSE, with the pivot k where LSE*). All tangents are taken at the
centre m, and their Jacobians are a diagonal less a rank of one, so that pulling rows takes no matrix.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from certus.graph.softmax import LogSumExp, Softmax
from certus.relax.interval import intervals
from certus.relax.lines import Interval, Relaxation, relaxations
from certus.relax.reduction import Reduction

_BLUR = 2.0**-10  # scores beyond 2^13 in float32


@dataclass(frozen=True, eq=False)
class Shares(Relaxation):
    """Planes with gradients plain_i (e_i - a) + pivot_i (e_i - b) below, above_i (e_i - p) above.

    Of plain_i and pivot_i one is zero. All fields are [B, *others, K], the softmax dimension last.
    """

    plain: Tensor
    plain_mix: Tensor  # a
    pivot: Tensor
    pivot_mix: Tensor  # b
    lower_offset: Tensor
    above: Tensor
    above_mix: Tensor  # p
    upper_offset: Tensor
    dim: int

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Each coefficient goes to its own element and, shared out by the mix, to all.

        What is shared out are sums of few kinds: products with narrow matrices, [n, K] [K, R].
        """
        rows = rows.movedim(self.dim + 1, -1).movedim(0, -2).contiguous()  # [B, *others, R, K]
        high = rows.clamp(min=0)
        low = rows - high
        up = torch.stack([self.plain, self.pivot, self.lower_offset], -2) @ high.mT
        down = torch.stack([self.above, self.upper_offset], -2) @ low.mT
        shared = torch.cat([up[..., :2, :], down[..., :1, :]], -2).mT
        mixes = torch.stack([self.plain_mix, self.pivot_mix, self.above_mix], -2)
        own = high * (self.plain + self.pivot).unsqueeze(-2)
        pulled = torch.addcmul(own, low, self.above.unsqueeze(-2)) - shared @ mixes
        offset = up[..., 2, :] + down[..., 1, :]
        offset = offset.reshape(len(offset), -1, offset.shape[-1]).sum(1).T
        return (pulled.movedim(-2, 0).movedim(-1, self.dim + 1),), offset


@intervals.register(Softmax)
def softmax_range(op: Softmax, interval: Interval) -> Interval:
    """Exact for each element: its own end against the other ends of all others."""
    low, high = _log_range(*(x.movedim(op.dim, -1) for x in interval))
    return low.exp().movedim(-1, op.dim), high.exp().movedim(-1, op.dim)


@relaxations.register(Softmax)
def softmax(op: Softmax, interval: Interval) -> Shares:
    """Below the better of the two tangents at the centre, element by element.

    Planes over scores so large that rounding blurs them are constants: the ends of the interval.
    """
    low, high = (x.movedim(op.dim, -1) for x in interval)
    middle = low / 2 + high / 2  # the sum may overflow
    first, last = _log_range(low, high)
    least, most = first.exp(), last.exp()
    blurred = _blurred(low, high, most)
    slope, mix = most * _mean_exp(last - first), middle.softmax(-1)
    upper = least + slope * (middle.log_softmax(-1) - first)
    log_sum, plain_mix = _chords(low, high)
    plain = (middle - log_sum).exp()
    log_sum, pivot_mix = _pivoted(low, high)
    pivot = (middle - log_sum).exp()
    better = pivot > plain
    value = torch.where(better, pivot, plain)
    plain, pivot = plain.masked_fill(better, 0.0), pivot.masked_fill(~better, 0.0)
    linear = plain * _from(plain_mix, middle) + pivot * _from(pivot_mix, middle)
    below = torch.where(blurred, least, value - linear)
    above = torch.where(blurred, most, upper - slope * _from(mix, middle))
    plain, plain_mix, pivot, pivot_mix, slope, mix = (
        x.masked_fill(blurred, 0.0) for x in (plain, plain_mix, pivot, pivot_mix, slope, mix)
    )
    return Shares(plain, plain_mix, pivot, pivot_mix, below, slope, mix, above, dim=op.dim)


@relaxations.register(LogSumExp)
def log_sum_exp(op: LogSumExp, interval: Interval) -> Reduction:
    """Below the tangent at the centre; above the tangent of the log of the sum of chords of exp.

    Above, the chords are those of exp(x_j), or those of exp(x_j - x_k) and x_k is added.
    """
    low, high = (x.movedim(op.dim, -1) for x in interval)
    middle = low / 2 + high / 2  # the sum may overflow
    share = middle.softmax(-1)
    below = middle.logsumexp(-1, keepdim=True) - (share * middle).sum(-1, keepdim=True)
    plain, mix = _chords(low, high)
    pivot, pivot_mix = _pivoted(low, high)
    mix = torch.where(pivot < plain, pivot_mix, mix)
    above = torch.minimum(pivot, plain) - (mix * middle).sum(-1, keepdim=True)
    fields = (x.movedim(-1, op.dim) for x in (share, below, mix, above))
    return Reduction(*fields)


def _blurred(low: Tensor, high: Tensor, most: Tensor) -> Tensor:
    """Rows [..., 1] in which a unit in the last place of a score that has any weight is not small."""
    size = torch.maximum(low.abs(), high.abs()).masked_fill(most == 0, 0.0).amax(-1, keepdim=True)
    return size * torch.finfo(low.dtype).eps > _BLUR


def _from(mix: Tensor, middle: Tensor) -> Tensor:
    """(e_i - mix) . middle for every i."""
    return middle - (mix * middle).sum(-1, keepdim=True)


def _log_range(low: Tensor, high: Tensor) -> Interval:
    """Smallest and largest log softmax over the last dimension."""
    return logsigmoid(low - _others(high)), logsigmoid(high - _others(low))


def _others(x: Tensor) -> Tensor:
    """log sum_{j != i} exp(x_j) without cancellation.

    Where i is not the largest, exp(x_i) is at most half of the whole sum; for the largest, the rest is
    summed apart.
    """
    top, place = x.max(-1, keepdim=True)
    share = (x - top).exp()
    others = (share.sum(-1, keepdim=True) - share).scatter(-1, place, 1.0).log() + top
    rest = x.scatter(-1, place, float("-inf")).logsumexp(-1, keepdim=True)
    return others.scatter(-1, place, rest)


def _mean_exp(width: Tensor) -> Tensor:
    """(1 - exp(-w)) / w: the slope of exp's chord over an interval of width w, by its upper end."""
    wide = width > torch.finfo(width.dtype).eps
    safe = torch.where(wide, width, torch.ones_like(width))
    return torch.where(wide, -torch.expm1(-safe) / safe, 1 - width / 2)


def _chords(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """S(x) = sum of chords of exp: log S at the centre [..., 1] and the gradient of log S there."""
    top = high.amax(-1, keepdim=True)
    first, last = (low - top).exp(), (high - top).exp()
    total = ((first + last) / 2).sum(-1, keepdim=True)
    return total.log() + top, last * _mean_exp(high - low) / total


def _pivoted(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The same for x_k + log of the sum of chords of exp(x_j - x_k), k the largest at the centre."""
    middle = low / 2 + high / 2  # the sum may overflow
    pivot = middle.argmax(-1, keepdim=True)
    below = (low - high.gather(-1, pivot)).scatter(-1, pivot, 0.0)
    above = (high - low.gather(-1, pivot)).scatter(-1, pivot, 0.0)
    log_sum, mix = _chords(below, above)
    mix = mix.scatter(-1, pivot, 0.0)
    mix = mix.scatter(-1, pivot, 1 - mix.sum(-1, keepdim=True))
    return log_sum + middle.gather(-1, pivot), mix
