"""Laws of `Cases`: the hull over integers equals a brute force over networks with constants there."""

import itertools
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from tests.bounding.method_laws import check_batch, check_members, check_nan
from tests.laws.noisy import COARSE, noisy
from tests.laws.tables import points
from torch import nn

import certus
from certus.bounding import IBP, AlphaCrown, Cases, Crown, DeepZ, Forward, crown_ibp, margin_rows
from certus.bounding.cases import _lifted
from certus.bounding.engine import engine_of
from certus.bounding.guarded import Guarded
from certus.bounding.state import State
from certus.certifiers.bound_methods import BOUNDS
from certus.core import ArgumentError
from certus.graph import trace
from certus.graph.onnx.runtime import Unchecked
from certus.threats import L2, Box

ROUNDING = 1e-9
INNER = {
    "ibp": IBP(),
    "crown-ibp": crown_ibp(),
    "crown": Crown(),
    "alpha-crown": AlphaCrown(iterations=2),
    "forward": Forward(),
    "zonotope": DeepZ(),
}


class Places(nn.Module):
    """relu(W x + v i + u j + b) / (i - j + 4.5): a pole inside of the interval of i - j, at no integer.

    i = floor(x_0) and j = round(x_1), or a parameter in their place.
    """

    def __init__(self, plain=False):
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(4, 3, dtype=torch.float64)
        self.moved = nn.Linear(2, 3, dtype=torch.float64)
        self.pair = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.plain = plain

    def forward(self, x):
        own = torch.stack([x[:, 0].floor(), x[:, 1].round()], 1)
        ij = 0 * x[:, :2] + self.pair if self.plain else own
        z = torch.relu(self.linear(x) + self.moved(ij))
        return z / (ij[:, :1] - ij[:, 1:] + 4.5)


class Kinks(nn.Module):
    """Signs, steps and a position of the largest value, one after the other."""

    def forward(self, x):
        sign = torch.sign(x[:, :2])
        mask = (x[:, 2:] > 0.5).to(x.dtype)
        best = torch.argmax(x, 1, keepdim=True).to(x.dtype)
        return torch.cat([sign * mask, best * x[:, :1], torch.floor(2 * sign[:, :1] + x[:, 3:])], 1)


@lru_cache
def places():
    return trace(Places().eval(), torch.rand(2, 4, dtype=torch.float64))


@lru_cache
def plain():
    """The network with a parameter in place of (i, j), and the parameter."""
    net = Places(plain=True).eval()
    return trace(net, torch.rand(2, 4, dtype=torch.float64)), net.pair


@lru_cache
def kinks():
    return trace(Kinks().eval(), torch.rand(2, 4, dtype=torch.float64))


def with_pair(method, pair, region, spec):
    """Bounds of the network with constants (i, j)."""
    graph, parameter = plain()
    with torch.no_grad():
        parameter.copy_(torch.tensor(pair))
    return method(graph, region, spec)


def wide():
    """i from 0 to 3 and j from -1 to 7 for the first input, one pair for the second."""
    lower = torch.tensor([[0.0, -1.4, 0.2, 0.1], [1.2, 2.6, 0.0, 0.0]], dtype=torch.float64)
    upper = torch.tensor([[3.9, 7.2, 0.3, 0.6], [1.7, 3.2, 0.5, 0.5]], dtype=torch.float64)
    return Box(lower, upper)


