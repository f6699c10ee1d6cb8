"""Builder with a memory: pointless reshapes are never written, equal views are shared."""

import torch
from torch import Tensor

from certus.graph.builder import Builder
from certus.graph.op import Op, Shape
from certus.graph.structural import Reshape


class Writer(Builder):
    """A Builder for the ONNX importer. `where` names the ONNX node that is being imported."""

    def __init__(self, input_shape: Shape, like: Tensor) -> None:
        super().__init__(input_shape, like)
        self.where = ""
        self._views: dict[tuple[int, Shape], int] = {}

    def add(self, op: Op, *inputs: int, source: str = "") -> int:
        """Append an operation; its source is the ONNX node."""
        return super().add(op, *inputs, source=source or self.where)

    def op(self, position: int) -> Op:
        """The operation at a position."""
        return self._nodes[position].op

    def inputs(self, position: int) -> tuple[int, ...]:
        """The positions that a node reads."""
        return self._nodes[position].inputs

    def view(self, position: int, shape: Shape) -> int:
        """The value in another shape of as many elements, through at most one Reshape."""
        if self.shape(position) == shape:
            return position
        if isinstance(self.op(position), Reshape):
            return self.view(self.inputs(position)[0], shape)
        if torch.Size(shape).numel() != torch.Size(self.shape(position)).numel():
            raise ValueError(f"{self.shape(position)} cannot be read as {shape}")
        if (position, shape) not in self._views:
            self._views[position, shape] = self.add(Reshape(shape), position)
        return self._views[position, shape]
