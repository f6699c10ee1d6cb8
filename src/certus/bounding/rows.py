"""Rows: linear functionals on their way from a node back to the input."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from torch import Tensor

from certus.graph.graph import Graph, Node
from certus.relax import Interval, Relaxation
from certus.threats import Region


class Rows(ABC):
    """Functionals <row, value of a node>, every row of one input or of all inputs of a state.

    coefs are the coefficients. What rows give in total, offsets and bounds, is [R, B] in a layout that
    stays the same on the whole way.
    """

    coefs: Tensor

    @abstractmethod
    def affine(self, graph: Graph, node: Node) -> tuple[Sequence["Rows"], Tensor | None]:
        """Rows on every input of the affine node at which they are, and <row, b>; exact."""

    @abstractmethod
    def relaxed(
        self, relaxation: Relaxation, slope: Tensor | None
    ) -> tuple[Sequence["Rows"], Tensor]:
        """Rows on the inputs and an offset that lie below the rows at a non-linear node.

        slope: lower slopes of the rows' own, as `laid` out.
        """

    @abstractmethod
    def least(self, interval: Interval) -> Tensor:
        """The least values of the rows on a node's interval [B, *shape]."""

    @abstractmethod
    def within(self, region: Region, shape: tuple[int, ...]) -> tuple[Region, Tensor]:
        """The region of each row's own inputs or coordinates, and coefficients [., ., *] for it.

        What `linear_range` of that region finds is not yet in the layout of totals: see `totals`.
        """

    @abstractmethod
    def totals(self, values: Tensor) -> Tensor:
        """Numbers for each row, as the rows' coefficients are arranged, in the layout of totals."""

    @abstractmethod
    def weigh(self, weights: Tensor, keep: bool = True) -> Tensor:
        """<|row|, weights> for weights [B, *shape]; keep: whether these will be asked for again."""

    @abstractmethod
    def of_inputs(self, values: Tensor) -> Tensor:
        """For each row the value of its input, from values [B]."""

    @abstractmethod
    def laid(self, maps: Tensor) -> Tensor:
        """A tensor [B, *shape] as it lies beside the coefficients, without the first dimension."""

    @abstractmethod
    def doubled(self) -> Self:
        """Every row, then every negative."""

    @abstractmethod
    def width(self, inputs: int) -> int:
        """B of the totals [R, B] for a state of so many inputs."""
