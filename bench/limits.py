"""How many multiply-adds a method needs at least, and how fast this machine does them.

The count is an estimate of what backward bounds need if nothing is wasted:

* interval bounds: two passes of the network (centre and radius);
* rows of the specification: one backward pass over the network each;
* CROWN: for every neuron that is still undecided in the end, one row for its lower and one for its
  upper bound, from the neuron to the input. A row that starts at one neuron of a feature map is a
  window, which grows by kernel and stride from layer to layer until it is the whole map; only the
  products inside the window count. The layer that starts a row only copies its weights. What one
  mixing layer computes from the input box is exact by intervals and needs no row. A node whose readers
  are not ReLUs needs rows for all its neurons; rows over tokens are taken as whole.
* alpha-CROWN: CROWN, then for each iteration three times the rows of the specification (forward, and
  twice that for the gradient). Slopes of inner layers are not improved in this count.

Elementwise work, and moving data, is not counted: it is what keeps an engine away from the limit.
"""

from typing import Any

import torch
from engines import ITERATIONS, certus_graph, certus_method, timed
from nets import Case
from torch.nn.functional import conv_transpose2d

ROWS = 9  # of the specification


def multiply_adds(case: Case, crown: bool) -> dict[str, float]:
    """Multiply-adds for the whole batch and each method; CROWN's come from the state it ends with."""
    import certus

    graph = certus_graph(case).resolved()
    batch = len(case.x)
    forward = batch * sum(_row(graph, i, None)[0] for i in range(1, len(graph.nodes)))
    counts = {"forward": forward, "ibp": 2 * forward}
    spec = batch * ROWS * _walk(graph, graph.output, None)
    counts["crown-ibp"] = counts["ibp"] + spec
    if not crown:
        return counts
    with torch.no_grad():
        state = certus_method("crown").prepare(graph, certus.Box(case.lower, case.upper))
    counts["crown"] = _inner_rows(state) + spec
    counts["alpha-crown"] = counts["crown"] + 3 * ITERATIONS * spec
    return counts


def _inner_rows(state: Any) -> float:
    """Multiply-adds of the rows of all undecided inner neurons, lower and upper."""
    graph, total = state.graph, 0.0
    for position in {i for p in state.relaxations for i in graph.nodes[p].inputs}:
        if not _one_layer(graph, position):
            total += 2 * _undecided(state, position) * _walk(graph, position, 1)
    return total


def _undecided(state: Any, position: int) -> int:
    lower, upper = state.intervals[position]
    readers = {type(n.op).__name__ for n in state.graph.nodes if position in n.inputs}
    if readers & {"Relu", "LeakyRelu"}:
        return int(((lower < 0) & (upper > 0)).sum())
    return int(lower.numel())


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


def _walk(graph: Any, start: int, window: int | None) -> float:
    """Multiply-adds of one row from a node to the input; window 1: from one neuron of a map."""
    sizes: dict[int, int | None] = {start: window}
    total = 0.0
    for position in range(start, 0, -1):
        if position not in sizes:
            continue
        own = sizes[position]
        cost, grown = _row(graph, position, own)
        total += cost
        for source in graph.nodes[position].inputs:
            held = sizes.get(source, 0)
            sizes[source] = None if grown is None or held is None else max(held, grown)
    return total


def _row(graph: Any, position: int, window: int | None) -> tuple[float, int | None]:
    """Multiply-adds of pulling one row through a node, and the window on its input (None: all)."""
    node = graph.nodes[position]
    kind, shape = type(node.op).__name__, node.shape
    before = graph.nodes[node.inputs[0]].shape if node.inputs else ()
    if kind == "Conv" and len(shape) == 3:
        side = max(shape[1:])
        own = side if window is None else min(window, side)
        reach = (own - 1) * node.op.stride[0] + node.op.weight.shape[-1]
        cost = 0 if window == 1 else shape[0] * own * own * node.op.weight[0].numel()
        return float(cost), None if window is None or reach >= max(before[1:]) else reach
    inner = {"Linear": before[-1:], "Product": before[-1:] * 2, "MatMul": before}.get(kind)
    if kind == "MatMul":
        inner = (max(node.op.matrix.shape[-2:]),)
    if inner is None:
        return 0.0, window if shape == before and len(shape) == 3 else None
    return 0.0 if window == 1 else float(node.numel * sum(inner)), None


def rates(threads: int) -> dict[str, float]:
    """Measured GFLOP/s in float32: matrix products of several sizes and transposed convolutions."""
    torch.set_num_threads(threads)
    found = {}
    for size in (1024, 2048, 4096):
        a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
        seconds = _best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
        found[f"matmul {size}"] = 2 * size**3 / seconds / 1e9
    for name, rows, weight, stride in (
        ("CNN-A windows, conv_transpose [256,32,4,4] k4 s2", (256, 32, 4, 4), (32, 16, 4, 4), 2),
        ("CNN7 windows, conv_transpose [256,128,5,5] k3", (256, 128, 5, 5), (128, 128, 3, 3), 1),
        ("CNN7 maps, conv_transpose [64,128,16,16] k3", (64, 128, 16, 16), (128, 128, 3, 3), 1),
    ):
        x, w = torch.randn(rows), torch.randn(weight)
        seconds = _best(lambda x=x, w=w, s=stride: conv_transpose2d(x, w, stride=s))
        found[name] = 2 * x.numel() * w[0].numel() / seconds / 1e9
    return found


def _best(run: Any, budget: float = 1.0) -> float:
    """The least seconds of repeated calls."""
    best, spent = timed(run)[0], 0.0
    while spent < budget:
        seconds = timed(run)[0]
        best, spent = min(best, seconds), spent + seconds
    return best
