"""Fixed slopes: Wong and Kolter's dual network written out, Fast-Lin and DeepPoly lines on grids."""

from itertools import pairwise

import pytest
import torch
from tests.bounding import method_laws as laws
from tests.laws.tables import REGIONS
from torch import nn

from certus.bounding import DEEPPOLY, FAST_LIN, Crown, wong_kolter
from certus.graph import trace
from certus.graph.activation import LeakyRelu, Relu, Sigmoid, Tanh
from certus.relax import relaxations
from certus.threats import L2, Linf


def dual_bound(layers, intervals, x, eps, q, row):
    """J(nu) of Wong and Kolter 2018, theorem 1: a lower bound of <row, z_k>, for one input.

    intervals [(l, u)] of the pre-activations; nu_k = -c, nu_i = D_i W_i' nu_{i+1}; their objective
    -sum nu' b - x' nu_1 - eps ||nu_1||_q + sum over undecided of l [nu]_+.
    """
    nu, value = -row, 0.0
    for index in range(len(layers) - 1, -1, -1):
        weight, bias = layers[index]
        value = value - nu @ bias
        hat = weight.T @ nu
        if index == 0:
            return value - x @ hat - eps * hat.norm(p=q)
        low, high = intervals[index - 1]
        nu = torch.zeros_like(hat)
        for j in range(len(hat)):
            if low[j] >= 0:
                nu[j] = hat[j]
            elif high[j] > 0:  # alpha = u / (u - l) in the negative part as in the positive one
                nu[j] = high[j] / (high[j] - low[j]) * hat[j]
                value = value + low[j] * nu[j].clamp(min=0)
    raise AssertionError


def network(*sizes):
    parts = []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), nn.ReLU()]
    net = nn.Sequential(*parts[:-1]).double().eval().requires_grad_(False)
    return net, [(m.weight, m.bias) for m in net if isinstance(m, nn.Linear)]


@pytest.mark.parametrize(("norm", "q"), [(Linf, 1), (L2, 2)])
@pytest.mark.parametrize("sizes", [(4, 8, 3), (4, 10, 9, 3), (5, 12, 8, 8, 2)])
def test_the_walk_is_the_dual_network(sizes, norm, q):
    net, layers = network(*sizes)
    x = torch.rand(2, sizes[0], dtype=torch.float64)
    graph, region = trace(net, x), norm(0.3, clip=None).region(x)
    method = wong_kolter()
    state = method.prepare(graph, region)
    hidden = [n.inputs[0] for n in graph.nodes if isinstance(n.op, Relu)]
    found = method(graph, region)
    undecided = 0
    for b in range(2):
        own = [tuple(side[b] for side in state.intervals[i]) for i in hidden]
        undecided += sum(int(((low < 0) & (high > 0)).sum()) for low, high in own)
        for j in range(sizes[-1]):
            row = torch.zeros(sizes[-1], dtype=torch.float64)
            row[j] = 1.0
            low = dual_bound(layers, own, x[b], 0.3, q, row)
            high = -dual_bound(layers, own, x[b], 0.3, q, -row)
            assert found.lower[b, j].item() == pytest.approx(low.item(), abs=1e-10)
            assert found.upper[b, j].item() == pytest.approx(high.item(), abs=1e-10)
    assert undecided > 3


@pytest.mark.parametrize("sizes", [(4, 8, 3), (4, 10, 9, 3)])
def test_algorithm_one_with_its_own_intervals_is_never_tighter(sizes):
    """Inner intervals by the dual itself, without interval arithmetic: equal after one layer."""
    net, layers = network(*sizes)
    x = torch.rand(1, sizes[0], dtype=torch.float64)
    own = []
    for depth in range(1, len(layers) + 1):
        rows = torch.eye(len(layers[depth - 1][1]), dtype=torch.float64)
        part = layers[:depth], own, x[0], 0.2, 1
        low = torch.stack([dual_bound(*part, row) for row in rows])
        high = -torch.stack([dual_bound(*part, -row) for row in rows])
        own = [*own, (low, high)]
    found = wong_kolter()(trace(net, x), Linf(0.2, clip=None).region(x))
    assert bool((found.lower[0] >= own[-1][0] - 1e-10).all())
    assert bool((found.upper[0] <= own[-1][1] + 1e-10).all())
    if len(sizes) == 3:
        assert torch.allclose(found.lower[0], own[-1][0], atol=1e-10)


@pytest.mark.parametrize("table", [FAST_LIN, DEEPPOLY], ids=lambda t: t.name)
@pytest.mark.parametrize("op", [Relu(), LeakyRelu(0.2), Sigmoid(), Tanh()], ids=lambda o: o.name)
def test_lines_hold_on_a_grid(op, table):
    lower = 2 * torch.randn(300, 1, dtype=torch.float64)
    upper = lower + 3 * torch.rand_like(lower)
    upper[:10] = lower[:10]
    lines = table[type(op)](op, (lower, upper))
    x = lower + (upper - lower) * torch.linspace(0, 1, 300, dtype=torch.float64)
    floor = 0.0 if lines.lower_offset is None else lines.lower_offset
    assert bool((op.forward(x) >= lines.lower_slope * x + floor - 1e-12).all())
    assert bool((op.forward(x) <= lines.upper_slope * x + lines.upper_offset + 1e-12).all())
    nan = torch.full((1, 1), float("nan"), dtype=torch.float64)
    broken = table[type(op)](op, (nan, nan))
    assert bool(broken.upper_offset.isnan().all() | broken.upper_slope.isnan().all())


def test_the_tables_choose_their_slopes():
    lower, upper = (torch.tensor([[v, v]], dtype=torch.float64) for v in (-1.0, 3.0))
    lower[0, 1], upper[0, 1] = -3.0, 1.0
    fast = FAST_LIN[Relu](Relu(), (lower, upper))
    assert fast.lower_slope.tolist() == fast.upper_slope.tolist() == [[0.75, 0.25]]
    least_area = DEEPPOLY[Relu](Relu(), (lower, upper))
    assert least_area.lower_slope.tolist() == [[1.0, 0.0]]
    ends = DEEPPOLY[Sigmoid](Sigmoid(), (lower, upper))
    slope = torch.minimum(Sigmoid().derivative(lower), Sigmoid().derivative(upper))
    assert torch.allclose(ends.lower_slope, slope) and torch.allclose(ends.upper_slope, slope)
    assert relaxations[Relu](Relu(), (lower, upper)).lower_slope.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("name", laws.FEW)
@pytest.mark.parametrize("table", [FAST_LIN, DEEPPOLY], ids=lambda t: t.name)
def test_members(table, name):
    for kind in ("linf", "l2", "box"):
        assert kind in REGIONS
        laws.check_members(Crown(slopes=table), name, kind)
    laws.check_eps_zero(Crown(slopes=table), name)
