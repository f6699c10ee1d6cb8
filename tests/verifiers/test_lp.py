"""LP relaxation: safe for any multipliers, the triangle's optimum, between CROWN and the exact minimum."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from tests.bounding import method_laws as laws
from tests.laws.networks import AFFINE, PIECEWISE, example, graph_of
from tests.laws.tables import REGIONS, points
from torch import nn

from certus.bounding import Crown
from certus.core import ArgumentError
from certus.graph import trace
from certus.graph.activation import Relu
from certus.threats import Linf
from certus.verifiers import LP, Milp


@pytest.mark.parametrize("kind", ["linf-element", "l2"])
@pytest.mark.parametrize("name", laws.FEW)
def test_members(name, kind):
    laws.check_members(LP(), name, kind)


@pytest.mark.parametrize("name", ["relu", "maxpool-overlap", "tanh"])
def test_eps_zero_and_batch(name):
    laws.check_eps_zero(LP(), name)
    laws.check_batch(LP(), name)


@pytest.mark.parametrize("name", AFFINE)
def test_exact_on_affine_networks(name):
    laws.check_affine(LP(), name)


def test_float32_and_nan():
    laws.check_float32(LP(), "relu")
    laws.check_nan(LP())


@pytest.mark.parametrize("name", PIECEWISE)
def test_between_crown_and_the_exact_minimum(name):
    graph, x = graph_of(name), example(name, 1)
    region = REGIONS["linf"](x)
    method = LP()
    state = method.prepare(graph, region)
    rows = torch.eye(3, dtype=torch.float64)
    plain = Crown().bound(state, rows.unsqueeze(1)).lower[:, 0]
    exact = Milp(graph, region)
    gains = []
    for r in range(3):
        low = state.programs[0].minimum(rows[r], 30.0)  # the program alone, without CROWN's bound
        assert low >= plain[r].item() - 1e-6
        assert low <= exact.minimise(rows[r], 30.0).lower + 1e-4
        gains.append(low - plain[r].item())
    assert (
        max(gains) > 1e-4 or name == "in-place"
    )  # there no neuron gains from its second lower line


def planet(net, region, intervals, row):
    """The triangle relaxation of a fully connected net with every layer's values as columns."""
    sizes = [len(region.center[0])]
    equal, right, less, most, limits = [], [], [], [], list(
        zip(region.lower[0].tolist(), region.upper[0].tolist(), strict=True)
    )  # fmt: skip
    layers = [m for m in net if isinstance(m, nn.Linear)]
    total = sizes[0] + sum(2 * m.out_features for m in layers[:-1]) + layers[-1].out_features
    start, place = 0, sizes[0]
    for depth, layer in enumerate(layers):
        for j in range(layer.out_features):
            line = np.zeros(total)
            line[start : start + layer.in_features] = layer.weight[j].numpy()
            line[place + j] = -1.0
            equal.append(line)
            right.append(-float(layer.bias[j]))
        limits += [(None, None)] * layer.out_features
        if depth == len(layers) - 1:
            break
        z, a = place, place + layer.out_features
        for j in range(layer.out_features):
            low, high = (float(side[0, j]) for side in intervals[depth])
            above, kink = np.zeros(total), np.zeros(total)
            kink[z + j], kink[a + j] = 1.0, -1.0
            less.append(kink)
            most.append(0.0)
            slope = 1.0 if low >= 0 else 0.0 if high <= 0 else high / (high - low)
            shift = 0.0 if low >= 0 or high <= 0 else -slope * low
            above[a + j], above[z + j] = 1.0, -slope
            less.append(above)
            most.append(shift)
        limits += [(0, None)] * layer.out_features
        start, place = a, a + layer.out_features
    cost = np.zeros(total)
    cost[place:] = row.numpy()
    found = linprog(
        cost, A_ub=np.array(less), b_ub=most, A_eq=np.array(equal), b_eq=right, bounds=limits
    )
    assert found.status == 0
    return found.fun


def test_the_optimum_is_that_of_the_triangles():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 2))
    net = net.double().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2.0)
    x = torch.rand(1, 4, dtype=torch.float64)
    graph, region = trace(net, x), Linf(0.4).region(x)
    state = LP().prepare(graph, region)
    hidden = [state.intervals[n.inputs[0]] for n in graph.nodes if isinstance(n.op, Relu)]
    assert sum(int(((low < 0) & (high > 0)).sum()) for low, high in hidden) > 4
    for row in (*torch.eye(2).double(), torch.tensor([1.0, -1.0]).double()):
        expected = planet(net, region, hidden, row)
        assert state.programs[0].minimum(row, 30.0) == pytest.approx(expected, abs=1e-6)


