"""The end of a classifier that turns logits into probabilities, and the graph without it.

Softmax, log-softmax and sigmoid keep the order of the classes, in exact arithmetic. In floats they saturate:
different logits give the same probability, so what holds of logits must be carried over with care.
"""

from dataclasses import dataclass

from certus.graph.activation import Sigmoid
from certus.graph.affine import Sum
from certus.graph.graph import Graph
from certus.graph.op import Op
from certus.graph.softmax import LogSumExp, Softmax


@dataclass(frozen=True, eq=False)
class Ending:
    """logits: the graph up to the logits [K], of the same original as the whole. op: what follows them,

    `Softmax`, `Sigmoid`, or `LogSumExp` for a log-softmax.
    """

    logits: Graph
    op: Op


def ending_of(graph: Graph) -> Ending | None:
    """The ending of a graph whose output is a vector of probabilities or their logarithms, or None."""
    node = graph.nodes[graph.output]
    if len(node.shape) != 1 or node.shape[0] < 2:
        return None
    if isinstance(node.op, Softmax | Sigmoid):
        return Ending(graph.upto(node.inputs[0]), node.op)
    if isinstance(node.op, Sum) and node.op.factor == -1:
        second = graph.nodes[node.inputs[1]]
        if isinstance(second.op, LogSumExp) and second.inputs == node.inputs[:1]:
            return Ending(graph.upto(node.inputs[0]), second.op)
    return None


def logits_of(graph: Graph) -> Graph:
    """The graph without its ending; itself where it has none."""
    ending = ending_of(graph)
    return graph if ending is None else ending.logits
