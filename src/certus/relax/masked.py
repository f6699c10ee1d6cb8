"""Intervals and planes for a softmax that leaves entries out: those of the softmax over the rest."""

import torch

from certus.graph.softmax import MaskedSoftmax, Softmax
from certus.relax.interval import intervals
from certus.relax.lines import Interval, relaxations
from certus.relax.softmax import Shares, softmax, softmax_range

_FAR, _FAR_DOUBLE = 200.0, 1000.0  # exp(-far) is zero: in float32 and shorter types, in float64


@intervals.register(MaskedSoftmax)
def masked_range(op: MaskedSoftmax, interval: Interval) -> Interval:
    """Zero for what is left out."""
    return softmax_range(Softmax(op.dim), without(op, interval))


@relaxations.register(MaskedSoftmax)
def masked_softmax(op: MaskedSoftmax, interval: Interval) -> Shares:
    """No coefficient goes to what is left out."""
    return softmax(Softmax(op.dim), without(op, interval))


def without(op: MaskedSoftmax, interval: Interval) -> Interval:
    """The interval with what is left out so far below the rest that its exponential beside it is zero.

    In these formulas exponentials only occur relative to kept entries; each of them underflows to an
    exact zero, so that the numbers are those of the shorter softmax. A NaN end of what is left out stays.
    """
    low, high = interval
    least = low.detach().masked_fill(~op.keep, float("inf")).amin(op.dim, keepdim=True)
    far = least - ((_FAR if low.dtype.itemsize <= 4 else _FAR_DOUBLE) + least.abs())
    far = torch.where(low.isnan() | high.isnan(), float("nan"), far)
    return torch.where(op.keep, low, far), torch.where(op.keep, high, far)
