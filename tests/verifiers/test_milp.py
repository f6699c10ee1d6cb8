"""Exact minima against independent ones: every activation pattern by LP, attacks, dense samples."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.optimize import linprog
from tests.laws.networks import PIECEWISE, example, graph_of
from tests.laws.noisy import COARSE, noisy
from tests.laws.tables import ascend
from torch import nn

import certus
from certus.bounding import IBP, Crown
from certus.bounding.engine import Engine
from certus.core import UnsupportedError
from certus.graph import trace
from certus.threats import L2, Linf
from certus.verifiers import Milp

GAP = 1e-3  # the solver's relative gap and the slack for its tolerances


def tiny(seed, leak=0.0, hidden=(3, 3)):
    torch.manual_seed(seed)
    act = nn.LeakyReLU(leak) if leak else nn.ReLU()
    sizes = [2, *hidden]
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), act)]
    net = nn.Sequential(*layers, nn.Linear(hidden[-1], 2)).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    return net


def by_enumeration(net, leak, region, row):
    """min <row, f> as the least of one LP for each pattern of signs: no bounds, no binaries."""
    layers = [
        (m.weight.detach().numpy(), m.bias.detach().numpy()) for m in net if hasattr(m, "weight")
    ]
    low, high = region.lower.numpy().ravel(), region.upper.numpy().ravel()
    best = np.inf
    neurons = sum(len(b) for _, b in layers[:-1])
    for signs in itertools.product((0, 1), repeat=neurons):
        matrix, offset, rows, limits, used = np.eye(len(low)), np.zeros(len(low)), [], [], 0
        for weight, bias in layers[:-1]:
            matrix, offset = weight @ matrix, weight @ offset + bias
            on = np.array(signs[used : used + len(bias)])
            used += len(bias)
            side = np.where(on, -1.0, 1.0)  # on: z >= 0, off: z <= 0
            rows.append(side[:, None] * matrix)
            limits.append(-side * offset)
            slope = np.where(on, 1.0, leak)
            matrix, offset = slope[:, None] * matrix, slope * offset
        weight, bias = layers[-1]
        cost, base = row @ weight @ matrix, row @ (weight @ offset + bias)
        found = linprog(
            cost, np.vstack(rows), np.hstack(limits), bounds=list(zip(low, high, strict=True))
        )
        if found.status == 0:
            best = min(best, found.fun + base)
    return best


@pytest.mark.parametrize(("seed", "leak"), [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.3), (4, 0.3)])
def test_milp_equals_the_enumeration_of_all_patterns(seed, leak):
    net = tiny(seed, leak)
    x = torch.tensor([[0.5, 0.4]]).double()
    graph, region = trace(net, x), Linf(0.4).region(x)
    milp = Milp(graph, region)
    assert len(milp.program.binaries) > 0
    for row in ([1.0, -1.0], [-1.0, 1.0], [0.3, 0.8]):
        exact = by_enumeration(net, leak, region, np.array(row))
        found = milp.minimise(torch.tensor(row), 20.0)
        assert found.lower <= exact + 1e-6  # the tolerance of the reference's own solver
        assert found.lower == pytest.approx(exact, abs=GAP * max(1, abs(exact)))
        assert found.usable and not found.timed_out
        value = float(graph(found.point)[0].detach() @ torch.tensor(row).double())
        assert found.lower <= value + 1e-9
        assert value == pytest.approx(exact, abs=GAP * max(1, abs(exact)))
        assert bool(region.contains(found.point))


SMALL_POOLS = {
    "pool-overlap": nn.MaxPool2d(3, 2, 1),
    "pool-dilated": nn.MaxPool2d(2, 1, 0, dilation=2),
    "pool-ceil": nn.MaxPool2d(3, 2, 0, ceil_mode=True),
}


def small_pool(name):
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), SMALL_POOLS[name], nn.Flatten(), nn.Linear(8, 3)
    )
    return trace(net.double().eval(), torch.rand(2, 1, 4, 4).double())


@pytest.mark.parametrize("name", [*PIECEWISE, *SMALL_POOLS])
def test_the_exact_minimum_lies_between_bounds_and_attacks(name):
    if name in SMALL_POOLS:
        graph, x = small_pool(name), torch.rand(1, 1, 4, 4).double()
    else:
        graph, x = graph_of(name), example(name, 1)
    region = Linf(0.15).region(x)
    row = torch.tensor([1.0, -1.0, 0.0]).double()
    milp = Milp(graph, region)
    exact = milp.minimise(row, 20.0)
    assert exact.usable and not exact.timed_out
    top = -milp.minimise(-row, 20.0).lower
    many = region.select(torch.zeros(400, dtype=torch.long))
    start = many.lower + torch.rand_like(many.lower) * (many.upper - many.lower)
    ends = ascend(lambda p: -(graph(p) @ row), many, start, 40)
    attacked = float((graph(torch.cat([start, ends])).detach() @ row).min())
    assert exact.lower <= attacked + 1e-9
    for method in (IBP(), Crown()):
        bounds = method(graph, region, row.view(1, 1, 3))
        assert float(bounds.lower.detach()) <= exact.lower + GAP
        assert float(bounds.upper.detach()) >= top - GAP
    reached = float(graph(exact.point)[0].detach() @ row)
    assert exact.lower <= reached + 1e-9
    assert reached == pytest.approx(exact.lower, abs=1e-2)
    assert reached <= attacked + 1e-3
    assert exact.lower > float(IBP()(graph, region, row.view(1, 1, 3)).lower.detach()) + 1e-4


def test_a_stable_network_needs_no_binary_and_is_exact():
    net = tiny(0)
    with torch.no_grad():
        net[0].bias.fill_(50.0), net[2].weight.abs_()
    x = torch.tensor([[0.5, 0.5]]).double()
    graph, region = trace(net, x), Linf(0.2).region(x)
    milp, row = Milp(graph, region), torch.tensor([1.0, -1.0])
    assert not milp.program.binaries
    found = milp.minimise(row, 1.0)
    assert float(graph(found.point)[0].detach() @ row.double()) == pytest.approx(
        found.lower, abs=1e-9
    )


@pytest.mark.parametrize(
    "limits", [(-0.3, 0.5), (0.1, None), (None, 0.4), (-1e9, None), (-0.1, 1e9)]
)
def test_clamps_are_exact(limits):
    """A far limit is none; a near one bends where it lies."""

    class Clamped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(2, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.last(self.first(x).clamp(*limits))

    torch.manual_seed(1)
    net = Clamped().double().eval()
    x = torch.tensor([[0.4, 0.6]]).double()
    graph, region, row = trace(net, x), Linf(0.4).region(x), torch.tensor([1.0, -1.0])
    found = Milp(graph, region).minimise(row, 20.0)
    axis = torch.linspace(-0.4, 0.4, 161, dtype=torch.float64)
    grid = region.select(torch.zeros(161**2, dtype=torch.int64)).project(
        x + torch.cartesian_prod(axis, axis)
    )
    with torch.no_grad():
        least = float((net(grid) @ row.double()).min())
    reached = float(graph(found.point)[0].detach() @ row.double())
    assert found.lower <= min(least, reached) + 1e-9
    assert reached == pytest.approx(found.lower, abs=1e-3)


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_other_activations_are_refused(name):
    graph, x = graph_of(name), example(name, 1)
    with pytest.raises(UnsupportedError, match=r"MILP encoding has no rule for \w+"):
        Milp(graph, Linf(0.1).region(x))


def test_other_regions_are_refused():
    graph = graph_of("relu")
    with pytest.raises(UnsupportedError, match="one input at a time"):
        Milp(graph, L2(0.1).region(example("relu", 1)))
    with pytest.raises(UnsupportedError, match="one input at a time"):
        Milp(graph, Linf(0.1).region(example("relu", 2)))


def solved(monkeypatch, change):
    """The solver with its answers changed."""
    true = scipy.optimize.milp
    monkeypatch.setattr(
        "scipy.optimize.milp", lambda cost, **given: change(true(cost, **given), len(cost))
    )


def stopped(found, columns):
    """At its time limit: an input that is not the best one, and a dual bound below the minimum."""
    found.status, found.fun, found.mip_dual_bound = 1, found.fun + 0.5, found.mip_dual_bound - 0.5
    return found


def failed(found, columns):
    """At no limit and no optimum, with a bound that means nothing."""
    found.status, found.mip_dual_bound = 4, found.mip_dual_bound + 5.0
    return found


@pytest.mark.parametrize("change", [stopped, failed])
def test_only_a_dual_bound_counts(monkeypatch, change):
    net = tiny(1)
    x = torch.tensor([[0.5, 0.4]]).double()
    region, row = Linf(0.4).region(x), torch.tensor([1.0, -1.0])
    milp = Milp(trace(net, x), region)
    exact = by_enumeration(net, 0.0, region, row.numpy())
    crown = float(milp.bounds(row.view(1, 2))[0])
    solved(monkeypatch, change)
    found = milp.minimise(row, 20.0)
    assert crown <= found.lower <= exact
    assert found.usable == (change is stopped)


@pytest.mark.parametrize(("inputs", "down"), [(2, 4.0), (300, 0.0)], ids=["rows", "costs"])
def test_what_the_solver_tolerates_is_subtracted(monkeypatch, inputs, down):
    """Rows are violated by 1e-6 of their largest entry, reduced costs are off by 1e-7.

    A row of neuron i says a <= z - low (1 - d) with a binary d, so it may hide 1e-6 |low| of a; the other
    side of the sum grows with the columns, each of which is two wide.
    """
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(inputs, 4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    net.requires_grad_(False)
    x = torch.rand(1, inputs, dtype=torch.float64)
    net[0].bias.copy_(-net[0].weight @ x[0] - down * net[0].weight.abs().sum(1) / inputs)
    milp, row = Milp(trace(net, x), Linf(6.0, clip=None).region(x)), torch.tensor([1.0, -1.0])
    assert len(milp.program.binaries) == 4
    value = float(net(milp.minimise(row, 20.0).point)[0] @ row.double())  # attained
    reach = 6.0 * net[0].weight.abs().sum(1)
    middle = net[0](x)[0]
    low, high, cost = middle - reach, middle + reach, (row.double() @ net[2].weight).abs()
    unit = float((cost * high).max()) / 2  # of the scaled objective

    def tolerant(found, columns):
        found.mip_dual_bound += 1e-6 * float(cost @ -low) / unit + 2e-7 * columns
        return found

    solved(monkeypatch, tolerant)
    found = milp.minimise(row, 20.0)
    assert found.usable and found.lower <= value


def test_intervals_of_the_program_hold_exactly():
    """In rational arithmetic: the first layer's range on the box, which CROWN rounds to the nearest."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 2)).double().eval()
    x = torch.rand(1, 6, dtype=torch.float64)
    milp = Milp(trace(net, x), Linf(0.1, clip=None).region(x))
    (lower, upper), region = milp.state.intervals[1], milp.region
    box = list(zip(*(fractions(side[0]) for side in (region.lower, region.upper)), strict=True))
    for j, row in enumerate(net[0].weight):
        ends = [(w * a, w * b) for w, (a, b) in zip(fractions(row), box, strict=True)]
        (bias,) = fractions(net[0].bias[j : j + 1])
        low, high = fractions(torch.stack([lower[0, j], upper[0, j]]))
        assert low <= bias + sum(map(min, ends)) and bias + sum(map(max, ends)) <= high


