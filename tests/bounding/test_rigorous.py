"""Rigorous bounds hold exactly and for floats in any order, where ordinary float bounds do not."""

import pytest
import torch
from tests.bounding.adversarial import METHODS, NETWORKS, build, corner, outside
from tests.bounding.exact import exact_values, fractions
from torch import nn

from certus.bounding import (
    DEEPPOLY,
    FAST_LIN,
    IBP,
    Chunked,
    Crown,
    Tightest,
    arithmetic,
    rigorous,
)
from certus.graph import trace
from certus.threats import L0, L1, L2, Linf


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_exact_values_and_any_order_of_sums_lie_inside(name, method):
    graph, x = build(name)
    for eps in (0.0, 1e-6, 0.03):
        region = Linf(eps).region(x)
        bounds = METHODS[method](True)(graph, region)
        assert bool((bounds.lower.isfinite() & bounds.upper.isfinite()).all())
        assert outside(bounds, graph, region, 1 if eps == 0 else 2) == (0, 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["cancelling", "huge-means", "deep"])
def test_ordinary_bounds_miss_both(name, method):
    """The law above can fail: it does for bounds that do not account for rounding."""
    graph, x = build(name)
    region = Linf(0.0).region(x)
    exact, floats = outside(METHODS[method](False)(graph, region), graph, region)
    assert exact > 0 and floats > 0


def test_without_charges_the_law_fails(monkeypatch):
    """Broken on purpose: an affine network, where the walk's charges are all there is."""
    first, second = nn.Linear(6, 30), nn.Linear(30, 3)
    with torch.no_grad():
        first.bias += 1e3
        second.bias.copy_(-second.weight @ first.bias)
    x = torch.rand(2, 6)
    graph = trace(nn.Sequential(first, second).double().eval(), x.double()).cast(torch.float32)
    region = Linf(0.0).region(x)
    for method in METHODS.values():
        assert outside(method(True)(graph, region), graph, region) == (0, 0)
    monkeypatch.setattr(rigorous.RigorousMeter, "add", lambda self, paid: None)
    for method in METHODS.values():
        exact, floats = outside(method(True)(graph, region), graph, region)
        assert exact > 0 and floats > 0


@pytest.mark.parametrize("part", ["step", "lines", "graph"])
def test_without_its_parts_the_law_fails(part, monkeypatch):
    """Broken on purpose: intervals or lines as they come, or normalisations fused."""
    graph, x = build("huge-means" if part == "graph" else "badly-scaled")
    region = Linf(0.0).region(x)
    method = Crown(intermediate=IBP(rigorous=True), rigorous=True)
    safe = method.prepare(graph, region)
    if part == "lines":
        monkeypatch.setattr(arithmetic, "Safe", lambda slopes, engine: slopes)
    else:
        monkeypatch.setattr(arithmetic.Rigorous, part, getattr(arithmetic.Arithmetic, part))
    state = method.prepare(graph, region)
    if part == "lines":
        pairs = [(state.relaxations[p], safe.relaxations[p]) for p in safe.relaxations]
        assert pairs and all(bool((a.upper_offset < b.upper_offset).any()) for a, b in pairs)
        return
    wrong = 0
    for b in range(2):
        values = exact_values(graph, x[b])
        for position, ends in state.intervals.items():
            low, high = (fractions(side[b]) for side in ends)
            wrong += int((low > values[position]).sum() + (high < values[position]).sum())
    assert wrong > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_float64_bounds_hold_exactly(name):
    graph, x = build(name, torch.float64)
    for method in ("ibp", "crown"):
        for eps in (0.0, 0.01):
            region = Linf(eps).region(x)
            assert outside(METHODS[method](True)(graph, region), graph, region, 1) == (0, 0)
    region = Linf(0.0).region(x)
    if name in ("cancelling", "deep"):
        assert outside(Crown()(graph, region), graph, region, 1)[0] > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_price_is_a_few_roundings(name, method):
    """Float64: rigorous bounds are next to the ordinary ones, so nothing else was lost."""
    graph, x = build(name, torch.float64)
    for eps in (0.0, 0.03):
        region = Linf(eps).region(x)
        mine, plain = (METHODS[method](r)(graph, region) for r in (True, False))
        scale = 1e-12 * (1 + plain.lower.abs() + plain.upper.abs())
        scale = scale * (1e4 if name in ("badly-scaled", "cancelling", "huge-means") else 1)
        if method == "alpha":  # the search may take other turns
            scale = scale + 0.05 * (plain.upper - plain.lower)
        assert bool((mine.lower >= plain.lower - scale).all())
        assert bool((mine.upper <= plain.upper + scale).all())
        if eps == 0:
            assert bool((mine.lower < mine.upper).all())


