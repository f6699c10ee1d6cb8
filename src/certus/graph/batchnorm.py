"""Batch statistics as one affine map: clean pass and bounds of a training step share it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from certus.core import ArgumentError, UnsupportedError
from certus.graph.affine import BatchNorm
from certus.graph.convolution import laid
from certus.graph.expression import Expression
from certus.graph.graph import Graph
from certus.graph.op import Op


def with_batch_statistics(
    graph: Graph, x: Tensor, momentum: float | None = 0.1
) -> tuple[Graph, Tensor]:
    """A graph whose batch normalisations use the statistics of x [B, *shape], and its value on x.

    One forward walk. Every BatchNorm node gets the mean and the biased variance of its own input on
    x, over the batch and all positions; both stay differentiable. What is bounded with the result
    is therefore the function that gave the logits, as in Shi et al. 2021, section 3.3: bounds made
    with the running statistics do not hold for it. The graph is returned resolved; without BatchNorm
    and computed parameters it is `graph` itself.

    The running buffers, which are the module's own tensors, move in place by `momentum` towards the
    mean and the unbiased variance, as torch does in training mode; None leaves them as they are.
    Raises ArgumentError for a momentum outside [0, 1] and for fewer than two values a channel,
    UnsupportedError for running statistics that are computed from other tensors.
    """
    if momentum is not None and not 0 <= momentum <= 1:
        raise ArgumentError(f"momentum must lie in [0, 1] or be None, got {momentum!r}")
    _refuse_computed(graph)
    graph = graph.resolved()
    values, ops = [laid(x)], dict[int, Op]()
    for position, node in enumerate(graph.nodes[1:], start=1):
        op = node.op
        if isinstance(op, BatchNorm):
            op = ops[position] = _measured(op, values[node.inputs[0]], momentum)
        values.append(op.forward(*[values[i] for i in node.inputs]))
    return (graph.substituted(ops) if ops else graph), values[graph.output]


def _refuse_computed(graph: Graph) -> None:
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm) and any(
            isinstance(value, Expression) for value in (node.op.mean, node.op.variance)
        ):
            raise UnsupportedError(
                f"batch normalisation {node.source} computes its running statistics from other "
                "tensors, so they cannot be updated; make them plain buffers"
            )


def _measured(op: BatchNorm, x: Tensor, momentum: float | None) -> BatchNorm:
    dims = [d for d in range(x.ndim) if d != 1]
    count = x.numel() // x.shape[1]
    if count < 2:
        raise ArgumentError("batch statistics need two values a channel; give a larger batch")
    mean, variance = _Moments.apply(x, dims)
    if momentum is not None:
        with torch.no_grad():
            op.mean.lerp_(mean.to(op.mean), momentum)
            op.variance.lerp_((variance * (count / (count - 1))).to(op.variance), momentum)
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