def test_any_multipliers_give_a_bound():
    """Weak duality: random ones as well, and the solver's with errors."""
    graph, x = graph_of("relu"), example("relu", 1)
    region = REGIONS["linf"](x)
    (program,) = LP().prepare(graph, region).programs
    values = torch.stack([graph(p)[0] for p in points(graph, region)]).detach()
    cost = program._dense(
        (
            {
                graph.nodes[graph.output].inputs[0]: graph.resolved()
                .nodes[graph.output]
                .op.weight[:1]
            },
            torch.zeros(1),
        )
    )[0]
    bias = float(graph.resolved().nodes[graph.output].op.bias[0].detach())
    rng = np.random.default_rng(0)
    for scale in (0.0, 0.1, 1.0, 10.0):
        for _ in range(20):
            low = program.lagrangian(cost, scale * rng.random(len(program.offset))) + bias
            assert low <= float(values[:, 0].min()) + 1e-9


def test_a_solver_that_gives_nothing_leaves_crowns_bound(monkeypatch):
    graph, x = graph_of("relu"), example("relu", 2)
    region = REGIONS["linf"](x)
    monkeypatch.setattr("scipy.optimize.linprog", lambda *a, **k: None)
    found, plain = LP()(graph, region), Crown()(graph, region)
    assert torch.equal(found.lower, plain.lower) and torch.equal(found.upper, plain.upper)


CONSTANTS = {
    "smaller": lambda x: torch.minimum(torch.tanh(x), torch.tensor(0.2)),
    "larger": lambda x: torch.maximum(x, torch.tensor([0.2, 0.3, 0.1])),
    "limit": lambda x: x.clamp(max=torch.tensor([0.2, 0.3, 0.1])),
    "choice": lambda x: torch.where(x > 0.2, torch.tensor(0.1), x),
    "beside": lambda x: torch.cat([torch.relu(x[:, :2]), torch.ones_like(x[:, :1])], 1),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_in_the_program(name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3, 2)

        def forward(self, x):
            return self.last(CONSTANTS[name](x))

    net, x = Net().eval(), torch.rand(1, 3)
    region, graph = Linf(0.1, clip=None).region(x), trace(net, x)
    found, plain = LP()(graph, region), Crown()(graph, region)
    values = net(x + 0.2 * torch.rand(200, 3) - 0.1)
    assert bool(((values >= found.lower - 1e-5) & (values <= found.upper + 1e-5)).all())
    assert bool((found.lower >= plain.lower).all() and (found.upper <= plain.upper).all())


def test_settings_are_checked():
    with pytest.raises(ArgumentError):
        LP(seconds=0.0)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
def test_the_rounding_of_the_lagrangian_is_subtracted(size):
    """In rational arithmetic: what its terms lose to each other is more than its last digits."""
    graph, x = graph_of("relu"), example("relu", 1)
    (program,) = LP().prepare(graph, REGIONS["linf"](x)).programs
    matrix = [[Fraction(v) for v in row] for row in program.matrix.toarray().tolist()]
    offset = [Fraction(v) for v in program.offset.tolist()]
    limits = list(zip(program.lower.tolist(), program.upper.tolist(), strict=True))
    rng = np.random.default_rng(0)
    for _ in range(5):
        cost, multipliers = rng.normal(size=len(limits)), size * rng.random(len(offset))
        reduced = [Fraction(v) for v in cost.tolist()]
        value = Fraction(0)
        for row, own, times in zip(matrix, offset, multipliers.tolist(), strict=True):
            value += own * Fraction(times)
            for i, entry in enumerate(row):
                if entry:
                    reduced[i] += entry * Fraction(times)
        for slope, (low, high) in zip(reduced, limits, strict=True):
            value += min(slope * Fraction(low), slope * Fraction(high))
        assert Fraction(program.lagrangian(cost, multipliers)) <= value


def test_multipliers_of_any_sign_leave_a_bound(monkeypatch):
    """Whatever the solver says: those of the wrong sign do not count."""
    graph, x = graph_of("relu"), example("relu", 1)
    region = REGIONS["linf"](x)
    values = torch.stack([graph(p)[0] for p in points(graph, region)]).detach()
    state = LP().prepare(graph, region)
    rng = np.random.default_rng(0)

    def strange(cost, **given):
        return SimpleNamespace(
            ineqlin=SimpleNamespace(marginals=rng.normal(size=len(given["b_ub"])))
        )

    monkeypatch.setattr("scipy.optimize.linprog", strange)
    for _ in range(20):
        for row in torch.eye(3, dtype=torch.float64):
            assert state.programs[0].minimum(row, 1.0) <= float((values @ row).min()) + 1e-9