def fractions(values):
    return [Fraction(value) for value in values.tolist()]


@pytest.mark.parametrize("where", ["row", "objective"])
def test_many_small_entries_together_are_not_lost(monkeypatch, where):
    """The solver would ignore each of them; what it tolerates besides is used up."""
    few, small = 100, 9e-8
    size = few + 1
    net = nn.Sequential(
        nn.Linear(size, size, bias=False), nn.ReLU(), nn.Linear(size, 1, bias=False)
    )
    net = net.double().eval().requires_grad_(False)
    first, second = torch.zeros(size, size), torch.full((1, size), -small)
    first.fill_diagonal_(1.0)
    second[0, 0] = 1.0
    if where == "row":  # f = -relu(x_0 + small sum x_j)
        first[0, 1:], first[1:], second = small, 0.0, torch.zeros(1, size)
        second[0, 0] = -1.0
    net[0].weight.copy_(first), net[2].weight.copy_(second)
    x = torch.zeros(1, size, dtype=torch.float64)
    least = -(1 + few * small) if where == "row" else -few * small
    milp = Milp(trace(net, x), Linf(1.0, clip=None).region(x))

    def tolerant(found, columns):
        found.mip_dual_bound += 2e-7 * columns + 2e-6  # the objective's unit is 1/2
        return found

    solved(monkeypatch, tolerant)
    found = milp.minimise(torch.ones(1), 20.0)
    assert found.usable and found.lower <= least


