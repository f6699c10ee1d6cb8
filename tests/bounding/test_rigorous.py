"""Rigorous bounds hold exactly and for floats in any order, where ordinary float bounds do not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.bounding.exact import exact_values, fractions, shuffled_values
from torch import nn

from certus.bounding import (
    DEEPPOLY,
    FAST_LIN,
    IBP,
    Chunked,
    Crown,
    SdpCrown,
    Tightest,
    arithmetic,
    crown_ibp,
    rigorous,
    windows,
)
from certus.bounding.alpha_crown import AlphaCrown
from certus.core import ArgumentError, UnsupportedError
from certus.graph import trace
from certus.threats import L0, L1, L2, Box, Linf

METHODS = {
    "ibp": lambda r: IBP(rigorous=r),
    "crown-ibp": lambda r: crown_ibp(rigorous=r),
    "crown": lambda r: Crown(rigorous=r),
    "alpha": lambda r: AlphaCrown(rigorous=r, iterations=3, inner=2),
}


def cancelling():
    """A large bias that the next layer takes away."""
    first, second = nn.Linear(6, 8), nn.Linear(8, 3)
    with torch.no_grad():
        first.bias += 3e4
        second.bias.copy_(-second.weight @ first.bias)
    return nn.Sequential(first, nn.ReLU(), second), (6,)


def huge_means():
    """Batch normalisations that subtract means far above the spread."""
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.running_mean.uniform_(1e3, 1e4)
        norm.running_var.uniform_(1e-3, 1e-2)
    conv = nn.Conv2d(2, 4, 3, padding=1)
    with torch.no_grad():
        conv.bias.copy_(norm.running_mean + torch.rand(4))
    head = nn.Linear(4 * 9, 3)
    return nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head), (2, 6, 6)


def deep():
    layers = []
    for _ in range(7):
        layers += [nn.Linear(9, 9), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(9, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    return net, (9,)


def badly_scaled():
    net = nn.Sequential(
        nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(10 ** torch.empty_like(parameter).uniform_(-4, 4))
        net[2].weight.mul_(1e-6)
    return net, (6,)


class Residual(nn.Module):
    """Paths that meet and cancel, several kinds of layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(3, 3, 3, padding=1)
        self.up = nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.pool, self.head = nn.AvgPool2d(3, 2, 1), nn.Linear(2 * 9, 3)

    def forward(self, x):
        h = torch.relu(self.first(x))
        h = torch.relu(h - 0.999 * (self.inner(h) + h) + 100.0) - 100.0
        h = torch.sigmoid(self.pool(self.up(h)))
        return self.head((h / 0.3).clamp(0.1, 2.0).flatten(1))


NETWORKS = {
    "cancelling": cancelling,
    "huge-means": huge_means,
    "deep": deep,
    "badly-scaled": badly_scaled,
    "residual": lambda: (Residual(), (1, 6, 6)),
}


def build(name, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, name)))
        net, shape = NETWORKS[name]()
        x = torch.rand(2, *shape)
    # captured in float64: float32 differs from itself by too much here to be compared
    graph = trace(net.double().eval().requires_grad_(False), x.double())
    return graph.cast(dtype), x.to(dtype)


def corner(region, k):
    """A member: the centre, or a corner of a box."""
    if k == 0 or not isinstance(region, Box):
        return region.center if k == 0 else region.sample([torch.Generator().manual_seed(k)] * 2)
    up = torch.rand(region.lower.shape, generator=torch.Generator().manual_seed(k)) < 0.5
    return torch.where(up, region.upper, region.lower)


def outside(bounds, graph, region, members=2):
    """How many exact values, and values of floats in random orders, lie outside the bounds."""
    exact = floats = 0
    low, high = (fractions(side).reshape(2, -1) for side in (bounds.lower, bounds.upper))
    for k in range(members):
        x = corner(region, k)
        for b in range(2):
            real = exact_values(graph, x[b])[graph.output]
            exact += int((low[b] > real).sum() + (high[b] < real).sum())
            for seed in range(2):
                value = shuffled_values(graph, x[b], seed)[graph.output]
                own = fractions(torch.from_numpy(np.ascontiguousarray(value)))
                floats += int((low[b] > own).sum() + (high[b] < own).sum())
    return exact, floats


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
    monkeypatch.setattr(rigorous.RigorousWalk, "_add", lambda self, paid: None)
    for method in METHODS.values():
        exact, floats = outside(method(True)(graph, region), graph, region)
        assert exact > 0 and floats > 0


@pytest.mark.parametrize("part", ["step", "relax", "graph"])
def test_without_its_parts_the_law_fails(part, monkeypatch):
    """Broken on purpose: intervals or lines as they come, or normalisations fused."""
    graph, x = build("huge-means" if part == "graph" else "badly-scaled")
    region = Linf(0.0).region(x)
    method = Crown(intermediate=IBP(rigorous=True), rigorous=True)
    safe = method.prepare(graph, region)
    monkeypatch.setattr(arithmetic.Rigorous, part, getattr(arithmetic.Arithmetic, part))
    state = method.prepare(graph, region)
    if part == "relax":
        pairs = [(state.relaxations[p], safe.relaxations[p]) for p in safe.relaxations]
        assert all(bool((a.upper_offset < b.upper_offset).any()) for a, b in pairs)
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
        assert bool(((mine.lower - plain.lower).abs() <= scale).all())
        assert bool(((mine.upper - plain.upper).abs() <= scale).all())
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
            assert bool(((bounds.lower - plain.lower).abs() <= near).all())


