"""ATen sums, means, norms, extremes, softmax and running sums over dimensions."""

import math

import torch

from certus.graph import composite
from certus.graph.affine import Sum
from certus.graph.aten_arithmetic import rectify, scaled
from certus.graph.builders import Arguments, Unsupported, builds
from certus.graph.extremum import ArgMax, Norm, Sorted
from certus.graph.piecewise import Abs
from certus.graph.powers import Power
from certus.graph.softmax import LogSumExp, Softmax
from certus.graph.structural import Concat, CumSum, Expand, Flip, Reduce, Reshape, Select, Slice

_ROWS = 25  # beyond so many torch's cdist multiplies matrices


def axes(a: Arguments) -> tuple[int, ...]:
    """The dimensions that are reduced; none given means all, which would be the batch too."""
    found = a["dim"]
    dims = [found] if isinstance(found, int) else list(found or range(a.ndim()))
    return tuple(sorted(a.dim(d) for d in dims))


def size(a: Arguments) -> int:
    """How many values are reduced to one."""
    shape = a.canonical(a["self"])
    return torch.Size([shape[d - 1] for d in axes(a)]).numel()


@builds("mean.dim", "sum.dim_IntList", anywhere=True)
def _mean(a: Arguments) -> int:
    factor = 1 / size(a) if a.target.startswith("mean") else 1.0
    return a.add(Reduce(axes(a), bool(a["keepdim"]), factor), a.x())


@builds("sum.default", "mean.default", "max.default", "min.default", "prod.default")
def _over_all(a: Arguments) -> int:
    raise Unsupported("a result over the whole batch")


@builds("amax.default", "amin.default", anywhere=True)
def _amax(a: Arguments) -> int:
    reduce = composite.reduce_max if "amax" in a.target else composite.reduce_min
    return reduce(a.scope.builder, a.x(), axes(a), bool(a["keepdim"]), a.source)


@builds("max.dim", "min.dim", anywhere=True)
def _max_dim(a: Arguments) -> tuple[int | None, ...]:
    reduce = composite.reduce_max if "max" in a.target else composite.reduce_min
    return reduce(a.scope.builder, a.x(), axes(a), bool(a["keepdim"]), a.source), None


@builds("sort.default", "sort.stable", "topk.default", anywhere=True)
def _sort(a: Arguments) -> tuple[int | None, ...]:
    """Values alone; the largest k come largest first."""
    top = a.target.startswith("topk")
    if top and a["sorted"] is False:
        raise Unsupported("largest values in no order")
    dim = a.dim(-1 if a["dim"] is None else a["dim"])
    falling = a["largest"] is not False if top else bool(a["descending"])
    x = a.add(Sorted(dim), a.x())
    x = a.add(Flip((dim,)), x) if falling else x
    return (a.add(Slice(dim, 0, a["k"]), x) if top else x), None


@builds("kthvalue.default", "median.dim", anywhere=True)
def _order_statistic(a: Arguments) -> tuple[int | None, ...]:
    """The k-th smallest value; of an even number torch's median is the lower one."""
    dim = a.dim(-1 if a["dim"] is None else a["dim"])
    x = a.add(Sorted(dim), a.x())
    count = a.shape(x)[dim - 1]
    place = a["k"] - 1 if a.target.startswith("kth") else (count - 1) // 2
    if a["keepdim"]:
        return a.add(Slice(dim, place, place + 1), x), None
    return a.add(Select(dim, place), x), None


@builds("argmax.default", anywhere=True)
def _argmax(a: Arguments) -> int:
    if a["dim"] is None:
        raise Unsupported("a position in the whole batch")
    return a.add(ArgMax(a.dim(a["dim"]), bool(a["keepdim"])), a.x())


@builds("var.correction", "var.dim", anywhere=True)
def _var(a: Arguments) -> int:
    total = composite.square_sum(a.scope.builder, centred(a), axes(a), bool(a["keepdim"]), a.source)
    return scaled(a, total, 1 / _freedom(a))


@builds("std.correction", "std.dim", anywhere=True)
def _std(a: Arguments) -> int:
    norm = a.add(Norm(2.0, axes(a), bool(a["keepdim"])), centred(a))
    return scaled(a, norm, _freedom(a) ** -0.5)


