"""Freed: some features of an input change, each to anything in the valid range."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from certus.core.random import draw
from certus.threats.box import inner
from certus.threats.region import Region, spread
from certus.threats.rounding import rounded


class Freed(Region):
    """{x' : the features in which x' differs from x make up an allowed set, every value inside clip}.

    x is [B, *shape] in the model's dtype; count int64 [B] says how large the allowed sets of features
    are, 0 for none. A leaf says which sets these are: `_largest` and `_best` find the one that gains
    most, `_anywhere` draws one, `_allowed` knows them. The region is not convex; `linear_range` is its
    exact range and with that the range of its convex hull, so bounds hold for both, while membership,
    projection and samples are those of the set itself. Limits are rounded outward for ranges and
    inward for samples.
    """

    def __init__(self, x: Tensor, count: Tensor, clip: tuple[float, float]) -> None:
        self._x, self._count, self._clip = x, count.to(x.device), clip
        low, high = (torch.full_like(x, limit, dtype=torch.float64) for limit in clip)
        still = spread(self._count == 0, x)
        self._lower = torch.where(still, x, rounded(low, x.dtype, up=False))
        self._upper = torch.where(still, x, rounded(high, x.dtype, up=True))
        least, most = rounded(low, x.dtype, up=True), rounded(high, x.dtype, up=False)
        none = least > most  # no number of the dtype is valid
        self._inside = torch.where(none, x, least), torch.where(none, x, most)

    @abstractmethod
    def _largest(self, gain: Tensor) -> Tensor:
        """The largest sum over an allowed set of gain [R, B, *shape] >= 0: [R, B]."""

    @abstractmethod
    def _best(self, gain: Tensor) -> Tensor:
        """Bool that broadcasts to gain [B, *shape]: an allowed set where gain adds up to most."""

    @abstractmethod
    def _anywhere(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Bool that broadcasts to [B, *shape]: an allowed set at random."""

    @abstractmethod
    def _allowed(self, moved: Tensor) -> Tensor:
        """Bool [B]: whether the values `moved` [B, *shape] lie in an allowed set."""

    @property
    def center(self) -> Tensor:
        """The clean input."""
        return self._x

    @property
    def lower(self) -> Tensor:
        """The lower limit of every value, as each may change."""
        return self._lower

    @property
    def upper(self) -> Tensor:
        """The upper limit of every value."""
        return self._upper

    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Exact: <row, x> and the largest gain (loss) that changing an allowed set brings."""
        middle = inner(rows, self._x)
        up, down = rows * (self._upper - self._x), rows * (self._lower - self._x)
        gain, loss = torch.maximum(up, down), -torch.minimum(up, down)
        return middle - self._largest(loss), middle + self._largest(gain)

    def project(self, x: Tensor) -> Tensor:
        """The nearest point: values clamped, in the set where that is worth most (in L2)."""
        valid = torch.minimum(torch.maximum(x, self._inside[0]), self._inside[1])
        gain = (x - self._x).square() - (x - valid).square()  # what moving the value is worth
        gain = torch.where(valid == self._x, torch.zeros_like(gain), gain.clamp(min=0))
        point = torch.where(self._best(gain), valid, self._x)
        return torch.where(spread(self.contains(x), x), x, point)

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """A set at random; half of the inputs get uniform values there, the others limits."""
        where = self._anywhere(generators)
        value = draw(torch.rand, self._x, generators)
        extreme = draw(torch.rand, self._x.flatten(1)[:, :1], generators).flatten() < 0.5
        value = torch.where(spread(extreme, value), value.round(), value)
        low, high = self._inside
        point = (low + value * (high - low)).clamp(min=low, max=high)
        return torch.where(where, point, self._x)

    def contains(self, x: Tensor) -> Tensor:
        """What differs from x is an allowed set, every value inside clip."""
        wide = x.double()
        legal = (wide >= self._clip[0]) & (wide <= self._clip[1])
        return self._allowed(x != self._x) & legal.flatten(1).all(1)  # NaN differs

    def allows(self, x: Tensor) -> Tensor:
        """The same with the clip range rounded outward."""
        legal = (x >= self._lower) & (x <= self._upper)
        return self._allowed(x != self._x) & legal.flatten(1).all(1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """From x to the best limits in the set that gains most."""
        up, down = self._upper - self._x, self._lower - self._x
        move = torch.where(gradient * up >= gradient * down, up, down)
        move = torch.where(gradient == 0, torch.zeros_like(move), move)
        return torch.where(self._best(gradient * move), move, torch.zeros_like(move))

    def l2_extent(self, x: Tensor) -> Tensor:
        """Distance of x to the centre plus the largest distance to limits within a set."""
        clean, low, high = self._x.double(), self._lower.double(), self._upper.double()
        far = torch.maximum(high - clean, clean - low).square()
        away = (x.double() - clean).flatten(1).norm(dim=1)
        return rounded(away + self._largest(far.unsqueeze(0))[0].sqrt(), x.dtype, up=True)
