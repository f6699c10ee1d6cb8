"""Random ablation, for L0: a few features are shown, the others hidden (Levine and Feizi 2020)."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, prod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.ablated import ablated, ablated_shape, checked_null
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.whole import most_changes
from certus.smoothing.quantised import refuse_other_size


@dataclass(frozen=True)
class Ablation(Noise):
    """`keep` of the `size` values of an input are shown, all choices equally likely; the rest is NULL.

    null None doubles the channels ([x, 1 - x], 0 in both where hidden), a number replaces hidden
    values by it. Inputs of another size are refused; the proof holds for any values.

    Certifies L0. A change of r values is seen with chance D = 1 - C(d - r, k) / C(d, k), and an
    ablation that does not see it gives the same answer. So the radius is the largest r with
    pA - D > pB + D, strictly, in whole numbers (Levine and Feizi 2020, AAAI, theorem 1; with
    pB = 1 - pA it is pA - D > 1/2). The choices are made by the ranks of float64 draws.
    """

    keep: int
    size: int
    null: float | None = None
    norm: ClassVar[str] = "l0"
    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse numbers that are no counts, and keep > size."""
        if validate.count(self.keep, "keep") > validate.count(self.size, "size"):
            raise ArgumentError(f"keep ({self.keep}) must not exceed size ({self.size})")
        checked_null(self.null)

    def check(self, x: Tensor) -> None:
        """Refuse inputs of another size."""
        refuse_other_size(x, x[0].numel(), self.size, "values")

    def rows_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Twice the channels where null is None."""
        return ablated_shape(shape, self.null)

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """One where a feature is shown, zero where it is hidden."""
        flat = out.view(len(out), -1)
        rank = torch.rand(flat.shape, dtype=torch.float64, generator=generator)
        shown = rank.topk(self.keep, dim=1, sorted=False).indices
        flat.zero_().scatter_(1, shown, 1.0)

    def apply(self, x: Tensor, draws: Tensor, out: Tensor) -> Tensor:
        """The copy that shows what the draw says."""
        return ablated(x, draws, self.null, out)

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """The largest r with pA - pB > 2 D."""
        return most_changes(lower, upper, self.size, self._survives)

    def seen(self, changes: int) -> Fraction:
        """The chance D that an ablation shows any of so many changed features, exactly.

        Raises ArgumentError unless changes is a count from 0 to size.
        """
        if validate.count(changes, "changes", 0) > self.size:
            raise ArgumentError(f"changes ({changes}) must not exceed size ({self.size})")
        return 1 - _unseen(self.size, self.keep, changes)

    def _survives(self, lower: Fraction, upper: Fraction, changes: int) -> bool:
        return lower - upper > 2 * self.seen(changes)


@dataclass(frozen=True)
class PixelAblation(Ablation):
    """As `Ablation`, but a feature is a pixel in all channels of an image [C, *space].

    `size` is the number of pixels; certifies changes of whole pixels (`l0-pixels`).
    """

    norm: ClassVar[str] = "l0-pixels"

    def check(self, x: Tensor) -> None:
        """Refuse inputs without channels or with another number of pixels."""
        if x.ndim < 3:
            raise ArgumentError(f"pixels need inputs [B, C, *space], got {tuple(x.shape)}")
        refuse_other_size(x, prod(x.shape[2:]), self.size, "pixels")

    def draw_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One channel."""
        return (1, *shape[1:])


@lru_cache(maxsize=4096)
def _unseen(size: int, keep: int, changes: int) -> Fraction:
    """C(size - changes, keep) / C(size, keep), by the smaller of the two binomials it equals."""
    few, many = sorted((keep, changes))
    return Fraction(comb(size - many, few), comb(size, few))
