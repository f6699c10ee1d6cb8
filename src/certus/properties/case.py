"""Case: one input box of a property, with the conditions under which it is violated there."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.core.random import generator
from certus.properties.conditions import Conditions, Specification, specification
from certus.threats import Box
from certus.threats.rounding import rounded

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs in [lower, upper] (float64, [inputs]) that satisfy one of the conditions' conjunctions."""

    lower: Tensor
    upper: Tensor
    conditions: Conditions

    @property
    def mixed(self) -> bool:
        """Whether a condition speaks of inputs (beyond the box)."""
        return self.conditions.mixed

    def region(self, shape: Shape | None = None, dtype: torch.dtype = torch.float64) -> Box:
        """The box as a region of one input [1, *shape], its corners rounded outward to the dtype.

        So every point of the case lies between them, while the region's members are those of the case.
        shape None is [inputs].
        """
        form = (1, *self._shape(shape))
        return Box(self.lower.reshape(form), self.upper.reshape(form), dtype)

    def inner(self, shape: Shape | None = None, dtype: torch.dtype = torch.float64) -> Box:
        """The box rounded inward, for searches: its points lie in the case, with zero tolerance.

        Where no number of the dtype lies between the limits, the nearest one to their middle stands;
        no point in this dtype lies in the case then, and `holds` says so.
        """
        form = (1, *self._shape(shape))
        low, high = rounded(self.lower, dtype, up=True), rounded(self.upper, dtype, up=False)
        middle = (self.lower / 2 + self.upper / 2).to(dtype)
        none = low > high
        low, high = torch.where(none, middle, low), torch.where(none, middle, high)
        return Box(low.reshape(form), high.reshape(form))

    def holds(self, x: Tensor, y: Tensor, tolerance: float = 0.0) -> Tensor:
        """Bool [B]: whether x [B, *shape] with outputs y [B, *shape] is a counterexample of this case.

        Single points may come without the batch. Numbers are compared as they are, in float64; the
        tolerance loosens every limit and inequality. NaN and infinity are never a counterexample.
        """
        flat = _points(x, self.conditions.inputs, "x")
        outputs = _points(y, self.conditions.outputs, "y")
        if len(flat) != len(outputs):
            raise ArgumentError(f"{len(flat)} inputs do not fit {len(outputs)} outputs")
        return self.contains(flat, tolerance) & self.conditions.holds(flat, outputs, tolerance).any(
            1
        )

    def contains(self, x: Tensor, tolerance: float = 0.0) -> Tensor:
        """Bool [B]: whether x [B, *shape] lies in the box (its limits loosened by the tolerance)."""
        flat = _points(x, self.conditions.inputs, "x")
        inside = (flat >= self.lower - tolerance) & (flat <= self.upper + tolerance)
        return inside.all(dim=1)

    def specification(
        self, dtype: torch.dtype = torch.float64, *, inputs: bool = False
    ) -> Specification:
        """The conditions as rows for a BoundMethod on a model of this dtype.

        inputs: rows over [y; x], exact for conditions on both, for `augmented(graph)`; without it,
        rows over y, where the part in x is replaced by its minimum over the box.
        """
        return specification(self.conditions, (self.lower, self.upper), dtype, inputs)

    def refuted(self, lower: Tensor, *, inputs: bool = False) -> bool:
        """Whether lower bounds [R] or [1, R] of `specification(lower.dtype)` refute the whole case.

        Every conjunction needs an atom whose minimum exceeds its threshold; NaN refutes nothing.
        """
        return bool(self.specification(lower.dtype, inputs=inputs).refuted(lower).all())

    def select(self, kept: Tensor) -> "Case":
        """The case with some of its conjunctions, by index or mask [D]: those not yet refuted."""
        return replace(self, conditions=self.conditions.select(kept))

    def sample(self, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        """Points [count, inputs], uniform in `inner`, by the seed."""
        box = self.inner(dtype=dtype)
        draws = torch.rand(count, len(self.lower), generator=generator(seed), dtype=torch.float64)
        low, high = box.lower.double(), box.upper.double()
        return box.project((low + draws * (high - low)).to(dtype))

    def _shape(self, shape: Shape | None) -> Shape:
        wanted = (len(self.lower),) if shape is None else tuple(shape)
        if torch.Size(wanted).numel() != len(self.lower):
            raise ArgumentError(f"{len(self.lower)} inputs do not fit the shape {list(wanted)}")
        return wanted


def _points(z: Tensor, size: int, name: str) -> Tensor:
    """[B, *shape] or one point -> [B, size] in float64 on the CPU."""
    if z.numel() % size or (z.ndim > 1 and z.numel() not in (size, len(z) * size)):
        raise ArgumentError(f"{name} must hold {size} numbers a point, got shape {tuple(z.shape)}")
    return z.detach().cpu().double().reshape(-1, size)
