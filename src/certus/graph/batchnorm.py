"""Batch statistics as one affine map: clean pass and bounds of a training step share it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from certus.core import ArgumentError, ModelError, UnsupportedError
from certus.graph.affine import BatchNorm
from certus.graph.convolution import laid
from certus.graph.expression import Expression
from certus.graph.graph import Graph, Node
from certus.graph.op import Op

Statistics = tuple[Tensor, Tensor]  # new running mean and variance of one node


def with_batch_statistics(
    graph: Graph,
    x: Tensor,
    momentum: float | None = 0.1,
    nodes: Collection[int] | None = None,
) -> tuple[Graph, Tensor]:
    """A graph whose batch normalisations use the statistics of x [B, *shape], and its value on x.

    One forward walk. A BatchNorm node gets the mean and the biased variance of its own input on
    x, over the batch and all positions; both stay differentiable. What is bounded with the result
    is therefore the function that gave the logits, as in Shi et al. 2021, section 3.3: bounds made
    with the running statistics do not hold for it. The graph is returned resolved; without BatchNorm
    and computed parameters it is `graph` itself. nodes: the positions that this is about, the others
    keep their statistics; None stands for `normalisations(graph)`.

    The running buffers, which are the module's own tensors, move in place as `moved` says; momentum
    None leaves them as they are, for a caller that has to look at the value first.
    Raises ArgumentError for a momentum outside [0, 1] and for fewer than two values a channel,
    UnsupportedError for running statistics that are computed from other tensors, ModelError for
    statistics to move to that are not finite.
    """
    if momentum is not None and not 0 <= momentum <= 1:
        raise ArgumentError(f"momentum must lie in [0, 1] or be None, got {momentum!r}")
    nodes = normalisations(graph) if nodes is None else nodes
    for position in nodes:
        _refuse_computed(graph.nodes[position])
    graph = graph.resolved()
    values, ops = [laid(x)], dict[int, Op]()
    for position, node in enumerate(graph.nodes[1:], start=1):
        op = node.op
        if isinstance(op, BatchNorm) and position in nodes:
            op = ops[position] = _measured(op, values[node.inputs[0]])
        values.append(op.forward(*[values[i] for i in node.inputs]))
    seen = graph.substituted(ops) if ops else graph
    if momentum is not None:
        settle(graph, moved(graph, seen, len(x), dict.fromkeys(ops, momentum)))
    return seen, values[graph.output]


def normalisations(graph: Graph) -> list[int]:
    """The positions of nodes that normalise by running statistics which a module holds in buffers.

    Other BatchNorm nodes spell something else, such as weight and bias of a group normalisation.
    """
    module = graph.original
    held = {id(b) for b in module.buffers()} if isinstance(module, nn.Module) else set()
    return [
        position
        for position, node in enumerate(graph.nodes)
        if isinstance(node.op, BatchNorm)
        and (id(node.op.mean) in held or isinstance(node.op.mean, Expression))
    ]


@torch.no_grad()
def moved(
    graph: Graph, seen: Graph, batch: int, momenta: Mapping[int, float]
) -> dict[int, Statistics]:
    """Where the running statistics of the nodes in `momenta` go; nothing is written.

    seen: what `with_batch_statistics` gave for a batch of this size. Each mean moves by its momentum
    towards the batch's mean, each variance towards the unbiased variance, as in torch's training
    mode; nodes that share buffers move them one after the other. Raises ModelError where one would
    not be finite.
    """
    found: dict[int, Statistics] = {}
    shared: dict[int, Statistics] = {}  # the latest of each buffer
    for position, momentum in momenta.items():
        node, measured = graph.nodes[position], seen.nodes[position].op
        assert isinstance(node.op, BatchNorm) and isinstance(measured, BatchNorm)
        count = batch * node.numel // node.shape[0]
        mean, variance = shared.get(id(node.op.mean), (node.op.mean, node.op.variance))
        unbiased = measured.variance * (count / (count - 1))
        shared[id(node.op.mean)] = found[position] = (
            mean.lerp(measured.mean.to(mean), momentum),
            variance.lerp(unbiased.to(variance), momentum),
        )
    ends = [value.abs().amax() for pair in found.values() for value in pair]
    if ends and not bool(torch.isfinite(torch.stack(ends)).all()):
        raise ModelError(
            "the batch statistics of a batch normalisation are not finite; "
            "use a lower learning rate or smaller weights"
        )
    return found


@torch.no_grad()
def settle(graph: Graph, statistics: Mapping[int, Statistics]) -> None:
    """Write what `moved` found into the running buffers of the graph's module, in place."""
    for position, (mean, variance) in statistics.items():
        op = graph.nodes[position].op
        assert isinstance(op, BatchNorm)
        op.mean.copy_(mean)
        op.variance.copy_(variance)


def _refuse_computed(node: Node) -> None:
    op = node.op
    if isinstance(op, BatchNorm) and any(
        isinstance(value, Expression) for value in (op.mean, op.variance)
    ):
        raise UnsupportedError(
            f"batch normalisation {node.source} computes its running statistics from other "
            "tensors, so they cannot be updated; make them plain buffers"
        )


def _measured(op: BatchNorm, x: Tensor) -> BatchNorm:
    dims = [d for d in range(x.ndim) if d != 1]
    if x.numel() // x.shape[1] < 2:
        raise ArgumentError("batch statistics need two values a channel; give a larger batch")
    mean, variance = _Moments.apply(x, dims)
    return replace(op, mean=mean, variance=variance)


class _Moments(Function):
    """Mean and biased variance over dims, in two passes; their gradient is one product and sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
        mean = x.mean(dims, keepdim=True)
        ctx.save_for_backward(x)
        ctx.dims = dims
        return mean.flatten(), (x - mean).square_().mean(dims)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        mean = x.mean(ctx.dims, keepdim=True)
        count = x.numel() // mean.numel()
        by_mean, by_variance = (g.view_as(mean) / count for g in gradients)
        return torch.addcmul(by_mean - 2 * by_variance * mean, x, 2 * by_variance), None
