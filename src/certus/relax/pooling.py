"""Linear relaxation of max pooling, for any kernel, stride and padding."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph.activation import MaxPool
from certus.relax.lines import Interval, Relaxation, relaxations


@dataclass(frozen=True, eq=False)
class Windowed(Relaxation):
    """Per window: sum_i lower_i x_i <= max_i x_i <= sum_i upper_i x_i + offset.

    lower and upper are [B, C, kernel elements, outputs]; offset is [B, C, outputs].
    """

    op: MaxPool
    lower: Tensor
    upper: Tensor
    offset: Tensor
    size: tuple[int, int]

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Spread each coefficient over its window, then add up overlapping windows."""
        r, b, c = rows.shape[0], max(rows.shape[1], self.lower.shape[0]), rows.shape[2]
        flat = rows.reshape(*rows.shape[:3], 1, -1)
        above, below = flat.clamp(min=0), flat.clamp(max=0)
        spread = above * self.lower + below * self.upper
        columns = spread.reshape(r * b, c, *spread.shape[3:])
        pulled = self.op.scatter(columns, self.size)
        offset = (below.squeeze(3) * self.offset).flatten(2).sum(2)
        return (pulled.view(r, b, *pulled.shape[1:]),), offset


@relaxations.register(MaxPool)
def max_pool(op: MaxPool, interval: Interval) -> Windowed:
    """Below: the element with the largest lower bound L. Above: the better of two at the midpoint,

    the constant max_i u_i, or L + sum_i chord of relu(x_i - L) on [l_i, u_i]. The second holds since
    max_i x_i >= L, so max_i x_i = L + max_i relu(x_i - L) <= L + sum_i relu(x_i - L).
    """
    lower, upper = interval
    low = op.windows(lower, float("-inf"))
    high = op.windows(upper, float("-inf"))
    floor, best = low.max(2, keepdim=True)
    below = torch.zeros_like(low).scatter(2, best, 1.0)
    inside = op.windows(torch.ones_like(lower[:1, :1]), 0.0) > 0
    can_win = inside & (high > floor)
    low, high = torch.where(inside, low, floor), torch.where(inside, high, floor)
    width = (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    slope = torch.where(can_win, (high - floor) / width, torch.zeros_like(low)).clamp(max=1.0)
    offset = floor.squeeze(2) - torch.where(can_win, slope * low, 0.0).sum(2)
    at_middle = (slope * (low + high) / 2).sum(2) + offset
    ceiling = high.amax(2)
    chords = at_middle < ceiling
    slope = torch.where(chords.unsqueeze(2), slope, torch.zeros_like(slope))
    offset = torch.where(chords, offset, ceiling)
    return Windowed(op, below, slope, offset, (lower.shape[-2], lower.shape[-1]))
