"""Constants that follow a linear operation become part of it: fewer nodes, faster bounds."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.graph.affine import Conv, ConvTranspose, Linear
from certus.graph.onnx.table import Call, broadcast
from certus.graph.onnx.values import Data


def absorb(call: Call, x: Data, factor: Any, amount: Any) -> Data | None:
    """x * factor + amount (arrays or None) as one operation, or None where that is not possible.

    x must be the fresh result of a Linear, Conv or ConvTranspose in its own shape, and the constants
    must not differ between places of one channel.
    """
    op, own = call.writer.op(x.position), call.writer.shape(x.position)
    if not isinstance(op, Linear | Conv | ConvTranspose):
        return None
    channels = op.bias.shape[0] if op.bias is not None else _channels(op)
    axis = x.rank - 1 if isinstance(op, Linear) else x.rank - (op.weight.ndim - 1)
    if own != tuple(x.shape[x.rank - len(own) :]) or x.shape[axis] != channels:
        return None
    vectors = [_vector(array, x.shape, axis) for array in (factor, amount)]
    if any(v is None for v in vectors):
        return None
    scale, shift = (
        None if a is None else call.tensor(v)
        for a, v in zip((factor, amount), vectors, strict=True)
    )
    return call.put(_merged(op, scale, shift), *call.writer.inputs(x.position), shape=x.shape)


def _channels(op: Linear | Conv | ConvTranspose) -> int:
    if isinstance(op, ConvTranspose):
        return op.weight.shape[1] * op.groups
    return op.weight.shape[0]


def _vector(array: Any, shape: tuple[int, ...], axis: int) -> Any:
    """A constant as a vector over one axis; None where it differs elsewhere or broadcasts beyond."""
    if array is None:
        return np.zeros(0)
    if broadcast(shape, array.shape) != shape:
        return None
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if any(d != 1 for i, d in enumerate(full.shape) if i != axis):
        return None
    return np.broadcast_to(full.reshape(-1), (shape[axis],))


def _merged(
    op: Linear | Conv | ConvTranspose, scale: Tensor | None, shift: Tensor | None
) -> Linear | Conv | ConvTranspose:
    weight, bias = op.weight, op.bias
    if scale is not None:
        bias = None if bias is None else bias * scale
        weight = _scaled(op, scale)
    if shift is not None:
        bias = shift if bias is None else bias + shift
    return replace(op, weight=weight, bias=bias)


def _scaled(op: Linear | Conv | ConvTranspose, scale: Tensor) -> Tensor:
    if not isinstance(op, ConvTranspose):
        return op.weight * scale.view(-1, *[1] * (op.weight.ndim - 1))
    groups = scale.view(op.groups, 1, -1, *[1] * (op.weight.ndim - 2))
    parts = op.weight.view(op.groups, -1, *op.weight.shape[1:])
    return torch.mul(parts, groups).reshape(op.weight.shape)
