"""Ball: L2 and L1 balls around an input, scaled by eps and cut by the clip range."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from certus.core.random import draw
from certus.threats.box import Box, inner
from certus.threats.cube import Cube
from certus.threats.cut import cut_l1, cut_l2
from certus.threats.membership import band, unit, within
from certus.threats.region import Region, spread
from certus.threats.rounding import rounded

_PIECE = 2**22  # coefficients that are cut by the box at a time
_MANY = (
    64  # values from which projections go clearly inside, since to decide exactly would take long
)
_PULLS = 12  # quarterings of the first pull to the centre where rounding leaves a point outside


class Ball(Region):
    """{x + eps * u : ||u||_p <= 1} cut by a box, for p = 1 or 2.

    x is [B, *shape] in the model's dtype, eps float64 of the same shape; an eps that differs between
    elements makes an ellipsoid (p = 2) or a weighted cross-polytope (p = 1). `clip` (lower, upper)
    must contain x; None means no clipping. Ranges use eps rounded up, membership eps itself, and is exact.
    """

    def __init__(
        self, x: Tensor, eps: Tensor, p: int, clip: tuple[float, float] | None = None
    ) -> None:
        self._x, self._eps, self._p, self._clip = x, eps, p, clip
        self._reach = rounded(eps, x.dtype, up=True)
        self._box: Box = Cube(x, eps, clip)

    @property
    def center(self) -> Tensor:
        """The clean input."""
        return self._x

    @property
    def lower(self) -> Tensor:
        """Lower corner of the bounding box."""
        return self._box.lower

    @property
    def upper(self) -> Tensor:
        """Upper corner of the bounding box."""
        return self._box.upper

    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """<row, x> -+ ||eps * row||_q, 1/p + 1/q = 1; where a clip range cuts the ball, the range on

        ball and box together (`cut.py`: exact up to the search for one multiplier, always outer),
        never beyond the ball's or the bounding box's own.
        """
        middle = inner(rows, self._x)
        if self._clip is None:
            flat = (rows * self._reach).flatten(2)
            radius = _norm(flat) if self._p == 2 else flat.abs().amax(2)
            return middle - radius, middle + radius
        down, up = self._reaches(rows)
        low, high = self._box.linear_range(rows)
        return torch.maximum(middle - down, low), torch.minimum(middle + up, high)

    def _reaches(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How far <row, .> can fall and rise from the centre on ball and box, in pieces of rows."""
        below, above = self._unit_limits()
        reach = self._reach.flatten(1)
        cut = cut_l2 if self._p == 2 else cut_l1
        found = []
        for piece in rows.flatten(2).split(max(1, _PIECE // reach.numel())):
            h = piece * reach
            plain = _norm(h) if self._p == 2 else h.abs().amax(2)
            up, down = cut(h, below, above), cut(-h, below, above)
            found.append((torch.minimum(down, plain), torch.minimum(up, plain)))
        downs, ups = zip(*found, strict=True)
        return torch.cat(downs), torch.cat(ups)

    def _unit_limits(self) -> tuple[Tensor, Tensor]:
        """The clip box in units of eps around x, [B, n] each; zero where an element cannot move."""
        safe = torch.where(self._reach > 0, self._reach, 1.0)
        below, above = (self.lower - self._x) / safe, (self.upper - self._x) / safe
        return below.clamp(-1.0, 0.0).flatten(1), above.clamp(0.0, 1.0).flatten(1)

    def project(self, x: Tensor) -> Tensor:
        """Shrink towards the centre where outside, then clip: always inside, and near x."""
        wanted = x.double()
        move = torch.where(self._eps > 0, wanted - self._x.double(), torch.zeros_like(wanted))
        away = unit(self._x.double() + move, self._x, self._eps)
        size = away.norm(p=self._p, dim=1)
        onto = away / size.clamp(min=1).unsqueeze(1) if self._p == 2 else _onto_simplex(away)
        spare = band(size, self._eps) if away.shape[1] > _MANY else torch.finfo(size.dtype).eps
        onto = onto * (1 - 4 * spare)
        shrunk = torch.where((size > 1).unsqueeze(1), onto, away)
        moved = self._x.double() + self._eps * shrunk.view_as(self._eps)
        point = torch.where(spread(self.contains(x), x), x, self._box.project(moved.to(x.dtype)))
        return self._pulled(point)

    def _pulled(self, point: Tensor) -> Tensor:
        """Points that rounding left outside move a little towards the centre, at worst onto it."""
        home = self._box.project(
            self._x
        )  # the centre itself, but where it rounded off the clip range
        for power in range(_PULLS * (2 if point.dtype == torch.float64 else 1), -1, -1):
            outside = spread(~self.contains(point), point)
            if not bool(outside.any()):
                return point
            nearer = home + (point - home) * (1 - 0.25**power)
            point = torch.where(outside, nearer if power else home, point)
        return point

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Half of the draws uniform in direction on the sphere, the rest inside; then clipped."""
        direction = draw(torch.randn, self._x, generators).flatten(1)
        if self._p == 1:  # signed exponentials are uniform on the cross-polytope
            uniform = draw(torch.rand, self._x, generators).flatten(1)
            direction = direction.sign() * -(uniform.clamp(min=1e-12)).log()
        size = draw(torch.rand, self._x.flatten(1)[:, :1], generators).mul(2).clamp(max=1)
        at = direction / direction.norm(p=self._p, dim=1, keepdim=True).clamp(min=1e-30) * size
        return self.project((self._x + self._eps * at.view_as(self._x)).to(self._x.dtype))

    def contains(self, x: Tensor) -> Tensor:
        """||(x' - x) / eps||_p <= 1, exactly, and inside the box."""
        return within(x, self._x, self._eps, self._p) & self._box.contains(x)

    def allows(self, x: Tensor) -> Tensor:
        """The same with the clip range rounded outward."""
        return within(x, self._x, self._eps, self._p) & self._box.allows(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Normalised gradient for p = 2; for p = 1 the tenth of the coordinates that matter most."""
        scaled = (gradient * self._reach).flatten(1)
        if self._p == 2:
            step = scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1e-30)
        else:
            chosen = scaled.abs().topk(max(1, scaled.shape[1] // 10), dim=1).indices
            mask = torch.zeros_like(scaled).scatter(1, chosen, 1.0 / chosen.shape[1])
            step = scaled.sign() * mask
        return self._reach * step.view_as(gradient)

    def l2_extent(self, x: Tensor) -> Tensor:
        """Distance of x to the centre plus the largest eps, or to the box's farthest corner."""
        away = (x.double() - self._x.double()).flatten(1).norm(dim=1)
        ball = rounded(away + self._reach.double().flatten(1).amax(1), x.dtype, up=True)
        return torch.minimum(ball, self._box.l2_extent(x))

    def select(self, index: Tensor) -> "Ball":
        """Some of the balls."""
        return Ball(self._x[index], self._eps[index], self._p, self._clip)

    def picked(self, pick: Callable[[Tensor], Tensor]) -> "Ball":
        """A ball again: leaving out coordinates projects, since each of them may stay at its centre."""
        ball = object.__new__(Ball)
        ball._x, ball._eps, ball._reach = pick(self._x), pick(self._eps), pick(self._reach)
        ball._box, ball._p, ball._clip = self._box.picked(pick), self._p, self._clip
        return ball


def _norm(flat: Tensor) -> Tensor:
    """L2 norm over the last dimension; its gradient at zero is zero, so training never sees NaN."""
    square = flat.square().sum(2)
    positive = square != 0  # true for NaN, which must come through
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def _onto_simplex(unit: Tensor) -> Tensor:
    """Euclidean projection of each row onto the unit L1 ball (Duchi et al. 2008)."""
    ordered = unit.abs().sort(dim=1, descending=True).values
    rank = torch.arange(1, unit.shape[1] + 1, device=unit.device, dtype=unit.dtype)
    threshold = (ordered.cumsum(1) - 1) / rank
    last = (ordered > threshold).sum(1, keepdim=True).clamp(min=1) - 1
    return unit.sign() * (unit.abs() - threshold.gather(1, last)).clamp(min=0)
