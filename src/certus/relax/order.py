"""Order statistics: exact where their place in the order is known, else constants."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph.extremum import Sorted
from certus.relax.interval import intervals
from certus.relax.lines import Interval, Relaxation, relaxations
from certus.threats.box import inner


@dataclass(frozen=True, eq=False)
class Ranked(Relaxation):
    """Rank k along `dim` is input `source` where `known`, else somewhere in [low, high]; all [B, *shape]."""

    dim: int
    source: Tensor
    known: Tensor
    low: Tensor
    high: Tensor

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Coefficients of known ranks go to their inputs, the others take an end."""
        kept, rest = (torch.where(own, rows, 0.0) for own in (self.known, ~self.known))
        places = self.source.expand(kept.shape)
        pulled = torch.zeros_like(kept).scatter_add(self.dim + 1, places, kept)
        offset = inner(rest.clamp(min=0), self.low) + inner(rest.clamp(max=0), self.high)
        return (pulled,), offset


@relaxations.register(Sorted)
def ranked(op: Sorted, interval: Interval) -> Ranked:
    """In the order of the centres, a rank is known where no interval before or after reaches its own."""
    low, high = interval
    source = (low + high).argsort(op.dim)
    lower, upper = low.gather(op.dim, source), high.gather(op.dim, source)
    count = low.shape[op.dim]
    before = upper.cummax(op.dim).values.narrow(op.dim, 0, count - 1)
    after = lower.flip(op.dim).cummin(op.dim).values.flip(op.dim).narrow(op.dim, 1, count - 1)
    end = torch.full_like(lower.narrow(op.dim, 0, 1), float("inf"))
    known = (torch.cat([-end, before], op.dim) <= lower) & (
        upper <= torch.cat([after, end], op.dim)
    )
    return Ranked(op.dim, source, known, *intervals[Sorted](op, interval))
