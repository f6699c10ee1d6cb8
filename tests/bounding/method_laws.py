"""Laws that every bound method keeps, for methods that have test files of their own."""

import torch
from tests.laws.networks import AFFINE, NETWORKS, example, graph_of, make
from tests.laws.tables import REGIONS, members, per_element_eps
from tests.laws.tiers import rest_slow

from certus.graph import trace
from certus.threats import L1, L2, Linf

ALL = list(NETWORKS | AFFINE)
FEW = ["relu", "leaky", "residual", "maxpool-overlap", "tanh", "broadcast", "tied", "functional"]
ROUNDING = 1e-9
# every network with one region of uneven sides, a few with the other two dual norms as well
MEMBER_CASES = rest_slow(
    [(name, kind) for name in ALL for kind in ("linf-element", "l2", "l1-free-input")],
    lambda name, kind: name in FEW or kind == "linf-element",
)


def rows_of(batch, count=5, classes=3):
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, count, classes, generator=generator, dtype=torch.float64)


def check_members(method, name, kind):
    """Values and functionals of members lie inside, inner intervals hold, nothing crosses."""
    graph, x = graph_of(name), example(name, 3)
    region, spec = REGIONS[kind](x), rows_of(3)
    inner = members(name, kind)[1]
    values = inner[graph.output]
    functionals = torch.einsum("brk,pbk->pbr", spec, values)
    plain, own = method(graph, region), method(graph, region, spec)
    shared = method(graph, region, spec[:1])
    assert plain.lower.shape == (3, 3) and own.lower.shape == shared.lower.shape == (3, 5)
    for bounds, inside in ((plain, values), (own, functionals)):
        assert bool((inside >= bounds.lower - ROUNDING).all()), name
        assert bool((inside <= bounds.upper + ROUNDING).all()), name
        assert bool((bounds.lower <= bounds.upper + ROUNDING).all())
    assert torch.allclose(shared.lower[0], own.lower[0], atol=ROUNDING)
    state = method.prepare(graph.resolved(), region)
    assert state.intervals
    for position, (low, high) in state.intervals.items():
        value = inner[position]
        assert bool((value >= low - ROUNDING).all() & (value <= high + ROUNDING).all())


def check_eps_zero(method, name):
    graph, x = graph_of(name), example(name, 3)
    with torch.no_grad():
        value = graph(x)
    for norm in (Linf, L2):
        found = method(graph, norm(0.0).region(x))
        assert torch.allclose(found.lower, value, atol=1e-8, rtol=1e-8)
        assert torch.allclose(found.upper, value, atol=1e-8, rtol=1e-8)


def check_batch(method, name):
    graph, x, spec = graph_of(name), example(name, 3), rows_of(3)
    for kind in ("linf-element", "l2"):
        region = REGIONS[kind](x)
        together = method(graph, region, spec)
        for b in (0, 2):
            alone = method(graph, region.select(torch.tensor([b])), spec[b : b + 1])
            assert torch.allclose(together.lower[b], alone.lower[0], atol=1e-9, rtol=1e-9)
            assert torch.allclose(together.upper[b], alone.upper[0], atol=1e-9, rtol=1e-9)


def check_affine(method, name):
    """W x + b -+ ||eps W||_q, with the dual norm."""
    graph, x = graph_of(name), example(name, 3)
    with torch.no_grad():
        offset = graph(torch.zeros_like(x[:1]))[0]
        basis = torch.eye(x[0].numel(), dtype=x.dtype).view(-1, *x.shape[1:])
        weight = (graph(basis) - offset).T
    eps = per_element_eps(x)
    middle = x.flatten(1) @ weight.T + offset
    scaled = weight * eps.flatten(1).unsqueeze(1)
    reach = {Linf: scaled.abs().sum(2), L2: scaled.norm(dim=2), L1: scaled.abs().amax(2)}
    for norm, radius in reach.items():
        found = method(graph, norm(eps, clip=None).region(x))
        assert torch.allclose(found.lower, middle - radius, atol=1e-10)
        assert torch.allclose(found.upper, middle + radius, atol=1e-10)


def check_float32(method, name):
    double, x = graph_of(name), example(name, 3)
    single = trace(make(name, torch.float32), x.float())
    for kind in ("linf", "l2"):
        with torch.no_grad():
            found = method(single, REGIONS[kind](x.float()))
            wide = method(double, REGIONS[kind](x))
        size = wide.upper.abs().max() + 1
        assert found.lower.dtype == torch.float32
        assert float((found.lower - wide.lower).abs().max()) < 2e-5 * size
        assert float((found.upper - wide.upper).abs().max()) < 2e-5 * size


def check_nan(method):
    """A broken parameter certifies nothing."""
    net = make("relu")
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    x = example("relu", 2)
    found = method(trace_unchecked(net, x), Linf(0.1).region(x))
    assert bool((~torch.isfinite(found.lower) & ~torch.isfinite(found.upper)).all())


def trace_unchecked(net, x):
    """The graph of a network whose weights are broken after the capture."""
    clean = make("relu")
    graph = trace(clean, x)
    with torch.no_grad():
        clean[0].weight.copy_(net[0].weight)
    return graph
