"""What a builder of Graph operations sees of one ONNX node, and the tables that builders enter.

A builder reads its inputs from a `Call` and returns a value or a list of values, one for each output.
It raises `Unsupported` with a reason where it has no sound counterpart.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core import ModelError
from certus.graph.onnx.reader import Node
from certus.graph.onnx.values import Data, canonical, kind_of
from certus.graph.onnx.writer import Writer
from certus.graph.op import Op, Shape

_MOST = 2**24  # numbers in one value
Value = Any  # np.ndarray, Data or Ragged
Result = Any  # Value or list of values
BUILDERS: dict[str, Callable[["Call"], Result]] = {}  # some input depends on the network's input


class Unsupported(Exception):  # noqa: N818  (internal signal, becomes an UnsupportedError)
    """This use of an operation has no sound counterpart; the text says why."""


class Call:
    """One node with the values of its inputs; axes and shapes are those of ONNX at batch 1."""

    def __init__(
        self,
        node: Node,
        values: Sequence[Value],
        writer: Writer,
        opset: int,
        uses: Mapping[str, int] | None = None,
    ) -> None:
        self.node, self.values, self.writer, self.opset = node, list(values), writer, opset
        self._uses = uses or {}

    def __getitem__(self, index: int) -> Value:
        """An input, None where it is absent."""
        return self.values[index] if index < len(self.values) else None

    def alone(self, value: Value) -> bool:
        """Whether nobody but this node reads a value, as far as the names of the inputs tell."""
        names = zip(self.node.inputs, self.values, strict=False)
        return all(self._uses.get(name, 0) <= 1 for name, own in names if own is value)

    def attribute(self, name: str, default: Any = None) -> Any:
        """A plain attribute."""
        return self.node.attributes.get(name, default)

    def data(self, index: int = 0) -> Data:
        """An input that depends on the network's input."""
        found = self[index]
        if not isinstance(found, Data):
            raise Unsupported(f"input {index} is expected to depend on the network's input")
        return found

    def array(self, index: int, default: Any = None) -> Any:
        """A constant input, or the default where it is absent."""
        found = self[index]
        if found is None:
            return default
        if not isinstance(found, np.ndarray):
            raise Unsupported(f"input {index} depends on the network's input")
        return found

    def ints(self, index: int, name: str = "", default: Any = None) -> Any:
        """Integers from a constant input, from an attribute in older operator sets, or a default."""
        found = self.array(index) if index >= 0 else None
        if found is None and name:
            found = self.attribute(name)
        if found is None:
            return default
        return [int(i) for i in np.asarray(found).reshape(-1)]

    def number(self, index: int, name: str = "", default: float | None = None) -> float | None:
        """One number from a constant input, from an attribute, or a default."""
        found = self.array(index) if index >= 0 else None
        if found is None and name:
            found = self.attribute(name)
        if found is None:
            return default
        flat = np.asarray(found, dtype=np.float64).reshape(-1)
        if len(flat) == 0 or bool((flat != flat[0]).any()):
            raise Unsupported("a constant that should be one number is not")
        return float(flat[0])

    def tensor(self, array: Any) -> Tensor:
        """A constant as a tensor in the network's dtype; refuses what is not finite."""
        like = self.writer.like
        found = torch.tensor(np.asarray(array), dtype=like.dtype, device=like.device)
        if not bool(torch.isfinite(found).all()):
            raise ModelError(f"{self.node.where()} uses a constant with NaN or infinite values")
        return found

    def kind(self, dtype: Any) -> str:
        """The kind of a numpy type; refuses floating types other than the network's own."""
        found = np.dtype(dtype)
        own = str(self.writer.like.dtype).removeprefix("torch.")
        if found.kind == "f" and found.name != own:
            raise Unsupported(f"a change of precision: values of {found.name} in a {own} network")
        return kind_of(found)

    def put(self, op: Op, *positions: int, shape: Shape, kind: str = "f") -> Data:
        """Write an operation whose result is read in an ONNX shape."""
        return Data(self.writer.add(op, *positions), tuple(int(d) for d in shape), kind)

    def at(self, value: Data, shape: Shape | None = None) -> int:
        """The position of a value in a given shape (default: that of one element of the batch)."""
        return self.writer.view(
            value.position, canonical(value.shape) if shape is None else tuple(shape)
        )

    def over(self, value: Data, *axes: int) -> tuple[int, tuple[int, ...]]:
        """A position and the graph dimensions of ONNX axes (which may be negative).

        The leading ONNX dimension of size one stands for the batch, unless an axis names it.
        """
        named = [axis_of(axis, value.rank) for axis in axes]
        lead = len(value.shape) - len(canonical(value.shape))
        if lead > 0 and 0 in named:
            return self.at(value, value.shape), tuple(a + 1 for a in named)
        return self.at(value), tuple(a + 1 - lead for a in named)

    def same(self, op: Op, value: Data, kind: str = "f") -> Data:
        """Write an elementwise operation, in whatever shape the value lies."""
        return self.put(op, value.position, shape=value.shape, kind=kind)


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front; Unsupported where the tensor has no such axis."""
    if not -rank <= axis < max(rank, 1):
        raise Unsupported(f"axis {axis} of a tensor with {rank} dimensions")
    return axis % rank if rank else 0


def affordable(shape: Sequence[Any], given: int = 0) -> Sequence[Any]:
    """The shape, unless a file asks for more numbers than networks hold, or a few times `given`."""
    if math.prod(int(d) for d in shape) > max(_MOST, 4 * given):
        raise Unsupported(f"a value of shape {[int(d) for d in shape]}")
    return shape


def broadcast(*shapes: Sequence[int]) -> Shape:
    """The shape of an elementwise result; Unsupported where shapes do not fit."""
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*[tuple(s) for s in shapes]))
    except ValueError as error:
        raise Unsupported(f"shapes {[list(s) for s in shapes]} do not broadcast") from error


def builds(*ops: str) -> Callable[[Callable[[Call], Result]], Callable[[Call], Result]]:
    """Decorator: use the function for these operators on data."""

    def add(function: Callable[[Call], Result]) -> Callable[[Call], Result]:
        for op in ops:
            if op in BUILDERS:
                raise ValueError(f"{op} has two entries")
            BUILDERS[op] = function
        return function

    return add
