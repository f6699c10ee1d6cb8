"""Pooling over windows and over whole images."""

import numpy as np

from certus.graph import composite
from certus.graph.activation import MaxPool
from certus.graph.affine import Conv, Scale
from certus.graph.onnx.build_arithmetic import power
from certus.graph.onnx.build_conv import torch_widths, window_pads
from certus.graph.onnx.build_elementwise import scaled
from certus.graph.onnx.build_moves import picked
from certus.graph.onnx.table import Call, Unsupported, affordable, builds
from certus.graph.onnx.values import Data
from certus.graph.piecewise import Abs
from certus.graph.structural import AvgPool, Pad, Reduce


class Windows:
    """Kernel, strides, dilations and padding of a pooling node; the sizes that it gives."""

    def __init__(self, call: Call) -> None:
        x = call.data()
        self.size = list(x.shape[2:])
        self.kernel = [int(k) for k in call.attribute("kernel_shape")]
        dims = len(self.kernel)
        if len(self.size) != dims or not 1 <= dims <= 3:
            raise Unsupported(f"pooling of {list(x.shape)} over {self.kernel}")
        affordable(self.kernel)
        self.strides = call.ints(-1, "strides", [1] * dims)
        self.dilations = call.ints(-1, "dilations", [1] * dims)
        self.ceil = bool(call.attribute("ceil_mode", 0))
        self.before, self.after = window_pads(
            call, self.size, self.kernel, self.strides, self.dilations
        )
        self.out = [self._out(i) for i in range(dims)]

    def reach(self, i: int) -> int:
        """How many entries of a dimension one window spans."""
        return self.dilations[i] * (self.kernel[i] - 1) + 1

    def _out(self, i: int) -> int:
        room = self.size[i] + self.before[i] + self.after[i] - self.reach(i)
        if not self.ceil:
            return room // self.strides[i] + 1
        out = -(-room // self.strides[i]) + 1
        # a window that would start in the padding after the end does not count
        starts_late = (out - 1) * self.strides[i] >= self.size[i] + self.before[i]
        return out - 1 if starts_late else out

    def needed(self) -> list[int]:
        """Padding after the end that the last windows reach, at least none."""
        return [
            max(0, (out - 1) * s + self.reach(i) - n - b)
            for i, (out, s, n, b) in enumerate(
                zip(self.out, self.strides, self.size, self.before, strict=True)
            )
        ]

    def plain(self) -> bool:
        """Whether torch's pooling with one padding for both sides does the same."""
        half = all(2 * b <= k for b, k in zip(self.before, self.kernel, strict=True))
        return half and self.before == self.after


def _images(call: Call) -> tuple[int, int]:
    """The value as [N * C, *space] and N."""
    x = call.data()
    n, channels, *space = x.shape
    return call.at(x, (n * channels, *space)), n


def _pooled(call: Call, position: int, n: int) -> Data:
    channels, *space = call.writer.shape(position)
    return Data(position, (n, channels // n, *space))


@builds("MaxPool")
def _max_pool(call: Call) -> Data:
    w = Windows(call)
    if any(call.node.outputs[1:]) or call.attribute("storage_order", 0):
        raise Unsupported("max pooling that also gives places")
    position, n = _images(call)
    stride, dilation = tuple(w.strides), tuple(w.dilations)
    if w.plain():
        op = MaxPool(tuple(w.kernel), stride, tuple(w.before), dilation, w.ceil)
        return _pooled(call, call.writer.add(op, position), n)
    if max(w.dilations) > 1:
        raise Unsupported("dilated max pooling with different padding on two sides")
    # a copy of the border lies in every window that reaches into the padding, so that the largest
    # value does not change; minus infinity would make NaN in the bounds
    x, after = call.data(), w.needed()
    pads = [(0, 0), (0, 0), *zip(w.before, after, strict=True)]
    places = np.arange(int(np.prod(x.shape))).reshape(x.shape)
    padded = picked(call, x, np.pad(places, pads, mode="edge"))
    position = call.at(padded, (n * padded.shape[1], *padded.shape[2:]))
    op = MaxPool(tuple(w.kernel), stride, (0,) * len(w.kernel), dilation)
    return _pooled(call, call.writer.add(op, position), n)


@builds("AveragePool")
def _average_pool(call: Call) -> Data:
    w = Windows(call)
    count_padding = bool(call.attribute("count_include_pad", 0))
    if w.plain() and max(w.dilations) == 1 and not (w.ceil and max(w.before, default=0)):
        position, n = _images(call)
        op = AvgPool(tuple(w.kernel), tuple(w.strides), tuple(w.before), w.ceil, count_padding)
        return _pooled(call, call.writer.add(op, position), n)
    total = _window_sums(call, call.data(), w)
    inside = np.ones([s + a + b for s, a, b in zip(w.size, w.before, w.after, strict=True)])
    if not count_padding:
        inside = np.pad(np.ones(w.size), [*zip(w.before, w.after, strict=True)])
    counts = _counts(inside, w)
    position = call.writer.add(Scale(call.tensor(1 / counts[None, None])), total.position)
    return Data(position, total.shape)


def _window_sums(call: Call, x: Data, w: Windows) -> Data:
    """Sums over windows as a convolution of each channel with ones."""
    n, channels, *space = x.shape
    position = call.at(x, (n * channels, *space))
    after = w.needed()
    if any(w.before) or any(after):
        position = call.writer.add(Pad(torch_widths(w.before, after)), position)
    ones = call.tensor(np.ones((n * channels, 1, *w.kernel)))
    none = (0,) * len(w.kernel)
    op = Conv(ones, None, tuple(w.strides), none, tuple(w.dilations), n * channels)
    found = call.writer.add(op, position)
    keep = call.writer.shape(found)[1:]
    if list(keep) != w.out:
        raise Unsupported(f"pooling to {w.out}, which its windows do not give")
    return _pooled(call, found, n)


def _counts(inside: np.ndarray, w: Windows) -> np.ndarray:
    """How many counted entries each window holds."""
    axes = []
    for i, out in enumerate(w.out):
        starts = np.arange(out)[:, None] * w.strides[i]
        axes.append(starts + np.arange(w.kernel[i]) * w.dilations[i])
    far = [int(a.max()) + 1 for a in axes]
    full = np.zeros([max(f, s) for f, s in zip(far, inside.shape, strict=True)])
    full[tuple(slice(0, s) for s in inside.shape)] = inside
    counts = full
    for i, places in enumerate(axes):
        counts = np.take(counts, places, axis=2 * i).sum(axis=2 * i + 1, keepdims=True)
    return counts.reshape(w.out)


@builds("LpPool")
def _lp_pool(call: Call) -> Data:
    w, p = Windows(call), float(call.attribute("p", 2))
    x = call.same(Abs(), call.data())
    return power(call, _window_sums(call, power(call, x, p), w), 1 / p)


@builds("GlobalAveragePool")
def _global_average(call: Call) -> Data:
    x = call.data()
    position, dims = call.over(x, *range(2, x.rank))
    factor = 1 / int(np.prod(x.shape[2:]))
    return call.put(Reduce(dims, True, factor), position, shape=_single(x))


@builds("GlobalMaxPool")
def _global_max(call: Call) -> Data:
    x = call.data()
    position, dims = call.over(x, *range(2, x.rank))
    return Data(composite.reduce_max(call.writer, position, dims, True), _single(x))


@builds("GlobalLpPool")
def _global_lp(call: Call) -> Data:
    x, p = call.data(), float(call.attribute("p", 2))
    position, dims = call.over(x, *range(2, x.rank))
    if p in (1.0, 2.0):
        return Data(composite.norm(call.writer, position, p, dims, True), _single(x))
    raised = power(call, call.put(Abs(), position, shape=x.shape), p)
    total = call.put(Reduce(dims, True), call.at(raised), shape=_single(x))
    return power(call, scaled(call, total, 1.0), 1 / p)


def _single(x: Data) -> tuple[int, ...]:
    return (*x.shape[:2], *[1] * (x.rank - 2))
