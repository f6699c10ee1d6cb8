"""How many multiply-adds a method needs at least, by formula from the graph.

The count is what Certus' way needs if nothing is wasted; auto_LiRPA's needs as much or more:

* interval bounds: two passes of the network (centre and radius);
* CROWN-IBP: interval bounds, and one row for each margin from the output to the input;
* CROWN: besides, for every neuron that intervals from tightened bounds leave undecided, one row for its
  lower and one for its upper bound, from the neuron to the input; both are one row up to the first
  non-linear node. A row that starts at one neuron of a feature map is a window, which grows by kernel and
  stride from layer to layer until it is the whole map; only the products inside the window count. The
  layer that starts a row only copies its weights. What one mixing layer computes from the input box is
  exact by intervals and needs no row. A node whose readers are not ReLUs needs rows for all its neurons;
  rows over tokens are taken as whole.
* alpha-CROWN: CROWN, and the rows of neurons that are undecided in the end n + 1 times forwards and n times
  backwards for Certus' n = `inner` steps of gradients (the peer takes all steps there); those of the
  specification the same for `iterations` steps, none settled early. The gradient of slopes passes every
  affine node after the first relaxation once.

Elementwise work, and moving data, is not counted: it is what keeps an engine away from the limit.
"""

import math
from dataclasses import dataclass
from typing import Any

Window = tuple[int, int] | None  # height and width of a row on a feature map; None: the whole node


@dataclass(frozen=True)
class Price:
    """Multiply-adds of one row: before and after the first non-linear node that it meets."""

    first: float
    rest: float

    def times(self, steps: int, both: bool = False) -> float:
        """With steps of gradients: steps + 1 walks and steps ways back; both: its negative as well."""
        walks = (steps + 1) * (self.first + (2 if both else 1) * self.rest)
        return walks + steps * (2 if both else 1) * self.rest


def multiply_adds(method: Any, graph: Any, state: Any, batch: int, rows: int) -> float:
    """Multiply-adds of a bound method for a batch and `rows` rows of a specification.

    state is what the method's `prepare` returned: how many neurons are undecided follows from it.
    """
    ranges = 2 * forward(graph) * batch
    if not hasattr(method, "intermediate"):
        return ranges
    walked = method.intermediate is None
    steps, inner = getattr(method, "iterations", 0), getattr(method, "inner", 0)
    found = ranges + batch * rows * price(graph, graph.output, None).times(steps)
    return found + (_inner_rows(graph, state, inner) if walked else 0.0)


def forward(graph: Any) -> float:
    """Multiply-adds of the network on one input."""
    return sum(_row(graph, i, None)[0] for i in range(1, len(graph.nodes)))


def price(graph: Any, start: int, window: Window) -> Price:
    """One row from a node to the input; window (1, 1): from one neuron of a map."""
    from certus.graph.op import Affine

    sizes: dict[int, Window] = {start: window}
    bent: set[int] = set()  # reached through a node that is not affine
    first = rest = 0.0
    for position in range(start, 0, -1):
        if position not in sizes:
            continue
        node = graph.nodes[position]
        cost, grown = _row(graph, position, sizes[position])
        before = position not in bent and isinstance(node.op, Affine)
        first, rest = (first + cost, rest) if before else (first, rest + cost)
        for source in node.inputs:
            held = sizes.get(source, (0, 0))
            sizes[source] = None if grown is None or held is None else _hull(held, grown)
        if not before:
            bent.update(node.inputs)
    return Price(first, rest)


def _hull(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return max(a[0], b[0]), max(a[1], b[1])


def _inner_rows(graph: Any, state: Any, steps: int) -> float:
    """Multiply-adds of the rows of all undecided inner neurons, lower and upper."""
    from certus.bounding.arithmetic import step

    total = 0.0
    for position in {i for p in state.relaxations for i in state.graph.nodes[p].inputs}:
        if position and not _one_layer(graph, position):
            row = price(graph, position, (1, 1))
            before = step(state.graph.nodes[position], state.intervals)
            total += _undecided(state.graph, position, before) * row.times(0, both=True)
            if steps:
                left = _undecided(state.graph, position, state.intervals[position])
                total += left * row.times(steps, both=True)
    return total


def _undecided(graph: Any, position: int, interval: tuple[Any, Any]) -> int:
    lower, upper = interval
    readers = {type(n.op).__name__ for n in graph.nodes if position in n.inputs}
    if readers & {"Relu", "LeakyRelu"}:
        return int(((lower < 0) & (upper > 0)).sum())
    return int((upper > lower).sum())


def _one_layer(graph: Any, position: int) -> bool:
    """Whether at most one mixing layer lies between this node and the input."""
    mixing = 0
    while position:
        node = graph.nodes[position]
        if len(node.inputs) != 1:
            return False
        mixing += _row(graph, position, None)[0] > node.numel
        position = node.inputs[0]
    return mixing <= 1


def _row(graph: Any, position: int, window: Window) -> tuple[float, Window]:
    """Multiply-adds of pulling one row through a node, and the window on its input (None: all)."""
    node = graph.nodes[position]
    before = graph.nodes[node.inputs[0]].shape if node.inputs else ()
    maps = len(node.shape) == 3 and len(before) == 3
    if type(node.op).__name__ == "Conv" and maps:
        return _convolution(node, before, window)
    cost = _mixing(node, before)
    if cost is None:  # elementwise, or moves values
        return 0.0, window if maps and node.shape == before else None
    return 0.0 if window == (1, 1) else float(cost), None


def _convolution(node: Any, before: tuple[int, ...], window: Window) -> tuple[float, Window]:
    weight, sides = node.op.weight, node.shape[1:]
    own = sides if window is None else [min(a, b) for a, b in zip(window, sides, strict=True)]
    reach = [
        (size - 1) * stride + dilation * (kernel - 1) + 1
        for size, stride, dilation, kernel in zip(
            own, node.op.stride, node.op.dilation, weight.shape[2:], strict=True
        )
    ]
    cost = 0 if window == (1, 1) else node.shape[0] * own[0] * own[1] * weight[0].numel()
    whole = window is None or (reach[0] >= before[1] and reach[1] >= before[2])
    return float(cost), None if whole else (reach[0], reach[1])


def _mixing(node: Any, before: tuple[int, ...]) -> int | None:
    """Products that a node takes; None where values are not mixed by weights or by each other."""
    op, kind = node.op, type(node.op).__name__
    if kind == "Linear":
        return int(node.numel * before[-1])
    if kind == "Product":  # a row goes to both factors
        return int(2 * node.numel * before[-1])
    if kind == "MatMul":
        return int(node.numel * op.matrix.shape[-1 if op.left else -2])
    if kind == "Conv":
        return int(node.numel * op.weight[0].numel())
    if kind == "ConvTranspose":
        return int(math.prod(before) * op.weight[0].numel())
    return None
