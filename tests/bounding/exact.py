"""Exact evaluation of graphs in rational arithmetic, and float evaluation in a random order."""

from dataclasses import replace
from fractions import Fraction
from functools import cache

import mpmath
import numpy as np
import torch

from certus.graph.activation import Clamp, LeakyRelu, MaxPool, Relu, Sigmoid, Tanh
from certus.graph.affine import BatchNorm, Scale, Shift, Sum
from certus.graph.op import Affine
from certus.graph.structural import AdaptiveAvgPool, AvgPool, Reduce

mpmath.mp.dps = 60
AVERAGES = (AvgPool, AdaptiveAvgPool, Reduce)


def fractions(tensor):
    """An object array of exact values."""
    return np.array([Fraction(v) for v in tensor.detach().double().flatten().tolist()], object)


@cache
def matrices(op, shapes, out, dtype):
    """The exact matrices [out, in_i] and offset [out] of an affine operation: its weights themselves."""
    numel = int(np.prod(out))
    rows = torch.eye(numel, dtype=torch.float64).view(numel, *out)
    exact = _double(op)
    found = [part.reshape(numel, -1) for part in exact.transpose(rows, shapes)]
    weights = [fractions(part).reshape(part.shape) for part in found]
    offset = np.full(numel, Fraction(0), object)
    constant = exact.offset(shapes, rows)
    if isinstance(op, AVERAGES):
        weights = [np.vectorize(lambda w: w.limit_denominator(5000), [object])(w) for w in weights]
    elif isinstance(op, BatchNorm):
        weights, offset = _normalised(op, out)
    elif isinstance(op, Scale) and op.divide:
        divisor = fractions(op.factor.expand(1, *out))
        weights = [np.diag(1 / divisor) + Fraction(0)]
    elif isinstance(op, Shift):
        offset = Fraction(op.factor) * fractions(op.amount.expand(1, *out))
    elif isinstance(op, Sum):
        ones = [(w != 0) * Fraction(1) for w in weights]
        weights = [ones[0], ones[1] * Fraction(op.factor)]
    elif constant is not None:
        offset = fractions(constant.expand(1, *out))
    return weights, offset


def _double(op):
    tensors = {k: v.detach() for k, v in vars(op).items() if isinstance(v, torch.Tensor)}
    floats = {k: v.double() for k, v in tensors.items() if v.dtype.is_floating_point}
    return replace(op, **floats)


def _normalised(op, out):
    op = _double(op)
    spread = int(np.prod(out[1:]))
    scale, shift = [], []
    for c in range(out[0]):
        variance = mpmath.mpf(float(op.variance[c])) + mpmath.mpf(op.epsilon)
        root = 1 / mpmath.sqrt(variance)
        root *= 1 if op.weight is None else mpmath.mpf(float(op.weight[c]))
        own = rational(root)
        bias = Fraction(0) if op.bias is None else Fraction(float(op.bias[c]))
        scale += [own] * spread
        shift += [bias - own * Fraction(float(op.mean[c]))] * spread
    return [np.diag(np.array(scale, object)) + Fraction(0)], np.array(shift, object)


def rational(value):
    """A Fraction within 1e-55 of an mpmath number."""
    mantissa, exponent = mpmath.frexp(value)
    return Fraction(int(mantissa * mpmath.mpf(2) ** 190)) * Fraction(2) ** (int(exponent) - 190)


def function(op):
    """The exact function of one value, as Fraction -> Fraction."""

    def high(f):
        return lambda x: rational(f(mpmath.mpf(x.numerator) / x.denominator))

    if isinstance(op, Relu):
        return lambda x: max(x, Fraction(0))
    if isinstance(op, LeakyRelu):
        return lambda x: max(x, Fraction(op.slope) * x)
    if isinstance(op, Clamp):
        return lambda x: min(max(x, Fraction(op.low)), Fraction(op.high))
    if isinstance(op, Tanh):
        return high(mpmath.tanh)
    assert isinstance(op, Sigmoid)
    return high(lambda x: 1 / (1 + mpmath.exp(-x)))


def windows(op, shape):
    """For every output of a max pooling the flat inputs of its window."""
    numel = int(np.prod(shape))
    places = torch.arange(1, numel + 1, dtype=torch.float64).view(1, *shape)
    columns = op.windows(places, 0.0)[0]  # [C, elements, outputs]
    return [
        [int(v) - 1 for v in columns[c, :, o] if v > 0]
        for c in range(columns.shape[0])
        for o in range(columns.shape[2])
    ]


def exact_values(graph, x):
    """Every node's exact value (flat object array) for one input [*shape]."""
    values = [fractions(x)]
    for node in graph.nodes[1:]:
        own = [values[i] for i in node.inputs]
        if isinstance(node.op, Affine):
            weights, offset = matrices(node.op, tuple(graph.shapes(node)), node.shape, x.dtype)
            values.append(sum(w @ v for w, v in zip(weights, own, strict=True)) + offset)
        elif isinstance(node.op, MaxPool):
            taps = windows(node.op, graph.shapes(node)[0])
            values.append(np.array([max(own[0][t]) for t in taps], object))
        else:
            f = function(node.op)
            values.append(np.array([f(v) for v in own[0]], object))
    return values


def shuffled_values(graph, x, seed):
    """Every node's value in the dtype of x, each sum in a random order, sequential or by halves."""
    rng = np.random.default_rng(seed)
    values = [x.flatten().numpy()]
    for node in graph.nodes[1:]:
        own = [values[i] for i in node.inputs]
        if isinstance(node.op, Affine):
            values.append(_shuffled(graph, node, own, rng))
        else:
            shapes = graph.shapes(node)
            given = [torch.from_numpy(v).view(1, *s) for v, s in zip(own, shapes, strict=True)]
            values.append(node.op.forward(*given).flatten().detach().numpy())
    return values


def _shuffled(graph, node, own, rng):
    dtype = own[0].dtype.type
    shapes, numel = graph.shapes(node), node.numel
    rows = torch.eye(numel, dtype=torch.from_numpy(own[0]).dtype).view(numel, *node.shape)
    parts = [p.detach().reshape(numel, -1).numpy() for p in node.op.transpose(rows, shapes)]
    offset = node.op.offset(shapes, rows)
    flat = None if offset is None else offset.expand(1, *node.shape).flatten().detach().numpy()
    found = np.zeros(numel, dtype)
    for k in range(numel):
        products = np.concatenate([p[k] * v for p, v in zip(parts, own, strict=True)])
        used = np.concatenate([p[k] for p in parts]) != 0
        products = list(products[used].astype(dtype))
        if flat is not None:
            products.append(dtype(flat[k]))
        found[k] = _sum(products, rng, dtype)
    return found


def _sum(products, rng, dtype):
    order = rng.permutation(len(products))
    if rng.random() < 0.3:  # by halves
        parts = [products[i] for i in order] or [dtype(0)]
        while len(parts) > 1:
            parts = [
                dtype(a + b) for a, b in zip(parts[::2], [*parts[1::2], dtype(0)], strict=False)
            ]
        return parts[0]
    if rng.random() < 0.5:  # largest first: what comes after loses most
        order = np.argsort([-abs(p) for p in products])
    total = dtype(0)
    for i in order:
        total = dtype(total + products[i])
    return total
