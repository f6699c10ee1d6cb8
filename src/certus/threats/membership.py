"""Whether a point lies in an Lp ball, decided exactly: in float64 where that is clear, else in rationals."""

from fractions import Fraction

import torch
from torch import Tensor

_MOST_SIZES = 64  # different eps in one sum of fractions, whose denominators they multiply


def within(point: Tensor, center: Tensor, eps: Tensor, p: int) -> Tensor:
    """Bool [B]: whether ||(point - center) / eps||_p <= 1 for p = 1 or 2, of the numbers as they are.

    point and center [B, *shape], eps float64 of that shape; where eps is 0, nothing may move. NaN lies
    outside. So do points with more than 64 different eps that are closer to the boundary than float64
    can tell: the answer errs on that side alone.
    """
    size = unit(point, center, eps).norm(p=p, dim=1)
    doubt = band(size, eps)
    inside = size < 1 - doubt
    for b in ((size - 1).abs() <= doubt).nonzero().flatten().tolist():
        inside[b] = _exactly(point[b], center[b], eps[b], p)
    return inside


def unit(point: Tensor, center: Tensor, eps: Tensor) -> Tensor:
    """(point - center) / eps as [B, n] in float64; infinite for a move where eps is 0."""
    move = (point.double() - center.double()).flatten(1)
    flat = eps.flatten(1)
    still = torch.where(move == 0, 0.0, float("inf")).to(move)
    return torch.where(flat > 0, move / torch.where(flat > 0, flat, 1.0), still)


def band(size: Tensor, eps: Tensor) -> float:
    """What the rounding of n terms and of their sum may change in a norm near 1."""
    return (eps[0].numel() + 8) * torch.finfo(size.dtype).eps


def _exactly(point: Tensor, center: Tensor, eps: Tensor, p: int) -> bool:
    moved = point != center
    sums: dict[float, Fraction] = {}
    for to, at, reach in zip(*(t[moved].tolist() for t in (point, center, eps)), strict=True):
        move = abs(Fraction(to) - Fraction(at))
        sums[reach] = sums.get(reach, Fraction(0)) + move**p
        if reach == 0 or len(sums) > _MOST_SIZES:
            return False
    return sum((total / Fraction(reach) ** p for reach, total in sums.items()), Fraction(0)) <= 1
