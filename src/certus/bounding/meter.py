"""Meter: what a backward walk is charged for the roundings on its way."""

from torch import Tensor

from certus.bounding.rows import Rows
from certus.graph.graph import Node
from certus.threats import Region


class Meter:
    """No charges: bounds as floats give them. A walk has a meter of its own, and tells it of every step."""

    def enter(self, position: int, node: Node, rows: Rows) -> None:
        """Rows pass a node."""

    def meet(self, position: int, held: Rows | None, rows: Rows) -> None:
        """Rows come to a node; held: those that have come there before."""

    def relaxed(self, position: int, offset: Tensor) -> None:
        """The relaxation of a node gave an offset [R, B]."""

    def added(self, total: Tensor) -> None:
        """An offset was added to the total [R, B]."""

    def range(self, rows: Rows, region: Region, shape: tuple[int, ...]) -> Tensor:
        """The least values of rows that have reached the input, of this shape."""
        part, coefs = rows.within(region, shape)
        return rows.totals(part.linear_range(coefs)[0])

    def double(self) -> None:
        """The rows were joined by their negatives."""

    def result(self, total: Tensor) -> Tensor:
        """The bounds, from the total [R, B]."""
        return total
