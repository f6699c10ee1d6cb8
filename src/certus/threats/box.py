"""Box: every coordinate between its own lower and upper limit."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.core.kinds import KIND, to_json
from certus.core.random import draw
from certus.threats.region import Region
from certus.threats.rounding import rounded


class Box(Region):
    """The inputs x' with lower <= x' <= upper, [B, *shape] (or [1, *shape], shared by a batch).

    dtype is that of the points, by default that of the limits. Limits that are no numbers of it stay as
    they are: `contains` compares with them, `lower` and `upper`, which bounds are computed from, are
    rounded outward, and `project` and `sample` stay within limits rounded inward. So a certificate covers
    the box as it was written, and a counterexample lies in it. Where no number of the dtype lies between
    two limits, the box has no member in this dtype.

    As a threat it is the same set of inputs whatever the clean input is, which must lie inside, up to
    the rounding of the limits. Raises ArgumentError for NaN, infinite or crossed limits.
    """

    def __init__(self, lower: Tensor, upper: Tensor, dtype: torch.dtype | None = None) -> None:
        if lower.shape != upper.shape or lower.ndim < 2:
            raise ArgumentError(
                "a box needs limits of one shape [B, *shape], got "
                f"{tuple(lower.shape)} and {tuple(upper.shape)}"
            )
        lower, upper = _real(lower), _real(upper)
        dtype = dtype or torch.promote_types(lower.dtype, upper.dtype)
        self._limits = (lower, upper)
        self._lower = rounded(lower, dtype, up=False)
        self._upper = rounded(upper, dtype, up=True)
        if not bool(torch.isfinite(self._lower).all() & torch.isfinite(self._upper).all()):
            raise ArgumentError(
                f"the limits of a box must be finite numbers in the range of {dtype}"
            )
        if bool((lower > upper).any()):
            raise ArgumentError("a box has a lower limit above its upper limit")

    @property
    def lower(self) -> Tensor:
        """Lower limits [B, *shape], rounded outward."""
        return self._lower

    @property
    def upper(self) -> Tensor:
        """Upper limits [B, *shape], rounded outward."""
        return self._upper

    @property
    def center(self) -> Tensor:
        """Midpoint [B, *shape], up to rounding."""
        return (self._lower + self._upper) / 2

    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Exact: <row, center> -+ <|row|, half width>."""
        middle = inner(rows, self.center)
        radius = inner(rows.abs(), (self._upper - self._lower) / 2)
        return middle - radius, middle + radius

    def project(self, x: Tensor) -> Tensor:
        """The nearest point in every Lp norm, up to rounding inward."""
        low, high = self._inside if x.dtype == self._lower.dtype else self._limits
        return torch.minimum(torch.maximum(x, low), high)

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Uniform in the box."""
        u = draw(torch.rand, self._lower, generators)
        return self.project(self._lower + u * (self._upper - self._lower))

    def contains(self, x: Tensor) -> Tensor:
        """Exact comparison of every coordinate with the limits as they were given."""
        low, high = self._limits
        return ((x >= low) & (x <= high)).flatten(1).all(1)

    def allows(self, x: Tensor) -> Tensor:
        """Comparison with the limits rounded outward."""
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
        low, high = self._limits
        return Box(low[index], high[index], self._lower.dtype)

    def picked(self, pick: Callable[[Tensor], Tensor]) -> "Box":
        """A box again."""
        box = object.__new__(Box)  # limits that were checked already
        box._lower, box._upper = pick(self.lower), pick(self.upper)
        box._limits = (box._lower, box._upper)
        return box

    @cached_property
    def _inside(self) -> tuple[Tensor, Tensor]:
        """The limits rounded inward; the number nearest to their middle where there is none between."""
        (low, high), dtype = self._limits, self._lower.dtype
        least, most = rounded(low, dtype, up=True), rounded(high, dtype, up=False)
        none = least > most
        middle = (low / 2 + high / 2).to(dtype)
        return torch.where(none, middle, least), torch.where(none, middle, most)

    # As a threat: the box does not depend on the clean input.
    norm = "box"

    def region(self, x: Tensor) -> "Box":
        """The box itself, one copy for each input of x [B, *shape]; x must lie inside."""
        if self._lower.shape[1:] != x.shape[1:] or self._lower.shape[0] not in (1, len(x)):
            raise ArgumentError(
                f"a box of shape {tuple(self._lower.shape)} does not fit inputs {tuple(x.shape)}"
            )
        low, high = (limit.to(x.device).expand_as(x) for limit in self._limits)
        box = Box(low, high, x.dtype)
        if not bool(box.allows(x).all()):
            raise ArgumentError("a clean input lies outside its box")
        return box

    def radius(self, x: Tensor) -> Tensor:
        """NaN [B]: a box has no single radius."""
        return torch.full((len(x),), float("nan"), dtype=x.dtype, device=x.device)

    @property
    def inputs(self) -> int | None:
        """How many inputs have a box of their own; None where all share one."""
        return len(self._lower) if len(self._lower) > 1 else None

    def at(self, indices: Sequence[int]) -> "Box":
        """The box of these inputs of a data set, itself where all share one."""
        return self if self.inputs is None else self.select(torch.tensor(list(indices)))

    def describe(self) -> str:
        """`box`."""
        return "box"

    def to_json(self) -> dict[str, Any]:
        """{"kind": "box", "lower": ..., "upper": ...}, of the limits as given their hashes."""
        low, high = self._limits
        return {KIND: self.norm, "lower": to_json(low), "upper": to_json(high)}


def _real(limit: Tensor) -> Tensor:
    """Whole numbers as float64, which must hold them."""
    if limit.is_floating_point():
        return limit
    found = limit.to(torch.float64)
    if limit.is_complex() or not torch.equal(found.to(limit.dtype), limit):
        raise ArgumentError(
            f"the limits of a box must be real numbers in float64, got {limit.dtype}"
        )
    return found


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