@pytest.mark.parametrize("threat", [L2(0.1), L2(0.2, clip=None), L1(0.3), L0(1)], ids=str)
def test_other_regions(threat):
    for name in ("deep", "residual"):
        graph, x = build(name)
        region = threat.region(x)
        for method in ("ibp", "crown-ibp", "crown"):
            bounds, plain = (METHODS[method](r)(graph, region) for r in (True, False))
            assert outside(bounds, graph, region) == (0, 0)
            near = 1e-3 * (1 + plain.upper - plain.lower)
            assert bool((bounds.lower >= plain.lower - near).all())


def test_specifications_batches_and_pieces():
    graph, x = build("huge-means")
    region, spec = Linf(0.01).region(x), torch.randn(2, 5, 3)
    whole = Crown(rigorous=True)(graph, region, spec)
    values = [[exact_values(graph, p)[graph.output] for p in corner(region, k)] for k in range(3)]
    for found in (whole, Chunked(Crown(rigorous=True), batch=1, rows=2)(graph, region, spec)):
        for member in values:
            for b in range(2):
                weights = fractions(spec[b]).reshape(5, 3)
                real = (weights * member[b]).sum(1)
                assert (fractions(found.lower[b]) <= real).all()
                assert (real <= fractions(found.upper[b])).all()
    meet = Tightest(IBP(rigorous=True), Crown(rigorous=True))(graph, region, spec)
    assert bool((meet.lower >= whole.lower).all())
    state = Crown(rigorous=True).prepare(graph, region)
    rows = spec.transpose(0, 1)
    alone = Crown(rigorous=True).lower(state, rows)
    assert torch.allclose(alone, whole.lower.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("slopes", [FAST_LIN, DEEPPOLY], ids=["fast-lin", "deeppoly"])
def test_other_slopes(slopes):
    for name in ("deep", "residual"):
        graph, x = build(name)
        region = Linf(0.01).region(x)
        bounds = Crown(slopes=slopes, rigorous=True)(graph, region)
        assert outside(bounds, graph, region) == (0, 0)


def test_margins_of_equal_classes_are_not_proven():
    """z_1 - z_2 is exactly zero; whatever floats say, it is not positive."""
    net = nn.Linear(50, 2).requires_grad_(False)
    net.weight[1], net.bias[1] = net.weight[0], net.bias[0]
    x = torch.rand(4, 50)
    graph = trace(net.eval(), x)
    spec = torch.tensor([[[1.0, -1.0]]])
    for method in METHODS.values():
        bounds = method(True)(graph, Linf(0.1).region(x), spec)
        assert bool((bounds.lower <= 0).all() and (bounds.upper >= 0).all())


def test_search_starts_may_leave_out_the_last_layer():
    """The search takes a linear layer's weights as rows; its own rounding is met afterwards."""
    graph, x = build("cancelling")
    region = Linf(0.01).region(x)
    state = Crown(rigorous=True).prepare(graph, region)
    for b in range(2):
        value = exact_values(graph, x[b])
        low, high = (fractions(side[b]) for side in state.intervals[1])
        assert (low <= value[1]).all() and (value[1] <= high).all()
