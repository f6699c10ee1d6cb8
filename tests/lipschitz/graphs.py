"""Graphs from a list of operations."""

from collections.abc import Sequence

import torch
from torch import Tensor

from certus.graph import Graph
from certus.graph.builder import Builder
from certus.graph.op import Op


def build(
    ops: Sequence[tuple[Op, tuple[int, ...], str]], shape: tuple[int, ...], original, like: Tensor
) -> Graph:
    """The operations in order, the first at position 1; the last is the output."""
    builder = Builder(shape, like)
    last = 0
    with torch.no_grad():
        for op, inputs, source in ops:
            last = builder.add(op, *inputs, source=source)
    return builder.finish(last, original)
