"""Structured ablation, for patches: a band or a block of an image is shown (Levine and Feizi 2020)."""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.ablated import ablated, ablated_shape, checked_null
from certus.smoothing.derandomized.base import Derandomized
from certus.smoothing.derandomized.votes import votes_to_spare


@dataclass(frozen=True)
class Windows(Derandomized):
    """Images [C, H, W] of which each copy shows one window, around the edges; the rest is NULL.

    There is one copy for every place of the window, which is `size` pixels wide in the directions it
    moves in. null None doubles the channels ([x, 1 - x], 0 in both where hidden), a number replaces
    hidden values by it.

    Certifies `patch`: the radius is the largest m such that no change within one m x m square, to
    any values, changes the answer. D copies show a pixel of such a square, all others stay the very
    same tensors, so n_A >= n_c + [c < A] + 2 D for all c != A is enough (Levine and Feizi 2020,
    NeurIPS, theorem 1). In a direction of n places min(m + size - 1, n) windows meet the square; D
    is the product over the directions.
    """

    size: int
    null: float | None = None
    norm: ClassVar[str] = "patch"

    def __post_init__(self) -> None:
        """Refuse a size that is no count, and a null that is no number."""
        validate.count(self.size, "size")
        checked_null(self.null)

    @abstractmethod
    def _shown(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a window."""

    def copies(self, shape: tuple[int, ...]) -> int:
        """One for each place of the window."""
        return prod(self._places(*_sides(shape)))

    def rows_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Twice the channels where null is None."""
        return ablated_shape(shape, self.null)

    def check(self, x: Tensor) -> None:
        """Refuse inputs that are no images [B, C, H, W]."""
        _sides(tuple(x.shape[1:]))

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Places start to stop - 1, counted along the columns first."""
        height, width = _sides(tuple(x.shape))
        high, wide = self._shown(height, width)
        place = torch.arange(start, stop, device=x.device)[:, None]
        across = self._places(height, width)[1]
        down = (torch.arange(height, device=x.device) - place // across) % height < high
        right = (torch.arange(width, device=x.device) - place % across) % width < wide
        kept = (down[:, None, :, None] & right[:, None, None, :]).to(x.dtype)
        out = x.new_empty((len(kept), *self.rows_shape(tuple(x.shape))))
        return ablated(x, kept, self.null, out)

    def met(self, patch: int, height: int, width: int) -> int:
        """D: the most copies that show a pixel of one patch x patch square of the image.

        Raises ArgumentError unless patch is a count.
        """
        validate.count(patch, "patch")
        shown, places = self._shown(height, width), self._places(height, width)
        return prod(min(patch + s - 1, n) for s, n in zip(shown, places, strict=True))

    def proven(self, counts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The largest m (at most the shorter side) whose D is at most the votes to spare."""
        sides = _sides(shape)
        met = [self.met(m, *sides) for m in range(1, min(sides) + 1)]
        return np.searchsorted(met, votes_to_spare(counts), side="right").astype(np.float64)

    def _places(self, height: int, width: int) -> tuple[int, int]:
        """Places in each direction; a window as long as the image does not move."""
        high, wide = self._shown(height, width)
        return (height if high < height else 1), (width if wide < width else 1)


@dataclass(frozen=True)
class Columns(Windows):
    """A band of `size` columns is shown: W copies; D = m + size - 1."""

    def _shown(self, height: int, width: int) -> tuple[int, int]:
        return height, self.size


@dataclass(frozen=True)
class Rows(Windows):
    """A band of `size` rows is shown: H copies; D = m + size - 1."""

    def _shown(self, height: int, width: int) -> tuple[int, int]:
        return self.size, width


@dataclass(frozen=True)
class Blocks(Windows):
    """A block of size x size pixels is shown: H W copies; D = (m + size - 1)^2."""

    def _shown(self, height: int, width: int) -> tuple[int, int]:
        return self.size, self.size


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of an image [C, H, W]."""
    if len(shape) != 3:
        raise ArgumentError(f"windows are cut from images [B, C, H, W], got {('B', *shape)}")
    return shape[1], shape[2]
