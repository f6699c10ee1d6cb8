"""The reverse walk: push linear functionals from a node back to the input, concretise there."""

from torch import Tensor

from certus.bounding.base import State
from certus.graph.graph import Graph, Node
from certus.graph.op import Affine, Input
from certus.threats.box import inner


def lower_bound(state: State, start: int, rows: Tensor) -> Tensor:
    """A lower bound [R, B] of <row, value of node `start`> for rows [R, B or 1, *shape].

    Affine operations are pulled back exactly. A non-linear node is replaced by its relaxation where
    the state has one; elsewhere the walk stops there and uses the node's interval.
    Source: Zhang et al. 2018, section 3 (CROWN), on a general graph.
    """
    graph = state.graph
    pending: dict[int, Tensor] = {start: rows}
    total: Tensor | None = None
    for position in range(start, -1, -1):
        held = pending.pop(position, None)
        if held is None:
            continue
        node = graph.nodes[position]
        if isinstance(node.op, Input):
            part: Tensor | None = state.region.linear_range(held)[0]
        elif isinstance(node.op, Affine):
            part = pull_affine(graph, node, held, pending)
        elif position in state.relaxations:
            pulled, part = state.relaxations[position].pull(held)
            for source, part_of in zip(node.inputs, pulled, strict=True):
                _add(pending, source, part_of)
        else:
            lower, upper = state.intervals[position]
            part = inner(held.clamp(min=0), lower) + inner(held.clamp(max=0), upper)
        total = part if total is None else total if part is None else total + part
    assert total is not None, "a walk always ends at the input or at an interval"
    batch = len(state.region)
    return total.expand(-1, batch)


def pull_affine(
    graph: Graph, node: Node, rows: Tensor, pending: dict[int, Tensor]
) -> Tensor | None:
    """Send rows W_i to every input of an affine node; returns <row, b> as [R, B or 1]."""
    count, batch = rows.shape[:2]
    shapes = graph.shapes(node)
    flat = rows.reshape(count * batch, *rows.shape[2:])
    pulled = node.op.transpose(flat, shapes)  # type: ignore[attr-defined]
    for source, part in zip(node.inputs, pulled, strict=True):
        _add(pending, source, part.reshape(count, batch, *part.shape[1:]))
    offset = node.op.offset(shapes, rows)  # type: ignore[attr-defined]
    if offset is None:
        return None
    offset = offset.expand(1, *node.shape).reshape(-1)
    return (flat.reshape(count * batch, -1) @ offset).view(count, batch)


def _add(pending: dict[int, Tensor], position: int, rows: Tensor) -> None:
    held = pending.get(position)
    pending[position] = rows if held is None else held + rows
