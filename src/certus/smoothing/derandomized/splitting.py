"""Deterministic splitting noise, for L1 on quantised inputs (Levine and Feizi 2021)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import validate
from certus.core.random import generator
from certus.smoothing.derandomized.base import Derandomized
from certus.smoothing.derandomized.votes import votes_to_spare
from certus.smoothing.quantised import grid_positions, refuse_off_grid


@dataclass(frozen=True)
class Splitting(Derandomized):
    """Each value is replaced by the middle of the interval it lies in, for all `width` positions of the cuts.

    Inputs have values k / levels, k = 0..levels (8-bit images: 255); others are refused. The cuts of
    a value lie `width` levels apart, half a level above grid values, and every value has an offset of
    its own, drawn once from `seed`; copy number s moves all cuts on by s levels. So there are `width`
    copies, whatever the dimension; the noise's half width lambda is width / (2 levels).

    Certifies L1 between inputs on the grid. Two values t levels apart are told apart by at most t of
    the `width` positions (exactly min(t, width)), so a change whose absolute values add up to T
    levels changes at most T copies, whatever the offsets; all others are the very same tensors. The
    radius is floor((n_A - n_B - [B < A]) / 2) / levels, of the strongest rival B (Levine and Feizi
    2021, theorem 2 and corollary 1, with the tie rule of `votes_to_spare`). A point off the grid is not
    covered. The offsets are no part of the proof: they decouple the values, which the accuracy needs.
    """

    width: int
    levels: int = 255
    seed: int = 0
    norm: ClassVar[str] = "l1"

    def __post_init__(self) -> None:
        """Refuse a width, levels or seed that is no whole number."""
        validate.count(self.width, "width")
        validate.count(self.levels, "levels")
        validate.count(self.seed, "seed", 0)

    def check(self, x: Tensor) -> None:
        """Refuse inputs off the grid."""
        refuse_off_grid(x, self.levels)

    def copies(self, shape: tuple[int, ...]) -> int:
        """One for each position of the cuts."""
        return self.width

    def rows_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the input."""
        return shape

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Middles of the intervals, cut off at 0 and 1; the cuts lie at (o + 1/2 + n width) / levels."""
        width, top = self.width, 2 * self.levels
        offsets = torch.randint(width, x.shape, generator=generator(self.seed)).int().to(x.device)
        position = grid_positions(x, self.levels).int()
        beyond = (position - offsets - 1) % width  # levels between the cut of copy 0 and the value
        shift = torch.arange(start, stop, dtype=torch.int32, device=x.device)
        shift = shift.view(-1, *[1] * x.ndim)
        cut = 2 * (position - beyond) - 1 + 2 * shift  # in halves of a level
        cut.sub_(
            (shift > beyond).int().mul_(2 * width)
        )  # it moved past the value: the one before it counts
        middle = cut.clamp(min=0).add_(cut.add_(2 * width).clamp_(max=top))
        return middle.to(x.dtype).div_(2 * top)

    def proven(self, counts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The votes to spare, a level each."""
        return votes_to_spare(counts) / self.levels