def test_minima_cover_every_evaluation():
    """Each operation moved by its local error, one way or the other, in networks of few neurons."""
    for seed in range(3):
        net = tiny(seed).float()
        x = torch.tensor([[0.4, 0.6]])
        graph, row = trace(net, x), torch.tensor([1.0, -1.0]).double()
        region = Linf(0.2).region(x)
        found = Milp(graph, region, COARSE).minimise(row, 20.0).lower
        exact, g = graph.cast(torch.float64), torch.Generator().manual_seed(seed)
        corners = torch.tensor(list(itertools.product((0.2, 0.6), (0.4, 0.8)))).double()
        worst = min(float((noisy(exact, corners, COARSE, g) @ row).min()) for _ in range(60))
        plain = Milp(graph, region).minimise(row, 20.0).lower
        assert found <= worst and found < plain - 1e-4

    net = nn.Linear(2, 2).eval()  # a margin of half a unit of its terms
    with torch.no_grad():
        net.weight.fill_(1.0)
        net.bias.copy_(torch.tensor([5e-8, 0.0]))
    x = torch.tensor([[0.4, 0.6]])
    hidden = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), net).eval()
    with torch.no_grad():
        hidden[0].weight.copy_(torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
        hidden[0].bias.zero_()
    found = certus.certify(hidden, x, torch.tensor([0]), Linf(0.3), "milp")
    assert not bool(found.certified[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_limits_that_the_dtype_rounds_move_the_minimum(dtype):
    """hardtanh's limit .3 is .3008 in bfloat16: both stages of the clamp allow for that."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Hardtanh(-0.3, 0.3)).to(dtype).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2)), net[0].bias.zero_()
    x = torch.zeros(1, 2, dtype=dtype)
    engine = Engine("torch", dtype)
    milp = Milp(trace(net, x), Linf(1.0, clip=None).region(x), engine)
    reached = float(net(torch.ones(1, 2, dtype=dtype))[0, 0].detach())
    assert milp.minimise(torch.tensor([-1.0, 0.0]), 20.0).lower <= -reached
    assert milp.minimise(torch.tensor([1.0, 0.0]), 20.0).lower <= -reached