def image(dtype=torch.float32):
    """Maps that are large enough for rows to stay windows."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.Conv2d(2, 2, 3, padding=1, stride=2),
            nn.LeakyReLU(0.01),
            nn.Conv2d(2, 2, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(2 * 25, 3),
        )
        net[1].running_mean.uniform_(50, 60)
        net = net.to(dtype).eval().requires_grad_(False)
        return trace(net, torch.rand(2, 1, 10, 10, dtype=dtype)).resolved(), net


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_windows_and_whole_maps(small, batch, monkeypatch):
    """Every inner interval of CROWN, by either kind of rows, single inputs and several."""
    graph, _ = image()
    used = []
    gather = windows.Windows.gather

    def counted(self, *given, **named):
        used.append(1)
        return gather(self, *given, **named)

    monkeypatch.setattr(windows.Windows, "gather", counted)
    if not small:
        monkeypatch.setattr(windows, "able", lambda node, shapes: False)
    x = torch.rand(batch, 1, 10, 10)
    for eps in (0.0, 0.02):
        region = Linf(eps).region(x)
        state = Crown(rigorous=True).prepare(graph, region)
        assert bool(used) == small
        for b in {0, batch - 1}:
            values = exact_values(graph, x[b])
            floats = shuffled_values(graph, x[b], b)
            for position, (low, high) in state.intervals.items():
                ends = fractions(low[b]), fractions(high[b])
                own = fractions(torch.from_numpy(np.ascontiguousarray(floats[position])))
                assert (ends[0] <= values[position]).all() and (values[position] <= ends[1]).all()
                assert (ends[0] <= own).all() and (own <= ends[1]).all()
                node = graph.nodes[position]
                wide = 2e-4 * (1 + torch.maximum(low.abs(), high.abs()))
                if eps == 0 and position:
                    assert bool((high - low < wide * (20 if position < 3 else 1)).all()), node


def test_walks_in_windows_charge_as_much_as_whole_maps():
    """The same rows give the same widening, up to where sums are counted."""
    graph, _ = image()
    region = Linf(0.02).region(torch.rand(1, 1, 10, 10))
    state = Crown(rigorous=True).prepare(graph, region)
    position = 6  # the third convolution
    node, like = graph.nodes[position], region.center
    neurons = torch.tensor([0, 12, 30])
    batch = torch.zeros(3, dtype=torch.int64)
    rows = windows.start(node, neurons, batch, like)
    walk = rigorous.RigorousWalk(state, both=True)
    small = walk.run(position, rows)
    dense = torch.zeros(3, node.numel).scatter_(1, neurons.unsqueeze(1), 1.0)
    other = rigorous.RigorousWalk(state, both=True)
    large = other.run(position, dense.view(3, 1, *node.shape))
    ratio = walk.slack.flatten() / other.slack.flatten()
    assert bool(((ratio > 0.8) & (ratio < 1.25)).all())
    assert torch.allclose(small.flatten(), large.flatten(), atol=1e-4)


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


def test_what_cannot_be_rigorous_is_refused():
    x = torch.rand(1, 4)
    region = Linf(0.1).region(x)
    graph = trace(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)).eval(), x)
    for method in METHODS.values():
        with pytest.raises(UnsupportedError, match="rigorous arithmetic has no rule for Gelu"):
            method(True)(graph, region)
    with pytest.raises(ArgumentError, match="rigorous=True"):
        Crown(intermediate=IBP(), rigorous=True)
    plain = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), x)
    with pytest.raises(UnsupportedError, match="a rigorous method prepared"):
        Crown(rigorous=True).bound(Crown().prepare(plain, region), torch.eye(2).view(2, 1, 2))
    with pytest.raises(UnsupportedError, match="a rigorous method prepared"):
        SdpCrown(crown=Crown(rigorous=True))(plain, L2(0.1).region(x))
    half = trace(nn.Linear(4, 2).to(torch.bfloat16).eval(), x.bfloat16())
    with pytest.raises(UnsupportedError, match="float32 or float64"):
        IBP(rigorous=True)(half, Box(x.bfloat16(), x.bfloat16()))


def test_overflow_and_nan_fail_closed():
    x = torch.rand(1, 4)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).requires_grad_(False).eval()
    net[0].weight.mul_(1e25)
    net[2].weight.mul_(1e25)
    graph = trace(nn.Sequential(nn.Linear(4, 2)).eval(), x)
    big = graph.substituted({})
    nodes = trace(net.double(), x.double()).cast(torch.float32)
    for method in METHODS.values():
        bounds = method(True)(nodes, Linf(0.1).region(x))
        assert not bool((bounds.lower.isfinite() & (bounds.lower > -1e30)).any())
    weight = big.nodes[1].op.weight.detach().clone()
    weight[0, 0] = float("nan")
    broken = big.substituted({1: replace(big.nodes[1].op, weight=weight)})
    for method in METHODS.values():
        bounds = method(True)(broken, Linf(0.1).region(x))
        assert bool(bounds.lower[0, 0].isnan() and bounds.upper[0, 0].isnan())


def test_gradients_reach_parameters():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    x = torch.rand(2, 4)
    graph = trace(net, x)
    for name in ("ibp", "crown-ibp", "crown"):
        mine, plain = (METHODS[name](r)(graph, Linf(0.05).region(x)) for r in (True, False))
        found = torch.autograd.grad(mine.lower.sum(), list(net.parameters()))
        wanted = torch.autograd.grad(plain.lower.sum(), list(net.parameters()))
        for a, b in zip(found, wanted, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_search_starts_may_leave_out_the_last_layer():
    """The search takes a linear layer's weights as rows; its own rounding is met afterwards."""
    graph, x = build("cancelling")
    region = Linf(0.01).region(x)
    state = Crown(rigorous=True).prepare(graph, region)
    for b in range(2):
        value = exact_values(graph, x[b])
        low, high = (fractions(side[b]) for side in state.intervals[1])
        assert (low <= value[1]).all() and (value[1] <= high).all()