@builds("var_mean.correction", "var_mean.dim", anywhere=True)
def _var_mean(a: Arguments) -> tuple[int | None, ...]:
    mean = a.add(Reduce(axes(a), bool(a["keepdim"]), 1 / size(a)), a.x())
    return _var(a), mean


def centred(a: Arguments) -> int:
    """x minus its mean over the dimensions."""
    mean = a.add(Reduce(axes(a), True, 1 / size(a)), a.x())
    return a.add(Sum(-1.0), a.x(), mean)


def _freedom(a: Arguments) -> float:
    """The divisor of a variance."""
    correction = a["correction"]
    if "correction" not in a.target:
        correction = 1 if a["unbiased"] is not False else 0
    divisor = size(a) - float(1 if correction is None else correction)
    if divisor <= 0:
        raise Unsupported("the variance of too few values")
    return divisor


@builds(
    *("linalg_vector_norm.default", "norm.ScalarOpt_dim", "norm.ScalarOpt_dim_dtype"),
    *("norm.Scalar", "frobenius_norm.dim"),
    anywhere=True,
)
def _norm(a: Arguments) -> int:
    given = a["ord"] if a["ord"] is not None else a["p"]
    p, keep, builder = float(2 if given is None else given), bool(a["keepdim"]), a.scope.builder
    if p in (1.0, 2.0, math.inf):
        return composite.norm(builder, a.x(), p, axes(a), keep, a.source)
    sizes = a.add(Abs(), a.x())
    if p == -math.inf:
        return composite.reduce_min(builder, sizes, axes(a), keep, a.source)
    if p <= 0:
        raise Unsupported(f"a norm with p = {p}")
    total = a.add(Reduce(axes(a), keep), a.add(Power(p), rectify(a, sizes)))
    return a.add(Power(1 / p), rectify(a, total))


@builds("softmax.int", "_softmax.default", "special_softmax.int", anywhere=True)
def _softmax(a: Arguments) -> int:
    return a.add(Softmax(a.dim(a["dim"])), a.x())


@builds("log_softmax.int", "_log_softmax.default", "special_log_softmax.int", anywhere=True)
def _log_softmax(a: Arguments) -> int:
    return composite.log_softmax(a.scope.builder, a.x(), a.dim(a["dim"]), a.source)


@builds("hypot.default", "logaddexp.default", anywhere=True)
def _of_two(a: Arguments) -> int:
    """A norm, or log sum exp, of two values."""
    a.aligned(a["self"], a["other"])
    sides = [a.add(Expand(a.canonical()), x) for x in a.pair(a.x(), a.x("other"))]
    columns = [a.add(Reshape((*a.canonical(), 1)), x) for x in sides]
    axis = len(a.canonical()) + 1
    both = a.add(Concat(axis), *columns)
    return a.add(Norm(2.0, (axis,)) if a.target.startswith("hypot") else LogSumExp(axis), both)


@builds("_cdist_forward.default", "cdist.default")
def _cdist(a: Arguments) -> int:
    """Distances of every row of one to every row of the other, as norms of differences.

    Many rows are multiplied by torch instead, which cancels for rows that are near.
    """
    p, rows = float(a["p"]), [a.one(a[name])[-2] for name in ("x1", "x2")]
    many = max(rows) > _ROWS and a["compute_mode"] != 2
    if p not in (1.0, 2.0, math.inf) or (p == 2 and (many or a["compute_mode"] == 1)):
        raise Unsupported("distances by matrix products, or of another norm than 1, 2 and infinity")
    x, y = (a.x(name, a.ndim(name)) for name in ("x1", "x2"))
    x = a.add(Reshape((*a.shape(x)[:-1], 1, a.shape(x)[-1])), x)
    y = a.add(Reshape((*a.shape(y)[:-2], 1, *a.shape(y)[-2:])), y)
    gap = a.add(Sum(-1.0), *a.pair(x, y))
    return a.add(Norm(p, (len(a.shape(gap)),)), gap)


@builds("logsumexp.default", anywhere=True)
def _logsumexp(a: Arguments) -> int:
    dims = axes(a)
    if len(dims) > 1:
        raise Unsupported("logsumexp over several dimensions; flatten them first")
    return a.add(LogSumExp(dims[0], bool(a["keepdim"])), a.x())


@builds("cumsum.default", anywhere=True)
def _cumsum(a: Arguments) -> int:
    return a.add(CumSum(a.dim(a["dim"])), a.x())
