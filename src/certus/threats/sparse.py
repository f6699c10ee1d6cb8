"""L0: at most k values (or k pixels) of an input change, each to anything in the valid range."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.core.random import draw
from certus.threats.box import inner, rounded
from certus.threats.region import Region, spread


class Sparse(Region):
    """{x' : at most k features of x' differ from x, every value inside clip}.

    x is [B, *shape] in the model's dtype, count int64 [B]. A feature is one value, or with `pixels`
    all channels (dimension 1) of one position. The set is not convex; `linear_range` is its exact
    range and with that the range of its convex hull, so bounds hold for both, while membership,
    projection and samples are those of the set itself. Limits are rounded outward for ranges and
    inward for samples.
    """

    def __init__(
        self, x: Tensor, count: Tensor, clip: tuple[float, float], pixels: bool = False
    ) -> None:
        self._x, self._count, self._clip, self._pixels = x, count, clip, pixels
        self._each = spread(count, x).to(x).expand_as(x)  # kept, so that picks may remember it
        low, high = (torch.full_like(x, limit, dtype=torch.float64) for limit in clip)
        still = spread(count == 0, x)
        self._lower = torch.where(still, x, rounded(low, x.dtype, up=False))
        self._upper = torch.where(still, x, rounded(high, x.dtype, up=True))
        self._inside = rounded(low, x.dtype, up=True), rounded(high, x.dtype, up=False)

    @property
    def center(self) -> Tensor:
        """The clean input."""
        return self._x

    @property
    def lower(self) -> Tensor:
        """The lower limit of every value that may change."""
        return self._lower

    @property
    def upper(self) -> Tensor:
        """The upper limit of every value that may change."""
        return self._upper

    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Exact: <row, x> and the k largest gains (losses) that changing one feature brings."""
        middle = inner(rows, self._x)
        up, down = rows * (self._upper - self._x), rows * (self._lower - self._x)
        gain, loss = torch.maximum(up, down), -torch.minimum(up, down)
        return middle - self._largest(loss), middle + self._largest(gain)

    def _largest(self, gain: Tensor) -> Tensor:
        """The sum of the count largest features of gain [R, B, *shape], gain >= 0: [R, B]."""
        if self._pixels:
            gain = gain.sum(2)
        flat = gain.flatten(2)
        most = min(int(self._count.max()), flat.shape[2])
        top = flat.topk(most, dim=2).values
        chosen = torch.arange(most, device=top.device) < self._count.unsqueeze(1)
        return torch.where(chosen, top, torch.zeros_like(top)).sum(2)

    def project(self, x: Tensor) -> Tensor:
        """The nearest point: values clamped, and the features that moved farthest (in L2) kept."""
        valid = torch.minimum(torch.maximum(x, self._inside[0]), self._inside[1])
        gain = (x - self._x).square() - (x - valid).square()  # what moving the value is worth
        gain = torch.where(valid == self._x, torch.zeros_like(gain), gain.clamp(min=0))
        return torch.where(self._chosen(gain), valid, self._x)

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """k features at random; half of the inputs get uniform values there, the others limits."""
        order = draw(torch.rand, self._x, generators)
        value = draw(torch.rand, self._x, generators)
        extreme = draw(torch.rand, self._x.flatten(1)[:, :1], generators).flatten() < 0.5
        value = torch.where(spread(extreme, value), value.round(), value)
        low, high = self._inside
        point = torch.where(self._chosen(order), low + value * (high - low), self._x)
        return torch.where(self._chosen(order), point.clamp(min=low, max=high), self._x)

    def contains(self, x: Tensor) -> Tensor:
        """At most k features differ from x, every value that differs is inside clip."""
        moved = x != self._x  # true for NaN
        wide = x.double()
        legal = ~moved | ((wide >= self._clip[0]) & (wide <= self._clip[1]))
        features = moved.any(1) if self._pixels else moved
        return (features.flatten(1).sum(1) <= self._count) & legal.flatten(1).all(1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """From x to the best limit on the k features that gain most."""
        up, down = self._upper - self._x, self._lower - self._x
        move = torch.where(gradient * up >= gradient * down, up, down)
        move = torch.where(gradient == 0, torch.zeros_like(move), move)
        return torch.where(self._chosen(gradient * move), move, torch.zeros_like(move))

    def l2_extent(self, x: Tensor) -> Tensor:
        """Distance of x to the centre plus the k largest distances to a limit."""
        clean, low, high = self._x.double(), self._lower.double(), self._upper.double()
        far = torch.maximum(high - clean, clean - low).square()
        away = (x.double() - clean).flatten(1).norm(dim=1)
        return rounded(away + self._largest(far.unsqueeze(0))[0].sqrt(), x.dtype, up=True)

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

    def _chosen(self, gain: Tensor) -> Tensor:
        """Bool like gain [B, *shape]: the features of largest gain > 0, count of them at most."""
        total = gain.sum(1, keepdim=True) if self._pixels else gain
        flat = total.flatten(1)
        order = flat.argsort(dim=1, descending=True, stable=True)
        rank = torch.arange(flat.shape[1], device=flat.device)
        best = (rank < self._count.unsqueeze(1)) & (flat.gather(1, order) > 0)
        mask = torch.zeros_like(best).scatter(1, order, best)
        return mask.view_as(total).expand_as(gain)


def whole(eps: Tensor) -> Tensor:
    """A count per input from eps [B, *shape] in float64: whole numbers, one for each input."""
    flat = eps.flatten(1)
    if not bool((flat == flat[:, :1]).all() & (flat == flat.round()).all()):
        raise ArgumentError("this threat takes one whole number, or one for each input, as eps")
    return flat[:, 0].long()
