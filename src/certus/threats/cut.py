"""The largest value of a linear form on a unit ball that is cut by a box around its centre.

Both functions minimise the Lagrangian of the norm's constraint over one multiplier. Every multiplier
gives a valid bound, so that the search need not converge; where it does, the bound is exact (strong
duality: both sets are convex and contain the centre). Gradients flow through the bound with the
multiplier and the maximiser held fixed, which is exact at the optimum.
"""

import torch
from torch import Tensor

_ROUNDS = 12  # steps of the multiplier's search; most rows settle after four
_LARGEST = 256  # coefficients of largest size that compete for the budget of an L1 ball


def cut_l2(h: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """max <h, u> over ||u||_2 <= 1, low <= u <= high, for h [R, B, n], low <= 0 <= high [B, n]: [R, B].

    For a multiplier m the maximiser of h u - m u^2 / 2 is h / m, clamped.
    """
    with torch.no_grad():
        m = _multiplier(h, low, high).unsqueeze(2)
        free = h / m
    u = torch.where(free > high, high, torch.where(free < low, low, free))
    return (h * u).sum(2) + m.squeeze(2) / 2 * (1 - u.square().sum(2))


def _multiplier(h: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """[R, B]: from the plain ball's multiplier ||h|| downwards, all clamped entries fixed at each step."""
    tiny = torch.finfo(h.dtype).tiny * 1e8
    square = h.square()
    m = square.sum(2).sqrt().clamp(min=tiny)
    for _ in range(_ROUNDS):
        u = h / m.unsqueeze(2)
        held = torch.minimum(torch.maximum(u, low), high)
        moves = held == u
        spent = torch.where(moves, 0.0, held).square().sum(2)
        rest = torch.where(moves, square, 0.0).sum(2)
        better = (rest / (1 - spent).clamp(min=tiny)).sqrt().clamp(min=tiny)
        better = torch.where(better < m, better, m)  # keeps m where the step is NaN
        settled = better >= m * (1 - 1e-6)
        m = better
        if bool(settled.all()):
            break
    return m


def cut_l1(h: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """max <h, u> over ||u||_1 <= 1, low <= u <= high, for h [R, B, n], low <= 0 <= high [B, n]: [R, B].

    A fractional knapsack: the largest |h| first, each up to its limit, until the budget is spent. The
    multiplier is the |h| at which that happens among the 256 largest.
    """
    size = h.abs()
    limit = torch.where(h > 0, high, -low)
    with torch.no_grad():
        useful = torch.where(limit > 0, size, 0.0)
        top, index = useful.topk(min(_LARGEST, h.shape[2]), dim=2)
        used = limit.expand_as(h).gather(2, index).cumsum(2)
        last = (used < 1).sum(2, keepdim=True)
        inside = last < top.shape[2]
        m = top.gather(2, last.clamp(max=top.shape[2] - 1))
        if top.shape[2] == h.shape[2]:  # every coefficient was seen, and all of them fit
            m = torch.where(inside, m, 0.0)
    return m.squeeze(2) + ((size - m).clamp(min=0) * limit).sum(2)
