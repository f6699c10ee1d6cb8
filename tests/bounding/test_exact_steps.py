"""What is exact in floats, or cannot change a sign, is not widened."""

from fractions import Fraction

import pytest
import torch
from tests.bounding.exact import exact_values, fractions
from tests.bounding.single import DTYPES, F32, F64, alone
from tests.laws.networks import Function
from torch import nn

import certus
from certus.bounding import IBP, AlphaCrown, Crown, crown_ibp
from certus.bounding.outer_range import unrounded
from certus.bounding.outward import outward
from certus.graph.activation import LeakyRelu
from certus.graph.affine import Scale, Sum
from certus.graph.structural import AvgPool, CumSum, Reduce

METHODS = {
    "ibp": IBP(rigorous=True),
    "crown-ibp": crown_ibp(rigorous=True),
    "crown": Crown(rigorous=True),
    "alpha": AlphaCrown(iterations=2, inner=1, rigorous=True),
}
# functions of r >= 0 that floats evaluate without rounding, and the sign of their values
EXACT = {
    "relu": (lambda r: r, 1),
    "negated": (lambda r: -r, -1),
    "negated twice": (lambda r: (-r).neg(), 1),
    "largest": (lambda r: nn.functional.max_pool1d(r.unsqueeze(1), 2).flatten(1), 1),
    "moved": (lambda r: r.flip(1).reshape(-1, 2, 2).transpose(1, 2).flatten(1)[:, 1:], 1),
    "copied": (lambda r: r[:, [1, 1, 3]], 1),
    "joined": (lambda r: torch.cat([r, r[:, :2]], 1), 1),
    "cut": (lambda r: r.clamp(max=0.5), 1),
    "masked": (lambda r: r * torch.tensor([1.0, 0.0, 1.0, 1.0]), 1),
}
# those that round, but not across zero
SIGNED = {
    "sum": (lambda r: r.sum(1, keepdim=True), 1),
    "mean of negatives": (lambda r: (-r).mean(1, keepdim=True), -1),
    "added": (lambda r: r[:, :2] + r[:, 2:], 1),
    "scaled": (lambda r: r * -0.3, -1),
    "pooled": (lambda r: nn.functional.avg_pool1d(r.unsqueeze(1), 2).flatten(1), 1),
}


