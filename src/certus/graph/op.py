"""Capability classes: what an operation promises, which is all that an engine may rely on."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

Shape = tuple[int, ...]  # of one input, without the batch dimension


@dataclass(frozen=True, eq=False)
class Op(ABC):
    """One operation of a network. Tensors have the batch first; fields are its parameters, live.

    fresh: the result shares no memory with anything else, so that its last reader may write over it.
    """

    fresh: ClassVar[bool] = False

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """Evaluate on a batch."""

    def overwrite(self, *inputs: Tensor) -> Tensor:
        """The same numbers as `forward`, where inputs[0] may be written over."""
        return self.forward(*inputs)

    @property
    def name(self) -> str:
        """The class name, as reports and errors show it."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Input(Op):
    """The network's input; a walk supplies its value."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Never evaluated: refuse."""
        raise RuntimeError("an input has no value of its own")


@dataclass(frozen=True, eq=False)
class Affine(Op):
    """Promise: f(x_1, ..., x_k) = sum_i W_i x_i + b, the same for every element of the batch."""

    @abstractmethod
    def magnitude(self, *radii: Tensor) -> Tensor:
        """sum_i |W_i| r_i for radii r_i >= 0: the radius of the image of a box."""

    def transpose(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """rows [N, *out] times W_i, for every i: [N, *in_i]. Default: vjp, exact for affine maps.

        An operation may override this with something faster; a law compares the two. Last inputs
        that are not read (W_i = 0) may be left out.
        """
        zeros = [rows.new_zeros(rows.shape[0], *shape) for shape in shapes]
        pull = torch.func.vjp(self.forward, *zeros)[1]
        return pull(rows)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """b as [1, *out], or None where it is zero."""
        return self.forward(*[like.new_zeros(1, *shape) for shape in shapes])

    def offset_terms(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """The absolute terms that b is computed from, [1, *out]: |b| where it is one number."""
        offset = self.offset(shapes, like)
        return None if offset is None else offset.abs()

    def drift(self, sizes: Tensor) -> Tensor | None:
        """How far an engine's own weights may carry a value, in eps, for |x| = sizes [B, *in].

        None where weights are taken as they are. An interpolation computes them from coordinates, so
        that they are off by units of the largest coordinate, also where they are zero.
        """
        return None


@dataclass(frozen=True, eq=False)
class Selection(Affine):
    """Promise: affine without offset and with entries W_i >= 0 (moves, copies, averages)."""

    def magnitude(self, *radii: Tensor) -> Tensor:
        """The operation itself, since |W| = W."""
        return self.forward(*radii)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        """None: there is no offset."""
        return None


@dataclass(frozen=True, eq=False)
class Monotone(Op):
    """Promise: non-decreasing in every coordinate of every input."""


@dataclass(frozen=True, eq=False)
class Elementwise(Op):
    """Promise: output element i is one function of input element i alone."""

    @abstractmethod
    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest value on [lower, upper], or outer bounds; NaN outside the domain."""

    @abstractmethod
    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """A range that holds every difference quotient (f(a) - f(b)) / (a - b), a != b in [lower, upper].

        Infinite where there is none; NaN outside the domain.
        """

    @property
    def lipschitz(self) -> float:
        """Largest absolute slope of the function anywhere; infinity claims nothing."""
        return float("inf")


@dataclass(frozen=True, eq=False)
class Increasing(Elementwise, Monotone):
    """Promise: elementwise and non-decreasing."""

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """f(l), f(u)."""
        return self.forward(lower), self.forward(upper)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """0 and the Lipschitz constant."""
        return torch.zeros_like(lower), torch.full_like(lower, self.lipschitz)


@dataclass(frozen=True, eq=False)
class Bilinear(Op):
    """Promise: f(x, y) is linear in x for fixed y and linear in y for fixed x."""


def gathered(rows: Tensor, shape: Shape) -> Tensor:
    """Rows [N, *spread] summed over the dimensions that broadcasting has spread from [*shape]."""
    if rows.shape[1:] == shape:
        return rows
    spread = [d for d, (a, s) in enumerate(zip(rows.shape[1:], shape, strict=True), 1) if a != s]
    return rows.sum(spread, keepdim=True)


def tensors_of(op: Op) -> list[tuple[str, Any]]:
    """The fields of an operation that hold tensors."""
    return [(name, value) for name, value in vars(op).items() if isinstance(value, Tensor)]
