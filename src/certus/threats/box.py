"""Box: every coordinate between its own lower and upper limit."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.core.random import draw
from certus.threats.region import Region


class Box(Region):
    """The inputs x' with lower <= x' <= upper, [B, *shape] (or [1, *shape], shared by a batch).

    As a threat it is the same set of inputs whatever the clean input is, which must lie inside.
    Raises ArgumentError for NaN, infinite or crossed limits.
    """

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        if lower.shape != upper.shape or lower.ndim < 2:
            raise ArgumentError(
                "a box needs limits of one shape [B, *shape], got "
                f"{tuple(lower.shape)} and {tuple(upper.shape)}"
            )
        if not bool(torch.isfinite(lower).all() & torch.isfinite(upper).all()):
            raise ArgumentError("the limits of a box must be finite")
        if bool((lower > upper).any()):
            raise ArgumentError("a box has a lower limit above its upper limit")
        self._lower, self._upper = lower, upper

    @property
    def lower(self) -> Tensor:
        """Lower limits [B, *shape]."""
        return self._lower

    @property
    def upper(self) -> Tensor:
        """Upper limits [B, *shape]."""
        return self._upper

    @property
    def center(self) -> Tensor:
        """Midpoint [B, *shape]."""
        return (self._lower + self._upper) / 2

    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Exact: <row, center> -+ <|row|, half width>."""
        middle = inner(rows, self.center)
        radius = inner(rows.abs(), (self._upper - self._lower) / 2)
        return middle - radius, middle + radius

    def project(self, x: Tensor) -> Tensor:
        """The nearest point in every Lp norm."""
        return torch.minimum(torch.maximum(x, self._lower), self._upper)

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Uniform in the box."""
        u = draw(torch.rand, self._lower, generators)
        return self.project(self._lower + u * (self._upper - self._lower))

    def contains(self, x: Tensor) -> Tensor:
        """Exact comparison of every coordinate."""
        return ((x >= self._lower) & (x <= self._upper)).flatten(1).all(1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign of the gradient times the half width."""
        return gradient.sign() * (self._upper - self._lower) / 2

    def l2_extent(self, x: Tensor) -> Tensor:
        """Distance to the farthest corner, in float64 and rounded up: float32 may lose 1e-4 of it."""
        at, low, high = x.double(), self._lower.double(), self._upper.double()
        far = torch.maximum(high - at, at - low).flatten(1).norm(dim=1)
        return rounded(far, x.dtype, up=True)

    def select(self, index: Tensor) -> "Box":
        """Some of the boxes."""
        return Box(self._lower[index], self._upper[index])

    def picked(self, pick: Callable[[Tensor], Tensor]) -> "Box":
        """A box again."""
        box = object.__new__(Box)  # limits that were checked already
        box._lower, box._upper = pick(self.lower), pick(self.upper)
        return box

    # As a threat: the box does not depend on the clean input.
    norm = "box"

    def region(self, x: Tensor) -> "Box":
        """The box itself, one copy for each input of x [B, *shape]; x must lie inside."""
        if self._lower.shape[1:] != x.shape[1:] or self._lower.shape[0] not in (1, len(x)):
            raise ArgumentError(
                f"a box of shape {tuple(self._lower.shape)} does not fit inputs {tuple(x.shape)}"
            )
        low, high = (limit.to(x.device, torch.float64) for limit in (self._lower, self._upper))
        box = Box(
            rounded(low, x.dtype, up=False).expand_as(x),
            rounded(high, x.dtype, up=True).expand_as(x),
        )
        if not bool(box.contains(x).all()):
            raise ArgumentError("a clean input lies outside its box")
        return box

    def radius(self, x: Tensor) -> Tensor:
        """NaN [B]: a box has no single radius."""
        return torch.full((len(x),), float("nan"), dtype=x.dtype, device=x.device)

    def describe(self) -> str:
        """`box`."""
        return "box"


def rounded(exact: Tensor, dtype: torch.dtype, *, up: bool) -> Tensor:
    """A float64 tensor in another dtype, never below (up) or never above the exact value."""
    near = exact.to(dtype)
    wrong = near.double() < exact if up else near.double() > exact
    toward = torch.full_like(near, float("inf") if up else float("-inf"))
    return torch.where(wrong, torch.nextafter(near, toward), near)


def inner(rows: Tensor, x: Tensor) -> Tensor:
    """<row, x> for rows [R, B or 1, *shape] and x [B, *shape]; the result is [R, B]."""
    if x.ndim == 4 and rows.stride(2) == 1:  # channels last, so that flattening copies nothing
        rows, x = rows.permute(0, 1, 3, 4, 2), x.permute(0, 2, 3, 1)
    flat, x = rows.reshape(*rows.shape[:2], -1), x.reshape(len(x), -1)
    if rows.shape[1] == 1:
        return flat[:, 0] @ x.T
    if len(x) == 1:
        return flat @ x[0]
    return torch.linalg.vecdot(flat, x)
