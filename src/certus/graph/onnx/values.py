"""What a name in an ONNX network stands for while it is imported.

A constant is a numpy array; a value that depends on the network's input is `Data`. Shapes of
constants whose size depends on the input are in `ragged`.
"""

from dataclasses import dataclass

import numpy as np

from certus.graph.op import Shape
from certus.graph.whole import LIMITS


@dataclass(frozen=True)
class Data:
    """A value that depends on the input: a node of the graph, read in the ONNX shape (at batch 1).

    The node's own shape [B, *any] may differ; its values lie in the same row-major order, so that
    Reshape, Flatten, Squeeze and Unsqueeze need no operation. kind is f for numbers in the network's
    own type, b for truth values (0 and 1), and the name of the type for whole numbers.
    """

    position: int
    shape: Shape
    kind: str = "f"

    @property
    def rank(self) -> int:
        """Number of ONNX dimensions."""
        return len(self.shape)


class Broken:
    """The result of a node that could not be imported; whoever reads it is not examined further."""


def canonical(shape: Shape) -> Shape:
    """The shape of one element of the batch: without a leading ONNX dimension of size one."""
    if len(shape) >= 2 and shape[0] == 1:
        return shape[1:]
    return shape or (1,)


def kind_of(dtype: object) -> str:
    """The kind of a numpy type; the name itself for whole numbers."""
    found = np.dtype(dtype)  # type: ignore[call-overload]
    return str(found.name) if found.kind in "iu" else str(found.kind)


def is_whole(kind: str) -> bool:
    """Whether it is a type of whole numbers."""
    return kind in LIMITS
