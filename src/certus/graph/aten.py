"""ATen operations to Graph operations: one builder for each target that torch.export emits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from certus.graph import activation, affine, structural
from certus.graph.builders import Arguments, Built, Unsupported, builds
from certus.graph.expression import Expression
from certus.graph.op import Op


@builds("linear.default")
def _linear(a: Arguments) -> Built:
    return affine.Linear(a.constant("weight"), a.constant("bias")), (a.data("input"),)


@builds("matmul.default", "mm.default", "bmm.default")
def _matmul(a: Arguments) -> Built:
    left, right = ("self", "mat2" if a["mat2"] is not None else "other")
    if not a.is_data(a[right]):
        return affine.MatMul(a.constant(right)), (a.data(left),)
    if not a.is_data(a[left]):
        return affine.MatMul(a.constant(left), left=True), (a.data(right),)
    raise Unsupported("a product of two values that depend on the input")


@builds("conv1d.default", "conv2d.default", "conv3d.default")
def _conv(a: Arguments) -> Built:
    dims = len(a.shape(a.data("input"))) - 1
    op = affine.Conv(
        a.constant("weight"),
        a.constant("bias"),
        a.ints("stride", dims),
        a.ints("padding", dims),
        a.ints("dilation", dims),
        a["groups"],
    )
    return op, (a.data("input"),)


@builds("conv1d.padding", "conv2d.padding", "conv3d.padding")
def _conv_same(a: Arguments) -> Built:
    weight = a.constant("weight")
    dims, dilation = weight.ndim - 2, a.ints("dilation", weight.ndim - 2)
    spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if a["padding"] == "same" and any(span % 2 for span in spans):
        raise Unsupported("padding='same' with an even kernel pads one side more; pad explicitly")
    padding = tuple(span // 2 if a["padding"] == "same" else 0 for span in spans)
    op = affine.Conv(
        weight, a.constant("bias"), a.ints("stride", dims), padding, dilation, a["groups"]
    )
    return op, (a.data("input"),)


@builds("batch_norm.default")
def _batch_norm(a: Arguments) -> Built:
    if a["training"]:
        raise Unsupported("batch normalisation in training mode")
    op = affine.BatchNorm(
        a.constant("weight"),
        a.constant("bias"),
        a.constant("running_mean"),
        a.constant("running_var"),
        a["eps"],
    )
    return op, (a.data("input"),)


@builds("relu.default", "relu_.default")
def _relu(a: Arguments) -> Built:
    return activation.Relu(), (a.data("self"),)


@builds("leaky_relu.default", "leaky_relu_.default")
def _leaky_relu(a: Arguments) -> Built:
    slope = float(a["negative_slope"])
    if not 0 <= slope <= 1:
        raise Unsupported(f"leaky ReLU with slope {slope} outside [0, 1]")
    return activation.LeakyRelu(slope), (a.data("self"),)


@builds("hardtanh.default", "hardtanh_.default")
def _hardtanh(a: Arguments) -> Built:
    return activation.Clamp(float(a["min_val"]), float(a["max_val"])), (a.data("self"),)


@builds("relu6.default", "relu6_.default")
def _relu6(a: Arguments) -> Built:
    return activation.Clamp(0.0, 6.0), (a.data("self"),)


@builds("clamp.default", "clamp_.default")
def _clamp(a: Arguments) -> Built:
    low, high = a["min"], a["max"]
    if low == 0 and high is None:
        return activation.Relu(), (a.data("self"),)
    if low is None or high is None or not low < high:
        raise Unsupported("clamp needs min < max (or min=0 alone)")
    return activation.Clamp(float(low), float(high)), (a.data("self"),)


@builds("clamp_min.default", "clamp_min_.default")
def _clamp_min(a: Arguments) -> Built:
    if a["min"] != 0:
        raise Unsupported("clamp_min with a minimum other than 0")
    return activation.Relu(), (a.data("self"),)


@builds("sigmoid.default", "sigmoid_.default")
def _sigmoid(a: Arguments) -> Built:
    return activation.Sigmoid(), (a.data("self"),)


@builds("tanh.default", "tanh_.default")
def _tanh(a: Arguments) -> Built:
    return activation.Tanh(), (a.data("self"),)


@builds("max_pool2d.default")
def _max_pool(a: Arguments) -> Built:
    kernel = a.ints("kernel_size", 2)
    op = activation.MaxPool(
        _pair(kernel),
        _pair(a.ints("stride", 2, kernel)),
        _pair(a.ints("padding", 2)),
        _pair(a.ints("dilation", 2)),
        bool(a["ceil_mode"]),
    )
    return op, (a.data("self"),)


@builds("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def _avg_pool(a: Arguments) -> Built:
    if a["divisor_override"] is not None:
        raise Unsupported("average pooling with divisor_override")
    dims = len(a.shape(a.data("self"))) - 1
    kernel = a.ints("kernel_size", dims)
    op = structural.AvgPool(
        kernel,
        a.ints("stride", dims, kernel),
        a.ints("padding", dims),
        bool(a["ceil_mode"]),
        bool(a["count_include_pad"]),
    )
    return op, (a.data("self"),)


@builds("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "adaptive_avg_pool3d.default")
def _adaptive_avg_pool(a: Arguments) -> Built:
    dims = len(a.shape(a.data("self"))) - 1
    return structural.AdaptiveAvgPool(a.shape()[-dims:]), (a.data("self"),)


@builds(
    *("view.default", "reshape.default", "flatten.using_ints", "_unsafe_view.default"),
    *("squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default", "unflatten.int"),
)
def _reshape(a: Arguments) -> Built:
    return structural.Reshape(a.shape()), (a.data("self"),)


@builds("permute.default")
def _permute(a: Arguments) -> Built:
    ndim = len(a.shape(a.data("self"))) + 1
    return structural.Permute(_keep_batch([d % ndim for d in a["dims"]])), (a.data("self"),)


@builds("transpose.int")
def _transpose(a: Arguments) -> Built:
    dims = list(range(len(a.shape(a.data("self"))) + 1))
    first, second = a["dim0"], a["dim1"]
    dims[first], dims[second] = dims[second], dims[first]
    return structural.Permute(_keep_batch(dims)), (a.data("self"),)


@builds("slice.Tensor")
def _slice(a: Arguments) -> Built:
    source = a.data("self")
    full = source.meta["val"].shape
    dim = (a["dim"] or 0) % len(full)
    start, stop, step = a["start"], a["end"], a["step"] or 1
    if dim == 0:
        if start in (0, None) and step == 1 and a.node.meta["val"].shape[0] == full[0]:
            return source
        raise Unsupported("slicing along the batch")
    start, stop, _ = slice(start, stop).indices(full[dim])
    return structural.Slice(dim, start, stop, step), (source,)


@builds("select.int")
def _select(a: Arguments) -> Built:
    source = a.data("self")
    shape = a.shape(source)
    dim = a["dim"] % (len(shape) + 1)
    if dim == 0:
        raise Unsupported("indexing along the batch")
    return structural.Select(dim, a["index"] % shape[dim - 1]), (source,)


@builds("cat.default")
def _cat(a: Arguments) -> Built:
    parts = a["tensors"]
    if not all(a.is_data(p) for p in parts):
        raise Unsupported("concatenation with constants")
    dim = (a["dim"] or 0) % (len(a.shape()) + 1)
    if dim == 0:
        raise Unsupported("concatenation along the batch")
    return structural.Concat(dim), tuple(parts)


@builds("add.Tensor", "add_.Tensor", "sub.Tensor", "sub_.Tensor")
def _add(a: Arguments) -> Built:
    sign = -1.0 if "sub" in str(a.node.target) else 1.0
    factor = sign * float(1 if a["alpha"] is None else a["alpha"])
    left, right = a["self"], a["other"]
    if _is_data(a, left) and _is_data(a, right):
        return _aligned(a, affine.Sum(factor), (left, right))
    if _is_data(a, left):
        amount = a.constant("other")
        _broadcasts(a, amount)
        return affine.Shift(_tensor(a, amount), factor), (left,)
    if factor == 1:
        _broadcasts(a, a.constant("self"))
        return affine.Shift(_tensor(a, a.constant("self"))), (right,)
    raise Unsupported("constant minus value; write (-x) + constant")


@builds("mul.Tensor", "mul_.Tensor")
def _mul(a: Arguments) -> Built:
    left, right = a["self"], a["other"]
    if _is_data(a, left) and _is_data(a, right):
        raise Unsupported("a product of two values that depend on the input")
    data, name = (left, "other") if _is_data(a, left) else (right, "self")
    factor = a.constant(name)
    _broadcasts(a, factor)
    return affine.Scale(_tensor(a, factor)), (data,)


@builds("div.Tensor", "div_.Tensor")
def _div(a: Arguments) -> Built:
    divisor = a.constant("other")
    _broadcasts(a, divisor)
    return affine.Scale(_tensor(a, divisor), divide=True), (a.data("self"),)


@builds("neg.default")
def _neg(a: Arguments) -> Built:
    return affine.Scale(_tensor(a, -1.0)), (a.data("self"),)


@builds("mean.dim", "sum.dim_IntList")
def _reduce(a: Arguments) -> Built:
    source = a.data("self")
    shape = a.shape(source)
    dims = tuple(d % (len(shape) + 1) for d in (a["dim"] or []))
    if not dims or 0 in dims:
        raise Unsupported("a sum or mean over the batch")
    count = torch.Size([shape[d - 1] for d in dims]).numel()
    factor = 1 / count if "mean" in str(a.node.target) else 1.0
    return structural.Reduce(dims, bool(a["keepdim"]), factor), (source,)


@builds("expand.default")
def _expand(a: Arguments) -> Built:
    return structural.Expand(a.shape()), (a.data("self"),)


@builds("pad.default", "constant_pad_nd.default")
def _pad(a: Arguments) -> Built:
    if a["mode"] not in (None, "constant"):
        raise Unsupported(f"padding mode {a['mode']}")
    if len(a["pad"]) > 2 * len(a.shape()):
        raise Unsupported("padding along the batch")
    return structural.Pad(tuple(a["pad"]), float(a["value"] or 0.0)), (a.data("self"),)


@builds("dropout.default", "feature_dropout.default", "dropout_.default")
def _dropout(a: Arguments) -> Built:
    if a["train"]:
        raise Unsupported("dropout in training mode")
    return a.data("input" if a["input"] is not None else "self")


@builds("clone.default")
def _clone(a: Arguments) -> Built:
    return structural.Reshape(a.shape()), (a.data("self"),)


@builds("contiguous.default", "detach.default", "alias.default")
def _same(a: Arguments) -> Built:
    return a.data("self")


def _is_data(a: Arguments, value: Any) -> bool:
    return isinstance(value, fx.Node) and a.is_data(value)


def _tensor(a: Arguments, value: Any) -> Any:
    like = a.node.meta["val"]
    return (
        value if isinstance(value, Tensor | Expression) else torch.tensor(value, dtype=like.dtype)
    )


def _broadcasts(a: Arguments, value: Any) -> None:
    """A constant may not bring dimensions of its own in front of the batch."""
    ndim = value.ndim if isinstance(value, Tensor) else 0
    if isinstance(value, Expression):
        ndim = value.node.meta["val"].ndim
    if ndim > len(a.shape()) + 1:
        raise Unsupported("a constant with more dimensions than the value")
    if ndim == len(a.shape()) + 1:
        size = value.shape[0] if isinstance(value, Tensor) else value.node.meta["val"].shape[0]
        if size != 1:
            raise Unsupported("a constant that differs along the batch")


def _aligned(a: Arguments, op: Op, parts: tuple[fx.Node, ...]) -> Built:
    if any(len(a.shape(p)) != len(a.shape()) for p in parts):
        raise Unsupported("broadcasting that moves the batch dimension")
    return op, parts


def _keep_batch(dims: Sequence[int]) -> tuple[int, ...]:
    if dims[0] != 0:
        raise Unsupported("a permutation that moves the batch dimension")
    return tuple(dims)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[1]
