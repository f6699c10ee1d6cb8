"""A node's value as an affine function of the network's input and of its non-linear nodes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.bounding.maps import pull_affine
from certus.graph import Graph
from certus.graph.op import Affine
from certus.threats.box import inner

ErrorOf = Callable[[int], Tensor | None]


def exact(position: int) -> Tensor | None:
    """No error: real arithmetic."""
    return None


@dataclass(frozen=True, eq=False)
class AffineForm:
    """value = sum_u matrices[u] @ (value of node u) + offset, up to error.

    matrices [R, numel of u]; offset and error [R]. error: what an evaluation of the affine nodes on the way
    may be off by, zero where exact arithmetic is meant.
    """

    matrices: dict[int, Tensor]
    offset: Tensor
    error: Tensor


def affine_form(graph: Graph, start: int, rows: Tensor, error_of: ErrorOf = exact) -> AffineForm:
    """Functionals `rows` [R, *shape] of node `start`, pulled back to the nearest non-affine nodes.

    error_of gives a node's own error [1, *shape], or None for zero.
    """
    pending: dict[int, Tensor] = {start: rows.unsqueeze(1)}
    matrices: dict[int, Tensor] = {}
    offset = torch.zeros(len(rows), dtype=rows.dtype, device=rows.device)
    error = torch.zeros_like(offset)
    for position in range(start, -1, -1):
        held = pending.pop(position, None)
        if held is None:
            continue
        node = graph.nodes[position]
        if isinstance(node.op, Affine):
            own = error_of(position)
            if own is not None:
                error = error + inner(held.abs(), own)[:, 0]
            pulled, part = pull_affine(graph, node, held)
            # last inputs that are not read, as those of a constant, are left out
            for source, rows_of in zip(node.inputs, pulled, strict=False):
                old = pending.get(source)
                pending[source] = rows_of if old is None else old + rows_of
            offset = offset if part is None else offset + part[:, 0]
        else:
            matrices[position] = held.flatten(1)
    return AffineForm(matrices, offset, error)
