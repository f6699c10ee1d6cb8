"""Region: the set of inputs that an adversary may choose, one set for each input of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Region(ABC):
    """A convex set for each of B inputs; every tensor here is [B, *shape] in the model's dtype.

    An engine asks nothing else of a norm: the range of a linear form, a bounding box, and, for
    attacks and tests, projection, sampling and membership.
    """

    @property
    @abstractmethod
    def center(self) -> Tensor:
        """A point of the region, [B, *shape]."""

    @property
    @abstractmethod
    def lower(self) -> Tensor:
        """Lower corner of a box that contains the region, [B, *shape]."""

    @property
    @abstractmethod
    def upper(self) -> Tensor:
        """Upper corner of a box that contains the region, [B, *shape]."""

    @abstractmethod
    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of <row, x> over the region.

        rows is [R, B, *shape] or [R, 1, *shape] (shared by the batch); both results are [R, B].
        They may be outer bounds where the exact range is dear (a ball cut by the clip box).
        """

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """A point of the region near x [B, *shape]; x itself where it lies inside."""

    @abstractmethod
    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """One random point for each input, row b drawn from generators[b]; [B, *shape]."""

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Bool [B]: whether x lies in the region as it was written, with zero tolerance.

        Exact, or wrong on the side of False: what counts as a counterexample rests on it.
        """

    def allows(self, x: Tensor) -> Tensor:
        """Bool [B]: whether x may be the clean input: a member, up to the rounding of the limits.

        Bounds hold for it as well, but where it is no member, it is no counterexample.
        """
        return self.contains(x)

    @abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """The displacement of unit size (in the region's own norm, scaled by eps) along which a
        linear function with this gradient [B, *shape] grows most; used by attacks."""

    @abstractmethod
    def l2_extent(self, x: Tensor) -> Tensor:
        """[B]: an upper bound of ||x' - x||_2 over all x' of the region."""

    @abstractmethod
    def select(self, index: Tensor) -> "Region":
        """The region of some of the inputs: index is int64 [M] or bool [B]."""

    def picked(self, pick: Callable[[Tensor], Tensor]) -> "Region | None":
        """The projection onto some coordinates, for `linear_range` alone; None where it is not known.

        pick maps [B, *shape] to [M, *other], every element a copy of one element of one input, or
        zero where the projection has no coordinate.
        """
        return None

    def __len__(self) -> int:
        """Number of inputs B."""
        return self.center.shape[0]


def spread(value: Tensor, like: Tensor) -> Tensor:
    """Reshape a per-input value [B] so that it broadcasts against [B, *shape]."""
    return value.reshape(-1, *[1] * (like.ndim - 1))
