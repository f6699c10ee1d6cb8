"""Softmax and normalisations by the statistics of the value itself."""

import numpy as np

from certus.graph import composite
from certus.graph.affine import Conv
from certus.graph.bilinear import Mul
from certus.graph.onnx.build_arithmetic import add, multiply
from certus.graph.onnx.build_elementwise import scaled, shifted
from certus.graph.onnx.table import Call, Unsupported, axis_of, builds
from certus.graph.onnx.values import Data
from certus.graph.powers import Power
from certus.graph.softmax import Softmax


@builds("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Data:
    x = call.data()
    position, dim = _softmax_axis(call, x)
    if call.node.op == "Softmax":
        return call.put(Softmax(dim), position, shape=x.shape)
    return Data(composite.log_softmax(call.writer, position, dim), x.shape)


def _softmax_axis(call: Call, x: Data) -> tuple[int, int]:
    """Before operator set 13, all dimensions from the axis on are one."""
    if call.opset >= 13:
        position, dims = call.over(x, int(call.attribute("axis", -1)))
        return position, dims[0]
    axis = axis_of(int(call.attribute("axis", 1)), x.rank)
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    columns = int(np.prod(x.shape[axis:], dtype=np.int64))
    if columns == x.shape[-1] and axis == x.rank - 1:
        position, dims = call.over(x, axis)
        return position, dims[0]
    if rows == 1:
        return call.at(x, (columns,)), 1
    return call.at(x, (rows, columns)), 2


@builds("InstanceNormalization")
def _instance_norm(call: Call) -> Data:
    x = call.data()
    epsilon = float(call.attribute("epsilon", 1e-5))
    n, channels, *space = x.shape
    weight, bias = (call.tensor(np.tile(call.array(i), n)) for i in (1, 2))
    position = call.at(x, (n * channels, *space))
    return Data(composite.instance_norm(call.writer, position, weight, bias, epsilon), x.shape)


@builds("GroupNormalization")
def _group_norm(call: Call) -> Data:
    x, groups = call.data(), int(call.attribute("num_groups"))
    epsilon = float(call.attribute("epsilon", 1e-5))
    n, channels, *space = x.shape
    weight, bias = (np.asarray(call.array(i)) for i in (1, 2))
    if weight.size == groups != channels:  # operator set 18 has one number a group
        weight, bias = (np.repeat(v, channels // groups) for v in (weight, bias))
    position = call.at(x, (n * channels, *space))
    scale, shift = (call.tensor(np.tile(v, n)) for v in (weight, bias))
    found = composite.group_norm(call.writer, position, groups * n, scale, shift, epsilon)
    return Data(found, x.shape)


@builds("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_norm(call: Call) -> Data:
    x = call.data()
    if any(call.node.outputs[1:]):
        raise Unsupported("a layer normalisation whose mean or deviation is used")
    axis = axis_of(int(call.attribute("axis", -1)), x.rank)
    position, dims = call.over(x, *range(axis, x.rank))
    epsilon = float(call.attribute("epsilon", 1e-5))
    if call.node.op == "LayerNormalization":
        found = composite.layer_norm(call.writer, position, dims, None, None, epsilon)
    else:
        found = composite.rms_norm(call.writer, position, dims, None, epsilon)
    result = multiply(call, Data(found, x.shape), call.array(1))
    return result if call[2] is None else add(call, result, call.array(2))


@builds("MeanVarianceNormalization")
def _mean_variance(call: Call) -> Data:
    x = call.data()
    position, dims = call.over(x, *call.ints(-1, "axes", [0, 2, 3]))
    return Data(composite.normalize(call.writer, position, dims, 1e-9), x.shape)


@builds("LRN")
def _local_response(call: Call) -> Data:
    """x (bias + alpha / size * sum of squares of neighbouring channels) ** -beta."""
    x, size = call.data(), int(call.attribute("size"))
    n, channels, *space = x.shape
    if n != 1:
        raise Unsupported("local response normalisation of several images")
    band = np.zeros((channels, channels))
    for c in range(channels):
        band[c, max(0, c - (size - 1) // 2) : c + size // 2 + 1] = 1.0
    squares = call.writer.add(Power(2.0), call.at(x, (channels, int(np.prod(space)))))
    op = Conv(call.tensor(band[:, :, None]), None, (1,), (0,), (1,))
    total = Data(call.writer.add(op, squares), x.shape)
    alpha, beta = float(call.attribute("alpha", 1e-4)), float(call.attribute("beta", 0.75))
    base = shifted(call, scaled(call, total, alpha / size), float(call.attribute("bias", 1.0)))
    divided = call.at(call.same(Power(-beta), base))
    return call.put(Mul(), call.at(x), divided, shape=x.shape)


@builds("LpNormalization")
def _lp_norm(call: Call) -> Data:
    x, p = call.data(), float(call.attribute("p", 2))
    position, dims = call.over(x, int(call.attribute("axis", -1)))
    norm = composite.norm(call.writer, position, p, dims, True)
    return Data(composite.div(call.writer, position, norm), x.shape)
