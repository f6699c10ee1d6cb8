"""Evaluations that err: every operation by its local error, the most that an engine may lose there."""

import torch
from torch import Tensor

from certus.bounding.engine import Engine
from certus.bounding.evaluation import local_error
from certus.graph import Graph

COARSE = Engine(
    "torch", torch.float32, factors=2.0**-11
)  # products of few digits, so that errors are seen


def noisy(graph: Graph, x: Tensor, engine: Engine, generator: torch.Generator) -> Tensor:
    """The network's value on x, each node moved by its error: at random, or all one way."""
    one_way = torch.randint(-1, 2, (), generator=generator).double()  # 0: at random
    values = [x]
    for node in graph.nodes[1:]:
        own = [values[i] for i in node.inputs]
        value = node.op.forward(*own)
        error = local_error(graph, node, [(v, v) for v in own], engine)
        if error is not None:
            sign = torch.randint(0, 2, value.shape, generator=generator).double() * 2 - 1
            value = value + 0.999 * (sign if one_way == 0 else one_way) * error
        values.append(value)
    return values[graph.output].detach()
