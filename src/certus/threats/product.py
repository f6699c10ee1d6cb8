"""Product: independent regions side by side, for networks with several inputs in one flat tensor."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.threats.region import Region
from certus.threats.rounding import rounded


class Product(Region):
    """{(x_1, ..., x_k) : x_i in region i}, each flattened and put side by side: [B, n_1 + ... + n_k].

    All regions have the same B and dtype. Everything is exact where the parts are. Raises
    ArgumentError for no regions or batches of different sizes.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        if not regions or len({len(region) for region in regions}) != 1:
            raise ArgumentError("a product needs at least one region, all with the same batch size")
        if len({region.center.dtype for region in regions}) != 1:
            raise ArgumentError("the regions of a product must have one dtype")
        self._regions = tuple(regions)
        self._shapes = [region.center.shape[1:] for region in regions]
        self._sizes = [shape.numel() for shape in self._shapes]

    @property
    def center(self) -> Tensor:
        """The centres, [B, n]."""
        return self._join([region.center for region in self._regions])

    @property
    def lower(self) -> Tensor:
        """Lower corners, [B, n]."""
        return self._join([region.lower for region in self._regions])

    @property
    def upper(self) -> Tensor:
        """Upper corners, [B, n]."""
        return self._join([region.upper for region in self._regions])

    def linear_range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The ranges of the parts, added."""
        low: Tensor | float = 0.0
        high: Tensor | float = 0.0
        pieces = rows.split(self._sizes, 2)
        for region, piece, shape in zip(self._regions, pieces, self._shapes, strict=True):
            found = region.linear_range(piece.reshape(*rows.shape[:2], *shape))
            low, high = low + found[0], high + found[1]
        assert isinstance(low, Tensor) and isinstance(high, Tensor), "there is at least one region"
        return low, high

    def project(self, x: Tensor) -> Tensor:
        """Each part projected."""
        return self._each(lambda region, part: region.project(part), x)

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """The parts drawn one after the other from the same generators."""
        return self._join([region.sample(generators) for region in self._regions])

    def contains(self, x: Tensor) -> Tensor:
        """Whether every part lies in its region."""
        return self._all(lambda region, part: region.contains(part), x)

    def allows(self, x: Tensor) -> Tensor:
        """Whether every region allows its part."""
        return self._all(lambda region, part: region.allows(part), x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The steepest displacement of every part."""
        return self._each(lambda region, part: region.steepest(part), gradient)

    def l2_extent(self, x: Tensor) -> Tensor:
        """The root of the sum of squares."""
        parts = zip(self._regions, self._split(x), strict=True)
        reach = torch.stack([region.l2_extent(part).double() for region, part in parts])
        return rounded(reach.norm(dim=0), x.dtype, up=True)

    def select(self, index: Tensor) -> "Product":
        """Some of the inputs."""
        return Product([region.select(index) for region in self._regions])

    def _split(self, x: Tensor) -> list[Tensor]:
        pieces = x.split(self._sizes, 1)
        return [p.reshape(len(x), *s) for p, s in zip(pieces, self._shapes, strict=True)]

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.flatten(1) for part in parts], 1)

    def _all(self, holds: Callable[[Region, Tensor], Tensor], x: Tensor) -> Tensor:
        parts = zip(self._regions, self._split(x), strict=True)
        return torch.stack([holds(region, part) for region, part in parts]).all(0)

    def _each(self, function: Callable[[Region, Tensor], Tensor], x: Tensor) -> Tensor:
        parts = zip(self._regions, self._split(x), strict=True)
        return self._join([function(region, part) for region, part in parts])
