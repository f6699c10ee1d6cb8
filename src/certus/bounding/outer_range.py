"""Ranges of linear forms over regions, widened by every rounding of their computation."""

from math import sqrt

import torch
from torch import Tensor

from certus.bounding.gamma import gamma, more, smallest
from certus.bounding.outward import cover
from certus.core import Rules
from certus.relax import Interval
from certus.threats import Region
from certus.threats.ball import Ball
from certus.threats.box import Box, inner
from certus.threats.patch import Patched
from certus.threats.sparse import Sparse

# (region, rows, roundings that each coefficient has met before) -> (lower bounds, their error), [R, B]
ranges = Rules("rigorous arithmetic")


@ranges.register(Box)
def box(region: Box, rows: Tensor, before: int) -> tuple[Tensor, Tensor]:
    """<row, c> - <|row|, r + k (|c| + r)> for a ball that covers the box exactly."""
    count, dtype = rows[0, 0].numel() + before + 8, rows.dtype
    centre, radius = cover((region.lower, region.upper))
    rate = gamma(count, dtype)
    grown = more(radius + rate * (centre.abs() + radius))
    found = inner(rows, centre) - more(inner(rows.abs(), grown), count)
    return found, _dust(centre.abs() + radius)


@ranges.register(Ball, Sparse, Patched)
def around(region: Region, rows: Tensor, before: int) -> tuple[Tensor, Tensor]:
    """The region's own range, which is made of these terms, each rounded a few times:

    <row, x>, coefficients times distances within the bounding box, and a norm of eps * row, that is at
    most its L1 norm. Any multiplier of a cut ball is sound, so that its search need not be exact; the
    maximiser for it is off by a rounding, which costs the square of that.
    """
    dtype, x = rows.dtype, region.center
    count = rows[0, 0].numel() + before + 24
    reach = torch.maximum(region.upper - x, x - region.lower)
    sizes = x.abs() + 3 * reach
    if isinstance(region, Ball):
        sizes = sizes + region._reach
    found = region.linear_range(rows)[0]
    error = more(2 * gamma(count, dtype) * inner(rows.abs(), sizes), count)
    # squares below the smallest number are lost to a Euclidean norm, at most this much in all
    lost = 4 * sqrt(count * smallest(dtype))
    return found, error + lost + _dust(sizes)


def unrounded(rows: Tensor, interval: Interval) -> Tensor:
    """The least values [R, B] of rows on an interval [B, *shape] where they are exact in floats, else -inf.

    A sum is if at most one of its products is not zero, and this one's coefficient is 1 or -1.
    """
    above, dtype = rows.clamp(min=0), rows.dtype
    terms = rounded = least = torch.zeros((), dtype=dtype, device=rows.device)
    for part, end in zip((above, rows - above), interval, strict=True):
        given = (end != 0).to(dtype)
        terms = terms + inner((part != 0).to(dtype), given)
        rounded = rounded + inner(((part != 0) & (part.abs() != 1)).to(dtype), given)
        least = least + inner(part, end)
    exact = (terms <= 1) & (rounded == 0) & least.isfinite()
    return torch.where(exact, least, float("-inf"))


def _dust(sizes: Tensor) -> Tensor:
    """What underflow may lose, [B]."""
    numel = sizes[0].numel()
    return 8 * numel * smallest(sizes.dtype) * (1 + more(sizes.flatten(1).sum(1), numel))