def rows(count=5):
    return torch.randn(2, count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", INNER)
def test_the_hull_equals_a_brute_force_over_constants(name):
    """Every pair of integers as a network of its own, in which it is a constant."""
    method, region, spec = INNER[name], wide(), rows()
    assert bool(method(places(), region, spec).lower[0].isnan().all())
    found = Cases(method, batch=7)(places(), region, spec)
    for b, (i, j) in enumerate([(range(4), range(-1, 8)), (range(1, 2), range(3, 4))]):
        own = region.select(torch.tensor([b]))
        parts = [
            with_pair(method, pair, own, spec[b : b + 1])
            for pair in itertools.product(map(float, i), map(float, j))
        ]
        lower = torch.cat([part.lower for part in parts]).amin(0)
        upper = torch.cat([part.upper for part in parts]).amax(0)
        torch.testing.assert_close(found.lower[b], lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.upper[b], upper, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["box", "l2"])
@pytest.mark.parametrize("name", INNER)
def test_values_of_members_lie_inside(name, kind):
    """A product of a ball and the values, where the region is no box."""
    center = torch.tensor([[0.1, -0.2, 0.5, 0.4]], dtype=torch.float64)
    region = Box(center - 0.7, center + 0.7) if kind == "box" else L2(0.9, clip=None).region(center)
    graph = kinks()
    for method in (Cases(INNER[name]), Cases(Cases(INNER[name]), most=9)):
        found = method(graph, region)
        assert bool(torch.isfinite(found.lower).all() & torch.isfinite(found.upper).all())
        for point in points(graph, region, count=15):
            value = graph(point)
            assert bool((value >= found.lower - ROUNDING).all())
            assert bool((value <= found.upper + ROUNDING).all())


def test_cases_can_be_tighter_than_the_method():
    """s (s + 1/4) for s = sign(x): from -5/4 by intervals, from 0 by cases."""

    class Square(nn.Module):
        def forward(self, x):
            sign = torch.sign(x)
            return sign * (sign + 0.25)

    graph = trace(Square().eval(), torch.rand(1, 1, dtype=torch.float64))
    region = Box(-torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    undivided = IBP()(graph, region)
    found = Cases(IBP())(graph, region)
    assert float(undivided.lower) <= -1.25 + 1e-9
    assert abs(float(found.lower)) < 1e-9 and abs(float(found.upper) - 1.25) < 1e-9


def test_what_does_not_fit_is_left_to_the_method():
    """36 pairs: with 35 cases j is left to the method, with three both are."""
    region, spec = wide(), rows()
    half = Cases(Crown(), most=35)(places(), region, spec)
    none = Cases(Crown(), most=3)(places(), region, spec)
    undivided = Crown()(places(), region, spec)
    assert bool(half.lower[0].isnan().all()) and bool(none.lower[0].isnan().all())
    for found in (half, none):
        torch.testing.assert_close(found.lower[1], undivided.lower[1])
    assert bool(torch.isfinite(Cases(Crown(), most=36)(places(), region, spec).lower).all())


@pytest.mark.parametrize("kind", ["linf-element", "l2"])
def test_a_network_without_integers_is_bounded_as_before(kind):
    for name in ("relu", "maxpool-overlap"):
        check_members(Cases(Crown()), name, kind)
        check_batch(Cases(Crown()), name)


def test_a_batch_equals_its_inputs_one_by_one():
    region, spec = wide(), rows()
    together = Cases(Crown())(places(), region, spec)
    shared = Cases(Crown())(places(), region, spec[:1])
    assert torch.allclose(shared.lower[0], together.lower[0])
    for b in range(2):
        own = region.select(torch.tensor([b]))
        alone = Cases(Crown(), batch=1)(places(), own, spec[b : b + 1])
        torch.testing.assert_close(alone.lower[0], together.lower[b])
        torch.testing.assert_close(alone.upper[0], together.upper[b])


def test_a_bound_a_rounding_beyond_an_integer_keeps_it():
    """As the bounds of walks may be: 3 + 1e-15 stands for 3."""

    class Off(IBP):
        def prepare(self, graph, region):
            state = super().prepare(graph, region)
            moved = {i: (low + 2e-15, high - 2e-15) for i, (low, high) in state.intervals.items()}
            return State(state.graph, state.region, moved)

        def bound(self, state, rows):
            return IBP().bound(IBP().prepare(state.graph, state.region), rows)

    region, spec = wide(), rows()
    torch.testing.assert_close(
        Cases(Off())(places(), region, spec).lower, Cases(IBP())(places(), region, spec).lower
    )


def test_gradients_reach_the_parameters():
    net = Places().eval()
    graph = trace(net, torch.rand(2, 4, dtype=torch.float64))
    Cases(IBP())(graph, wide()).lower.sum().backward()
    assert float(net.linear.weight.grad.abs().sum()) > 0


def test_broken_parameters_certify_nothing():
    check_nan(Cases(Crown()))
    net = Places().eval()
    graph = trace(net, torch.rand(2, 4, dtype=torch.float64))
    with torch.no_grad():
        net.linear.weight[0, 0] = float("nan")
    assert bool(Cases(IBP())(graph, wide()).lower[:, 0].isnan().all())


@pytest.mark.parametrize("make", [lambda: Cases("ibp"), lambda: Cases(IBP(), most=0)])
def test_arguments_are_checked(make):
    with pytest.raises(ArgumentError):
        make()


@pytest.mark.parametrize("name", ["ibp", "crown-ibp", "crown", "forward", "zonotope", "tightest"])
def test_networks_with_steps_are_divided_by_themselves(name):
    """In both entries, by a name and as an object; never looser than the method by itself."""
    region, spec = wide(), rows()
    options = {"method": BOUNDS[name](), "spec": spec}
    found = certus.bounds(places(), region, **options)
    assert bool(torch.isfinite(found.lower).all() & torch.isfinite(found.upper).all())
    with torch.no_grad():
        own = Cases(BOUNDS[name]())(places(), region, spec)
    assert torch.equal(own.lower, found.lower) and torch.equal(own.upper, found.upper)
    named = certus.bounds(places(), region, **(options | {"method": name}))
    assert torch.equal(named.lower, found.lower) and torch.equal(named.upper, found.upper)
    plain = BOUNDS[name]()(places(), region, spec)
    known = plain.lower.isfinite() & plain.upper.isfinite()
    assert bool(known.any()) and bool((found.lower >= plain.lower)[known].all())
    x = region.center
    y = places()(x).argmax(1)
    margins = margin_rows(y, 3, x)
    lower = certus.bounds(places(), region, method=name, spec=margins).lower.amin(1)
    assert torch.equal(certus.certify(places(), x, y, region, name).margin, lower)


@pytest.mark.parametrize("name", ["ibp", "crown-ibp", "crown"])
@pytest.mark.parametrize("net", [places, kinks])
def test_evaluations_that_err_lie_inside_of_guarded_cases(net, name):
    """An error before a step may take it to another value, which is a case of its own."""
    region, graph, how = wide(), net(), Guarded(COARSE)
    region = Box(region.lower, region.lower + 0.4 * (region.upper - region.lower))
    found = Cases(INNER[name]).under(how)(graph, region)
    assert bool(torch.isfinite(found.lower).all())
    g, seen = torch.Generator().manual_seed(3), set()
    for _ in range(200):
        u = torch.rand(region.lower.shape, generator=g, dtype=torch.float64)
        value = noisy(graph, region.lower + u * (region.upper - region.lower), COARSE, g)
        assert bool(((value >= found.lower) & (value <= found.upper)).all())
        seen.add(tuple(value[0].round(decimals=1).tolist()))
    assert len(seen) > 3


class Votes(nn.Module):
    """s (s + 1/4) + 1/10 against 0 for s = sign(3 x - 1), which is -1, 0 or 1."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)
        nn.init.constant_(self.linear.weight, 3.0)
        nn.init.constant_(self.linear.bias, -1.0)

    def forward(self, x):
        sign = torch.sign(self.linear(x))
        return torch.cat([sign * (sign + 0.25) + 0.1, 0 * sign], 1)


def test_steps_are_certified_in_float32_although_a_rounding_may_flip_them():
    x, y = torch.tensor([[0.4], [0.9]]), torch.tensor([0, 0])
    graph = trace(Votes().eval(), x)
    for method in ("ibp", "crown"):
        found = certus.certify(graph, x, y, certus.Linf(0.2), method)
        assert found.certified.tolist() == [True, True]
        low = certus.certify(graph, x, y, certus.Linf(0.2, clip=(0.0, 1.0)), method).margin
        torch.testing.assert_close(low, torch.tensor([0.1, 1.35], dtype=torch.float64))
    with torch.no_grad():
        graph.original.linear.weight.fill_(-3.0)
        graph.original.linear.bias.fill_(1.0)
    assert not bool(graph.original(x).argmax(1).any())
    assert certus.certify(graph, x, y + 1, certus.Linf(0.2), "crown").certified.tolist() == [0, 0]


def test_cases_know_the_engine_that_runs_the_network():
    """Its functions are coarser than torch's, which rigorous bounds charge in every case as well."""
    graph = replace(places(), original=Unchecked(places()))
    lifted = _lifted(graph, [], torch.zeros(1, 0, dtype=torch.float64))
    assert engine_of(lifted, torch.float32) == engine_of(graph, torch.float32)
    assert engine_of(lifted, torch.float32) != engine_of(places(), torch.float32)
