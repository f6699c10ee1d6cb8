"""Laws of the pieces that rigorous bounds are made of, against rational arithmetic."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.bounding.exact import exact_values, fractions, matrices, shuffled_values
from tests.bounding.single import ACTIVATIONS, DTYPES, F32, F64, alone

from certus.bounding.gamma import gamma, less, more, plain_sums, unit
from certus.bounding.outer_range import ranges
from certus.bounding.outward import cover, outward
from certus.bounding.terms import terms
from certus.core import UnsupportedError
from certus.graph.activation import MaxPool
from certus.graph.affine import BatchNorm, Conv, ConvTranspose, Linear, MatMul, Scale, Shift, Sum
from certus.graph.op import Affine
from certus.graph.structural import (
    AdaptiveAvgPool,
    AvgPool,
    Concat,
    CumSum,
    Expand,
    Flip,
    Gather,
    Pad,
    Permute,
    Reduce,
    Reshape,
    Resize,
    ScatterAdd,
    Select,
    Slice,
)
from certus.relax import intervals as plain_intervals
from certus.threats import Box


def rand(*shape, dtype=F32):
    """Values of very different sizes and both signs."""
    return torch.randn(*shape, dtype=dtype) * 10 ** torch.empty(shape, dtype=dtype).uniform_(-3, 3)


def norm(channels, dtype=F32):
    mean, bias = 1e3 * torch.randn(2, channels, dtype=dtype)
    variance = torch.rand(channels, dtype=dtype) ** 3
    return BatchNorm(torch.randn(channels, dtype=dtype), bias, mean, variance, 1e-5)


# name -> (operation of a dtype, shapes of the inputs)
AFFINE = {
    "linear": (lambda d: Linear(rand(5, 7, dtype=d), rand(5, dtype=d)), [(7,)]),
    "linear-positions": (lambda d: Linear(rand(3, 4, dtype=d)), [(2, 4)]),
    "conv": (
        lambda d: Conv(rand(3, 2, 3, 3, dtype=d), rand(3, dtype=d), (2, 2), (1, 1), (1, 1)),
        [(2, 5, 5)],
    ),
    "conv-grouped": (
        lambda d: Conv(rand(4, 1, 2, 3, dtype=d), None, (1, 1), (2, 1), (2, 1), 2),
        [(2, 4, 4)],
    ),
    "conv-1d": (
        lambda d: Conv(rand(2, 2, 3, dtype=d), rand(2, dtype=d), (1,), (1,), (1,)),
        [(2, 6)],
    ),
    "conv-transpose": (
        lambda d: ConvTranspose(
            rand(2, 3, 3, 3, dtype=d), rand(3, dtype=d), (2, 2), (1, 1), (1, 1), (1, 1)
        ),
        [(2, 3, 3)],
    ),
    "batch-norm": (lambda d: norm(3, d), [(3, 2, 2)]),
    "scale": (lambda d: Scale(rand(3, 1, dtype=d)), [(3, 2)]),
    "divide": (lambda d: Scale(rand(3, 1, dtype=d), divide=True), [(3, 2)]),
    "scale-broadcast": (lambda d: Scale(rand(3, 2, dtype=d)), [(1, 2)]),
    "scale-small": (lambda d: Scale(rand(3, 1, dtype=d).tanh()), [(3, 2)]),
    "signs": (lambda d: Scale(torch.tensor([[1.0], [-1.0], [0.0]], dtype=d)), [(3, 2)]),
    "signs-divide": (lambda d: Scale(torch.tensor([[1.0], [-1.0]], dtype=d), divide=True), [(2, 2)]),
    "signs-broadcast": (lambda d: Scale(-torch.ones(3, 2, dtype=d)), [(1, 2)]),
    "shift": (lambda d: Shift(1e4 * rand(3, 2, dtype=d), 0.1), [(3, 2)]),
    "sum": (lambda d: Sum(-0.3), [(3, 2), (3, 2)]),
    "sum-broadcast": (lambda d: Sum(), [(3, 1), (1, 4)]),
    "matmul": (lambda d: MatMul(rand(4, 3, dtype=d)), [(2, 4)]),
    "matmul-left": (lambda d: MatMul(rand(4, 3, dtype=d), left=True), [(3, 2)]),
    "reduce": (lambda d: Reduce((1, 3), False, 1 / 6), [(2, 3, 3)]),
    "avg-pool": (lambda d: AvgPool((3, 3), (2, 2), (1, 1), False, False), [(2, 5, 5)]),
    "adaptive": (lambda d: AdaptiveAvgPool((2, 3)), [(2, 5, 5)]),
    "cumsum": (lambda d: CumSum(1), [(5,)]),
    "reshape": (lambda d: Reshape((6,)), [(2, 3)]),
    "permute": (lambda d: Permute((0, 2, 1)), [(2, 3)]),
    "slice": (lambda d: Slice(1, 1, 5, 2), [(6,)]),
    "select": (lambda d: Select(1, 1), [(2, 3)]),
    "concat": (lambda d: Concat(1), [(2, 3), (1, 3)]),
    "flip": (lambda d: Flip((1,)), [(4,)]),
    "expand": (lambda d: Expand((3, 4)), [(1, 4)]),
    "gather": (lambda d: Gather(torch.tensor([0, 2, 2, 1, 2]), (5,)), [(3,)]),
    "scatter-add": (lambda d: ScatterAdd(torch.tensor([0, 2, 2, 1, 2]), (3,)), [(5,)]),
    "pad": (lambda d: Pad((1, 2), 0.1), [(2, 3)]),
    "pad-zero": (lambda d: Pad((1, -1)), [(2, 3)]),
    "resize": (lambda d: Resize((5, 4)), [(1, 2, 2)]),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_gamma_is_the_exact_value_rounded_up(dtype):
    u = Fraction(unit(dtype))
    for n in (1, 2, 3, 17, 1000, 99991, 10**6):
        exact = n * u / (1 - n * u)
        assert exact <= Fraction(gamma(n, dtype)) <= exact * (1 + Fraction(1, 2**40))
    for a, b in pairwise((1, 5, 100, 2000)):
        both = (1 + Fraction(gamma(a, dtype))) * (1 + Fraction(gamma(b, dtype)))
        assert both <= 1 + Fraction(gamma(a + b, dtype)) * (1 + Fraction(1, 2**40))
    assert gamma(2**60, dtype) == float("inf")


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_and_less_are_on_the_right_side(dtype):
    values = rand(2000, dtype=dtype)
    for n in (0, 40):
        bound = 1 / (1 - Fraction(gamma(n, dtype)))
        for exact, found in zip(
            fractions(values.abs()), fractions(more(values.abs(), n)), strict=True
        ):
            assert found > exact * bound
    for exact, found in zip(fractions(values), fractions(less(values)), strict=True):
        assert found < exact - abs(exact) * Fraction(unit(dtype))
    broken = less(torch.tensor([float("inf"), float("-inf"), float("nan")], dtype=dtype))
    assert bool(broken.isnan().all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cover_holds_the_interval_exactly(dtype):
    ends = torch.stack([rand(500, dtype=dtype), rand(500, dtype=dtype)]).sort(0).values
    ends[:, :50] = ends[:1, :50]
    centre, radius = map(fractions, cover((ends[0], ends[1])))
    low, high = map(fractions, ends)
    assert all(
        c - r <= lo and hi <= c + r for c, r, lo, hi in zip(centre, radius, low, high, strict=True)
    )


@pytest.mark.parametrize("name", AFFINE)
def test_terms_count_at_least_the_entries_of_the_matrix(name):
    """By brute force: summands of an output and of its constant, and of an input in the transpose."""
    make, shapes = AFFINE[name]
    op, out = make(F64), None
    out = tuple(op.forward(*[torch.zeros(1, *s, dtype=F64) for s in shapes]).shape[1:])
    found = terms[type(op)](op, shapes, out)
    weights, offset = matrices(op, tuple(shapes), out, F64)
    together = np.concatenate([w.reshape(len(offset), -1) for w in weights], 1)
    row = (together != 0).sum(1) + (offset != 0)
    trivial = bool(np.isin(np.abs(together), [0, 1]).all())
    assert found.forward >= (0 if trivial and row.max() <= 1 and offset.max() == 0 else row.max())
    column = (together != 0).sum(0)
    assert found.backward >= (0 if trivial and column.max() <= 1 else column.max())
    if found.moves:
        assert trivial and column.max() <= 1 and row.max() <= 1 and not offset.any()


@pytest.mark.parametrize("name", AFFINE)
def test_constant_is_the_sum_of_its_absolute_terms(name):
    make, shapes = AFFINE[name]
    op = make(F64)
    like = torch.zeros(1, *shapes[0], dtype=F64)
    offset, found = op.offset(shapes, like), op.offset_terms(shapes, like)
    if offset is None:
        assert found is None
    else:
        assert bool((found * (1 + 1e-12) >= offset.abs()).all())


def intervals(shape, dtype, width):
    low = rand(1, *shape, dtype=dtype)
    return low, low + width * torch.rand(1, *shape, dtype=dtype)


CASES = [*AFFINE, *ACTIVATIONS, "max-pool"]


def case(name, dtype):
    if name in AFFINE:
        return AFFINE[name][0](dtype), AFFINE[name][1]
    if name == "max-pool":
        return MaxPool((3, 3), (2, 2), (1, 1)), [(2, 5, 5)]
    return ACTIVATIONS[name], [(40,)]


def step(graph, interval):
    found = {0: interval}
    for position, node in enumerate(graph.nodes[1:], start=1):
        found[position] = outward(graph, node, found)
    return found[graph.output]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_outward_holds_exact_values_and_any_order_of_sums(name, dtype):
    """Intervals without width leave no room: every rounding shows."""
    op, shapes = case(name, dtype)
    graph = alone(op, shapes, dtype)
    for width in (0.0, 1e-3, 2.0):
        interval = intervals(graph.input_shape, dtype, width)
        low, high = map(fractions, step(graph, interval))
        for k in range(3):
            share = torch.rand_like(interval[0]).round() if k else torch.rand_like(interval[0])
            x = torch.minimum(interval[0] + share * (interval[1] - interval[0]), interval[1])
            real = exact_values(graph, x[0])[graph.output]
            floats = shuffled_values(graph, x[0], k)[graph.output]
            floats = fractions(torch.from_numpy(np.ascontiguousarray(floats)))
            assert (low <= real).all() and (real <= high).all()
            assert (low <= floats).all() and (floats <= high).all()


@pytest.mark.parametrize("name", ["linear", "conv", "batch-norm", "divide", "avg-pool", "tanh"])
def test_ordinary_steps_miss_exact_values(name):
    """The law above can fail: intervals that are not widened break it."""
    op, shapes = case(name, F32)
    graph = alone(op, shapes)
    interval = intervals(graph.input_shape, F32, 0.0)
    low, high = map(fractions, plain_intervals[type(op)](op, interval))
    real = exact_values(graph, interval[0][0])[graph.output]
    assert not ((low <= real).all() and (real <= high).all())


def test_outward_knows_nothing_where_sums_may_overflow():
    op = Linear(torch.full((1, 2), 3e38))
    graph = alone(op, [(2,)])
    x = torch.tensor([[1.0, -1.0]])
    assert bool(torch.stack(step(graph, (x, x))).isnan().all())
    inside = step(graph, (1e-9 * x, 1e-9 * x))
    assert bool(torch.stack(inside).isfinite().all())
    lower = torch.tensor([[float("nan"), 0.0]])
    assert bool(torch.stack(step(graph, (lower, x))).isnan().all())


def test_what_has_no_rule_is_refused_by_name():
    graph = alone(Resize((4, 4), "linear"), [(1, 2, 2)])
    x = torch.rand(1, 1, 2, 2)
    with pytest.raises(UnsupportedError, match="Resize with mode 'linear'"):
        outward(graph, graph.nodes[1], {0: (x, x)})
    with pytest.raises(UnsupportedError, match="float32 or float64"):
        unit(torch.float16)
    with pytest.raises(UnsupportedError, match="no rule for Affine"):
        terms[Affine]
    with pytest.raises(UnsupportedError, match="no rule for Tensor"):
        ranges[torch.Tensor]
    assert type(Box(x[0], x[0])) in ranges


def test_reduced_precision_is_refused():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(UnsupportedError, match="full float32"), plain_sums(torch.zeros(1)):
            pass
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu"), pytest.raises(UnsupportedError, match="autocast"):
        plain_sums(torch.zeros(1)).__enter__()
    with plain_sums(torch.zeros(1)):
        pass
