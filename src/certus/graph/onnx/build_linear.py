"""Matrix products: Gemm, MatMul and Einsum of two values."""

from typing import Any

import numpy as np

from certus.graph.affine import Linear, MatMul
from certus.graph.bilinear import Product
from certus.graph.onnx.build_arithmetic import add, scaled
from certus.graph.onnx.table import Call, Unsupported, Value, broadcast, builds
from certus.graph.onnx.values import Data
from certus.graph.structural import Permute, Reduce


@builds("Gemm")
def _gemm(call: Call) -> Data:
    a, b = call[0], call[1]
    a = transposed(call, a) if call.attribute("transA", 0) else a
    b = transposed(call, b) if call.attribute("transB", 0) else b
    alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    if alpha != 1.0:
        a, b = (a, b * alpha) if not isinstance(b, Data) else (_times(call, a, alpha), b)
    result = product(call, a, b)
    c = call[2]
    if c is None or beta == 0:
        return result
    return add(call, result, c if beta == 1.0 else _times(call, c, beta))


def _times(call: Call, value: Value, factor: float) -> Value:
    return scaled(call, value, factor) if isinstance(value, Data) else value * factor


@builds("MatMul")
def _matmul(call: Call) -> Data:
    return product(call, call[0], call[1])


def product(call: Call, a: Value, b: Value) -> Data:
    """numpy's matmul of two values, at least one of which depends on the input."""
    first, second = np.ndim(a) if not isinstance(a, Data) else a.rank, _rank(b)
    if min(first, second) == 0:
        raise Unsupported("a matrix product with a scalar")
    shape = _product_shape(_shape(a), _shape(b))
    if isinstance(a, Data) and not isinstance(b, Data):
        return _times_constant(call, a, b, shape)
    if isinstance(b, Data) and not isinstance(a, Data):
        return _constant_times(call, a, b, shape)
    rank = max(first, second, 2)
    left = _matrix(_shape(a), rank, front=True)
    right = _matrix(_shape(b), rank, front=False)
    lead = 1 if rank > 2 and left[0] == right[0] == 1 else 0
    return call.put(Product(), call.at(a, left[lead:]), call.at(b, right[lead:]), shape=shape)


def _times_constant(call: Call, x: Data, matrix: Any, shape: tuple[int, ...]) -> Data:
    """x M: a Linear where M is one matrix (or a vector)."""
    if matrix.ndim <= 2 or matrix.size == np.prod(matrix.shape[-2:]):
        flat = matrix.reshape(matrix.shape[-2:]) if matrix.ndim > 1 else matrix[:, None]
        return call.put(Linear(call.tensor(flat.T.copy())), call.at(x), shape=shape)
    rank = max(x.rank, matrix.ndim, 2)
    left, right = _matrix(x.shape, rank, front=True), (1,) * (rank - matrix.ndim) + matrix.shape
    lead = 1 if left[0] == right[0] == 1 else 0
    op = MatMul(call.tensor(matrix.reshape(right[lead:])))
    return call.put(op, call.at(x, left[lead:]), shape=shape)


def _constant_times(call: Call, matrix: Any, x: Data, shape: tuple[int, ...]) -> Data:
    """M x: a Linear on the columns where x is a single column, else a product from the left."""
    plain = matrix.ndim <= 2
    if plain and (x.rank == 1 or x.shape[-1] == 1):
        rows = matrix.reshape(-1, matrix.shape[-1])
        own = x.shape if x.rank == 1 else x.shape[:-1]
        own = own[1:] if len(own) > 1 and own[0] == 1 else own
        return call.put(Linear(call.tensor(rows)), call.at(x, own), shape=shape)
    rank = max(x.rank, matrix.ndim, 2)
    left, right = _matrix(matrix.shape, rank, front=True), _matrix(x.shape, rank, front=False)
    lead = 1 if rank > 2 and left[0] == right[0] == 1 else 0
    matrix = matrix if plain and matrix.ndim == 2 else matrix.reshape(left[lead:])
    return call.put(MatMul(call.tensor(matrix), left=True), call.at(x, right[lead:]), shape=shape)


def transposed(call: Call, value: Value) -> Value:
    """The last two dimensions swapped."""
    if not isinstance(value, Data):
        return np.swapaxes(value, -1, -2)
    order = [*range(value.rank - 2), value.rank - 1, value.rank - 2]
    return permuted(call, value, order)


