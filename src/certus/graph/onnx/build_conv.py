"""Convolutions and batch normalisation. Several ONNX "images" (N > 1) become groups of channels."""

from typing import Any

import numpy as np

from certus.graph.affine import BatchNorm, Conv, ConvTranspose
from certus.graph.onnx.absorb import absorb
from certus.graph.onnx.build_arithmetic import add, multiply
from certus.graph.onnx.table import Call, Unsupported, affordable, builds
from certus.graph.onnx.values import Data
from certus.graph.structural import Pad, Slice


def window_pads(
    call: Call, size: list[int], kernel: list[int], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial dimension, from `pads` or `auto_pad`."""
    dims, mode = len(kernel), call.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = call.ints(-1, "pads", [0] * 2 * dims)
        if min(pads) < 0:
            raise Unsupported("windows with negative padding")
        affordable([n + a + b for n, a, b in zip(size, pads[:dims], pads[dims:], strict=True)])
        return pads[:dims], pads[dims:]
    if mode == "VALID":
        return [0] * dims, [0] * dims
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    total = [
        max(0, (-(-n // s) - 1) * s + span - n)
        for n, s, span in zip(size, strides, spans, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def torch_widths(before: list[int], after: list[int]) -> tuple[int, ...]:
    """Padding in the order of torch.nn.functional.pad: last dimension first."""
    return tuple(w for pair in zip(before[::-1], after[::-1], strict=True) for w in pair)


def _settings(call: Call, kernel: list[int]) -> tuple[list[int], list[int], int]:
    ones = [1] * len(kernel)
    strides, dilations = call.ints(-1, "strides", ones), call.ints(-1, "dilations", ones)
    return strides, dilations, int(call.attribute("group", 1))


def _constant_weight(call: Call) -> tuple[Any, Any]:
    if not isinstance(call[1], np.ndarray) or isinstance(call[2], Data):
        raise Unsupported("a convolution whose weight depends on the input")
    return call.array(1), call.array(2)


@builds("Conv")
def _conv(call: Call) -> Data:
    x = call.data()
    weight, bias = _constant_weight(call)
    n, channels, *size = x.shape
    kernel = list(weight.shape[2:])
    if len(size) != len(kernel) or not 1 <= len(kernel) <= 3:
        raise Unsupported(f"a convolution of {list(x.shape)} with a kernel {kernel}")
    strides, dilations, groups = _settings(call, kernel)
    before, after = window_pads(call, size, kernel, strides, dilations)
    position = call.at(x, (n * channels, *size))
    if before != after:
        position = call.writer.add(Pad(torch_widths(before, after)), position)
        before = [0] * len(kernel)
    weight, bias = np.concatenate([weight] * n), None if bias is None else np.tile(bias, n)
    op = Conv(
        call.tensor(weight),
        None if bias is None else call.tensor(bias),
        tuple(strides),
        tuple(before),
        tuple(dilations),
        groups * n,
    )
    return _images(call, op, position, n)


@builds("ConvTranspose")
def _conv_transpose(call: Call) -> Data:
    x = call.data()
    weight, bias = _constant_weight(call)
    n, channels, *size = x.shape
    kernel = list(weight.shape[2:])
    strides, dilations, groups = _settings(call, kernel)
    extra = call.ints(-1, "output_padding", [0] * len(kernel))
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    full = [
        s * (m - 1) + span + e for s, m, span, e in zip(strides, size, spans, extra, strict=True)
    ]
    affordable([*weight.shape[1:2], *full])
    before, after = _cropping(call, full, [s * m for s, m in zip(strides, size, strict=True)])
    uniform = before == after and all(p < span for p, span in zip(before, spans, strict=True))
    op = ConvTranspose(
        call.tensor(np.concatenate([weight] * n)),
        None if bias is None else call.tensor(np.tile(bias, n)),
        tuple(strides),
        tuple(before) if uniform else (0,) * len(kernel),
        tuple(extra),
        tuple(dilations),
        groups * n,
    )
    found = _images(call, op, call.at(x, (n * channels, *size)), n)
    if uniform:
        return found
    position, shape = found.position, list(found.shape)
    for i, (start, end, length) in enumerate(zip(before, after, full, strict=True)):
        if start or end:
            position = call.writer.add(Slice(i + 2, start, length - end), position)
            shape[i + 2] = length - end - start
    return Data(position, tuple(shape))


def _cropping(call: Call, full: list[int], same: list[int]) -> tuple[list[int], list[int]]:
    """What a transposed convolution cuts off its full result, before and after."""
    wanted = call.ints(-1, "output_shape")
    mode = call.attribute("auto_pad", "NOTSET")
    if wanted is None and mode in ("NOTSET", "VALID", ""):
        pads = call.ints(-1, "pads", [0] * 2 * len(full))
        return pads[: len(full)], pads[len(full) :]
    target = same if wanted is None else wanted[-len(full) :]
    total = [f - t for f, t in zip(full, target, strict=True)]
    if min(total) < 0:
        raise Unsupported("a transposed convolution that pads its result")
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def _images(call: Call, op: Conv | ConvTranspose, position: int, n: int) -> Data:
    """The result [N, C, *space] of an operation on [N * C, *space]."""
    found = call.writer.add(op, position)
    channels, *space = call.writer.shape(found)
    return Data(found, (n, channels // n, *space))


@builds("BatchNormalization")
def _batch_norm(call: Call) -> Data:
    x = call.data()
    weight, bias, mean, variance = (np.asarray(call.array(i), np.float64) for i in range(1, 5))
    if call.attribute("training_mode", 0) or (call.opset < 7 and not call.attribute("is_test", 0)):
        raise Unsupported("batch normalisation in training mode")
    if not bool((variance >= 0).all()):
        raise Unsupported("batch normalisation with a negative variance")
    epsilon = float(call.attribute("epsilon", 1e-5))
    shape = (-1, *[1] * (x.rank - 2)) if call.attribute("spatial", 1) else mean.shape
    factor = (weight / np.sqrt(variance + epsilon)).reshape(shape)
    amount = bias.reshape(shape) - mean.reshape(shape) * factor
    merged = absorb(call, x, factor, amount) if call.alone(x) else None
    if merged is not None:
        return merged
    if x.rank >= 2 and x.shape[0] == 1 and call.attribute("spatial", 1):
        scale, shift, middle, spread = (call.tensor(v) for v in (weight, bias, mean, variance))
        position = call.at(x, x.shape[1:])
        return call.put(BatchNorm(scale, shift, middle, spread, epsilon), position, shape=x.shape)
    return add(call, multiply(call, x, factor), amount)
