"""A Lipschitz estimate that is differentiable in the weights, to train for certified L2 radii."""

import math

import torch
from torch import Tensor

from certus.core import ModelError, UnsupportedError
from certus.graph.affine import BatchNorm, Conv, Linear, Sum
from certus.graph.graph import Graph, Node
from certus.lipschitz import conv_bound, dense_bound
from certus.lipschitz.constant import RULES, Site

_TOLERANCE = 0.1  # slack of a convolution's norm: coarse, since it only steers training


def rates(graph: Graph) -> Tensor:
    """[K, K] in the graph's dtype: entry (i, j) estimates the l2 rate of change of z_i - z_j.

    ||w_i - w_j|| times the constant of what precedes the last layer where that is Linear (Leino et
    al. 2021), else sqrt(2) times that of the logits (Tsuzuku et al. 2018). Differentiable with
    respect to the parameters. For training only: a certificate takes `certus.lipschitz.prepare`,
    which does the same on frozen weights with its own checks. Raises UnsupportedError for an
    operation without a rule, ModelError where the output is not a vector of logits.
    """
    if len(graph.output_shape) != 1:
        raise ModelError(f"a classifier must return [B, K], got {graph.output_shape}")
    graph = graph.resolved()
    last = graph.nodes[graph.output]
    classes = graph.output_shape[0]
    if not isinstance(last.op, Linear):
        whole = _constants(graph, graph.output)
        return (math.sqrt(2) * whole * (1 - torch.eye(classes).to(whole))).to(graph.dtype)
    gaps = last.op.weight.unsqueeze(0) - last.op.weight.unsqueeze(1)
    # The root of zero has no gradient: the diagonal is zero and has none to give.
    same = torch.eye(classes, dtype=torch.bool, device=gaps.device)
    squares = gaps.square().sum(2).masked_fill(same, 1.0)
    apart = squares.sqrt().masked_fill(same, 0.0)
    return apart * _constants(graph, last.inputs[0]).to(apart)


def _constants(graph: Graph, position: int) -> Tensor:
    """The estimate for one node; float64, 0-dim."""
    found = [torch.ones((), dtype=torch.float64, device=graph.device)]
    for node in graph.nodes[1 : position + 1]:
        found.append(_grow(graph, node, found))
    return found[position]


def _grow(graph: Graph, node: Node, found: list[Tensor]) -> Tensor:
    op, before = node.op, [found[i] for i in node.inputs]
    if isinstance(op, Linear):
        return before[0] * dense_bound(op.weight)
    if isinstance(op, Conv):
        norm = conv_bound(op.weight, op.stride, op.dilation, op.groups, _TOLERANCE)
        return before[0] * norm
    if isinstance(op, BatchNorm):
        return before[0] * op.scale.double().abs().amax()
    if isinstance(op, Sum):
        return before[0] + abs(op.factor) * before[1]
    if len(before) != 1:
        raise UnsupportedError(
            f"Lipschitz training cannot treat {op.name} with several inputs {node.source}"
        )
    # every other rule is a number times the constant of its input
    site = Site(graph, node, [1.0] * len(graph.nodes), _TOLERANCE)
    return before[0] * float(RULES[type(op)](op, site))
