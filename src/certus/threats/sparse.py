"""L0: at most k values (or k pixels) of an input change, each to anything in the valid range."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.core.random import draw
from certus.threats.freed import Freed
from certus.threats.region import Region, spread


class Sparse(Freed):
    """{x' : at most k features of x' differ from x, every value inside clip}.

    x is [B, *shape] in the model's dtype, count int64 [B]. A feature is one value, or with `pixels`
    all channels (dimension 1) of one position.
    """

    def __init__(
        self, x: Tensor, count: Tensor, clip: tuple[float, float], pixels: bool = False
    ) -> None:
        super().__init__(x, count, clip)
        self._pixels = pixels
        self._each = spread(count, x).to(x).expand_as(x)  # kept, so that picks may remember it

    def select(self, index: Tensor) -> "Sparse":
        """Some of the inputs."""
        return Sparse(self._x[index], self._count[index], self._clip, self._pixels)

    def picked(self, pick: Callable[[Tensor], Tensor]) -> "Region | None":
        """The same set on fewer features; unknown for pixels, whose channels a pick may part."""
        if self._pixels:
            return None
        part = object.__new__(Sparse)
        part._x, part._lower, part._upper = pick(self._x), pick(self._lower), pick(self._upper)
        part._each = pick(self._each)
        part._count = part._each.flatten(1).amax(1).long()  # zero only at coordinates that are none
        part._clip, part._pixels, part._inside = self._clip, False, self._inside
        return part

    def _largest(self, gain: Tensor) -> Tensor:
        if self._pixels:
            gain = gain.sum(2)
        flat = gain.flatten(2)
        most = min(int(self._count.max()), flat.shape[2])
        top = flat.topk(most, dim=2).values
        chosen = torch.arange(most, device=top.device) < self._count.unsqueeze(1)
        return torch.where(chosen, top, torch.zeros_like(top)).sum(2)

    def _best(self, gain: Tensor) -> Tensor:
        total = gain.sum(1, keepdim=True) if self._pixels else gain
        flat = total.flatten(1)
        order = flat.argsort(dim=1, descending=True, stable=True)
        rank = torch.arange(flat.shape[1], device=flat.device)
        best = (rank < self._count.unsqueeze(1)) & (flat.gather(1, order) > 0)
        mask = torch.zeros_like(best).scatter(1, order, best)
        return mask.view_as(total).expand_as(gain)

    def _anywhere(self, generators: Sequence[torch.Generator]) -> Tensor:
        return self._best(draw(torch.rand, self._x, generators))

    def _allowed(self, moved: Tensor) -> Tensor:
        features = moved.any(1) if self._pixels else moved
        return features.flatten(1).sum(1) <= self._count


def whole(eps: Tensor) -> Tensor:
    """A count per input from eps [B, *shape] in float64: whole numbers, one for each input."""
    flat = eps.flatten(1)
    if not bool((flat == flat[:, :1]).all() & (flat == flat.round()).all()):
        raise ArgumentError("this threat takes one whole number, or one for each input, as eps")
    return flat[:, 0].long()