def captured(function, dtype, shift=-0.5):
    net = Function(lambda m, x: function(torch.relu(m.first(x))), first=nn.Linear(3, 4))
    with torch.no_grad():
        net.first.weight.copy_(torch.linspace(-1, 1.3, 12).view(4, 3))
        net.first.bias.fill_(shift)
    x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    return certus.trace(net.to(dtype).eval(), x), certus.Linf(0.9, clip=None).region(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", EXACT | SIGNED)
def test_no_bound_lies_beyond_zero(name, method, dtype):
    """The output is never negative (never positive): no evaluation of any kind makes it so."""
    function, sign = (EXACT | SIGNED)[name]
    graph, region = captured(function, dtype)
    found = METHODS[method](graph, region)
    end = found.lower if sign > 0 else -found.upper
    assert bool((end >= 0).all()) and bool((end == 0).any())
    assert bool((found.lower <= found.upper).all())


@pytest.mark.parametrize("name", EXACT)
def test_exact_steps_keep_the_ends(name):
    """Bounds of functions that round nothing are those of ReLU itself, moved; and of sums of one of them."""
    function, _ = EXACT[name]
    (plain, region), (graph, _) = captured(lambda r: r, F32), captured(function, F32)
    ends = IBP(rigorous=True)(plain, region)
    found = IBP(rigorous=True)(graph, region)
    moved = torch.stack([function(ends.lower), function(ends.upper)])
    assert torch.equal(found.lower, moved.amin(0)) and torch.equal(found.upper, moved.amax(0))
    spec = torch.zeros(1, 2, found.lower.shape[1])
    spec[0, 0, 0], spec[0, 1, 0] = 1.0, -1.0
    for method in METHODS.values():
        rows = method(graph, region, spec)
        assert bool((rows.lower[:, 0] >= found.lower[:, 0]).all())
        assert bool((rows.lower[:, 1] >= -found.upper[:, 0]).all())


def test_lower_bounds_alone_are_raised_too():
    graph, region = captured(lambda r: r, F32)
    rows = torch.eye(4).view(4, 1, 4)
    for method in METHODS.values():
        state = method.prepare(graph.resolved(), region)
        assert torch.equal(method.lower(state, rows), method.bound(state, rows).lower)
        assert bool((method.improved(state, rows)[0] >= 0).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_unrounded_values_are_exact(dtype):
    """By rational arithmetic; and all others are left to those who count roundings."""
    generator = torch.Generator().manual_seed(2)
    pool = torch.tensor([0.0, 0.0, 0.0, 1.0, -1.0, 0.3, -2.0], dtype=dtype)
    rows = pool[torch.randint(len(pool), (400, 1, 3), generator=generator)]
    ends = torch.randn(2, 5, 3, generator=generator, dtype=dtype).sort(0).values
    ends[0, :3] = ends[0, :3].clamp(min=0)
    ends[1] = torch.maximum(ends[0], ends[1] * (torch.rand(5, 3, generator=generator) < 0.6))
    found, known = unrounded(rows, (ends[0], ends[1])), 0
    weights = fractions(rows[:, 0]).reshape(400, 3)
    low, high = (fractions(end).reshape(5, 3) for end in ends)
    for r in range(400):
        for b in range(5):
            terms = [c * (low[b, i] if c > 0 else high[b, i]) for i, c in enumerate(weights[r])]
            given = [c for c, t in zip(weights[r], terms, strict=True) if t]
            if found[r, b] > float("-inf"):
                assert Fraction(float(found[r, b])) == sum(terms)
                known += 1
            assert (found[r, b] > float("-inf")) == (
                len(given) < 2 and all(abs(c) == 1 for c in given)
            )
    assert 200 < known < 1800


def test_unrounded_values_need_finite_ends():
    rows = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    low, high = torch.tensor([[0.0, float("nan")]]), torch.tensor([[1.0, float("nan")]])
    assert bool((unrounded(rows, (low, high)) == float("-inf")).all())


OPERATIONS = {
    "difference": (Sum(-1.0), [(4,), (4,)]),
    "sum": (Sum(1.0), [(4,), (4,)]),
    "weighed": (Sum(-1e-30), [(4,), (4,)]),
    "scale": (Scale(torch.tensor([0.3, -0.7, 1e-30, 0.0])), [(4,)]),
    "divide": (Scale(torch.tensor([3.0, -7.0, 1e30, -1e30]), divide=True), [(4,)]),
    "mean": (Reduce((1,), True, 1 / 4), [(4,)]),
    "pool": (AvgPool((2,), (1,), (1,), True, False), [(1, 4)]),
    "cumulated": (CumSum(1), [(4,)]),
    "leaky": (LeakyRelu(0.3), [(4,)]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_ends_at_zero_hold_what_is_near_them(name):
    """Inputs whose ends are zero or the smallest numbers: signs are kept only where they are sure."""
    op, shapes = OPERATIONS[name]
    if isinstance(op, Scale):
        op = Scale(op.factor.to(F32), op.divide)
    graph = alone(op, shapes, F32)
    generator = torch.Generator().manual_seed(3)
    tiny = torch.finfo(F32).tiny
    pool = torch.tensor([0.0, 0.0, -0.0, 0.5, -0.5, tiny, -tiny, 2e-20, -2e-20])
    kept = 0
    for _ in range(60):
        ends = pool[torch.randint(len(pool), (2, 1, *graph.input_shape), generator=generator)]
        low, high = ends.amin(0), ends.amax(0)
        known = {0: (low, high)}
        for position, node in enumerate(graph.nodes[1:], start=1):
            known[position] = outward(graph, node, known)
        lower, upper = map(fractions, known[graph.output])
        kept += sum(end in (0, Fraction(1, 2)) for end in (*lower.flatten(), *upper.flatten()))
        for point in (low, high, torch.where(torch.rand(low.shape) < 0.5, low, high)):
            real = exact_values(graph, point[0])[graph.output]
            assert (lower <= real).all() and (real <= upper).all()
    assert kept > 0


def test_gradients_are_those_of_the_better_bound():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).double().eval()
    x = torch.rand(1, 3, dtype=F64)
    found = Crown(rigorous=True)(certus.trace(net, x), certus.Linf(0.4, clip=None).region(x))
    slopes = torch.autograd.grad(found.upper.sum(), list(net.parameters()))
    assert all(bool(s.isfinite().all()) for s in slopes) and bool((slopes[0] != 0).any())