def permuted(call: Call, x: Data, order: list[int]) -> Data:
    """ONNX dimensions in another order; dimensions of size one move without an operation."""
    shape = tuple(x.shape[i] for i in order)
    real = [i for i in order if x.shape[i] != 1]
    if real == sorted(real):
        return Data(x.position, shape, x.kind)
    if order[0] == 0 and x.shape[0] == 1:
        return call.put(Permute((0, *order[1:])), call.at(x, x.shape[1:]), shape=shape, kind=x.kind)
    kept = sorted(real)
    position = call.at(x, tuple(x.shape[i] for i in kept))
    dims = (0, *[kept.index(i) + 1 for i in real])
    return call.put(Permute(dims), position, shape=shape, kind=x.kind)


@builds("Transpose")
def _transpose(call: Call) -> Data:
    x = call.data()
    return permuted(call, x, list(call.attribute("perm") or reversed(range(x.rank))))


@builds("Einsum")
def _einsum(call: Call) -> Data:
    """Two operands (or one) without repeated letters in an operand, as a matrix product."""
    text = str(call.attribute("equation")).replace(" ", "")
    if "." in text or len(call.values) > 2:
        raise Unsupported(f"einsum {text}")
    inputs, _, out = text.partition("->")
    terms = inputs.split(",")
    if "->" not in text:
        out = "".join(sorted(c for c in set(inputs) - {","} if inputs.count(c) == 1))
    if any(len(set(t)) < len(t) for t in [*terms, out]):
        raise Unsupported(f"einsum {text} with a repeated letter")
    if len(terms) == 1:
        value, letters = _summed(call, call[0], terms[0], set(out))
        return _ordered(call, value, letters, out)
    return _contracted(call, terms[0], terms[1], out)


def _contracted(call: Call, first: str, second: str, out: str) -> Data:
    a, first = _summed(call, call[0], first, set(out) | set(second))
    b, second = _summed(call, call[1], second, set(out) | set(first))
    batch = "".join(c for c in first if c in second and c in out)
    inner = "".join(c for c in first if c in second and c not in out)
    left = "".join(c for c in first if c not in second)
    right = "".join(c for c in second if c not in first)
    sizes = dict(zip(first, _shape(a), strict=True)) | dict(zip(second, _shape(b), strict=True))
    lead = [sizes[c] for c in batch]
    rows, depth, columns = (
        int(np.prod([sizes[c] for c in part], dtype=np.int64)) for part in (left, inner, right)
    )
    x = _reshaped(_ordered(call, a, first, batch + left + inner), (*lead, rows, depth))
    y = _reshaped(_ordered(call, b, second, batch + inner + right), (*lead, depth, columns))
    letters = batch + left + right
    result = _reshaped(product(call, x, y), tuple(sizes[c] for c in letters))
    return _ordered(call, result, letters, out)


def _summed(call: Call, value: Value, letters: str, keep: set[str]) -> tuple[Value, str]:
    """Sum over the letters that occur nowhere else."""
    drop = [i for i, c in enumerate(letters) if c not in keep]
    rest = "".join(c for c in letters if c in keep)
    if not drop:
        return value, letters
    if not isinstance(value, Data):
        return value.sum(tuple(drop)), rest
    position, dims = call.over(value, *drop)
    shape = tuple(d for i, d in enumerate(value.shape) if i not in drop)
    return call.put(Reduce(dims, True), position, shape=shape), rest


def _ordered(call: Call, value: Value, letters: str, wanted: str) -> Value:
    order = [letters.index(c) for c in wanted]
    return permuted(call, value, order) if isinstance(value, Data) else value.transpose(order)


def _reshaped(value: Value, shape: tuple[int, ...]) -> Value:
    if isinstance(value, Data):
        return Data(value.position, shape, value.kind)
    return value.reshape(shape)


def _shape(value: Value) -> tuple[int, ...]:
    return value.shape


def _rank(value: Value) -> int:
    return len(value.shape)


def _matrix(shape: tuple[int, ...], rank: int, front: bool) -> tuple[int, ...]:
    """A shape with `rank` dimensions; a vector becomes a row (front) or a column."""
    if len(shape) == 1:
        shape = (1, *shape) if front else (*shape, 1)
    return (1,) * (rank - len(shape)) + shape


def _product_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        raise Unsupported(f"a matrix product of {list(a)} and {list(b)}")
    return (*broadcast(a[:-2], b[:-2]), *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))
