"""Forward linear bounds: laws, by hand, and against the backward walk where both are the same."""

import pytest
import torch
from tests.bounding import method_laws as laws
from tests.laws.networks import AFFINE, Function, example, graph_of
from tests.laws.tables import REGIONS
from torch import nn

from certus.bounding import FAST_LIN, IBP, Crown, DeepZ, Forward
from certus.bounding.forward import Side, _line
from certus.graph import trace
from certus.threats import Box, Linf


@pytest.mark.parametrize(("name", "kind"), laws.MEMBER_CASES)
def test_members(name, kind):
    for method in (Forward(), Forward(slopes=FAST_LIN)):
        laws.check_members(method, name, kind)


@pytest.mark.parametrize("name", laws.ALL)
def test_eps_zero_and_batch(name):
    laws.check_eps_zero(Forward(), name)
    laws.check_batch(Forward(), name)


@pytest.mark.parametrize("name", AFFINE)
def test_exact_on_affine_networks(name):
    laws.check_affine(Forward(), name)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "residual", "maxpool-overlap"])
def test_float32(name):
    laws.check_float32(Forward(), name)


def test_nan_certifies_nothing():
    laws.check_nan(Forward())


def test_two_layers_by_hand():
    """y = relu(x), z = y - 2 relu(-x) on [-1, 3]: lines x and 3/4 (x + 1); 0 and (3 - x) / 4."""
    first, last = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
    net = nn.Sequential(first, nn.ReLU(), last).double().eval()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        last.weight.copy_(torch.tensor([[1.0, -2.0]]))
    box = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double())
    found = Forward()(trace(net, box.lower), box)
    assert found.lower.item() == pytest.approx(-1.0 - 2.0)  # x - (3 - x) / 2 at -1
    assert found.upper.item() == pytest.approx(3.0)  # 3/4 (x + 1) - 0 at 3


@pytest.mark.parametrize("name", ["relu", "leaky", "tanh", "sigmoid"])
def test_one_hidden_layer_equals_crown(name):
    """With one layer of lines the order of substitution does not matter."""
    activation = {
        "relu": nn.ReLU(),
        "leaky": nn.LeakyReLU(0.2),
        "tanh": nn.Tanh(),
        "sigmoid": nn.Sigmoid(),
    }
    net = nn.Sequential(nn.Linear(4, 9), activation[name], nn.Linear(9, 3)).double().eval()
    x = torch.rand(3, 4, dtype=torch.float64)
    graph = trace(net, x)
    for kind in REGIONS:
        region = REGIONS[kind](x)
        forward, backward = Forward()(graph, region), Crown()(graph, region)
        assert torch.allclose(forward.lower, backward.lower, atol=1e-9)
        assert torch.allclose(forward.upper, backward.upper, atol=1e-9)


@pytest.mark.parametrize("name", ["relu", "leaky", "tanh", "residual"])
def test_never_tighter_than_crown_on_its_intervals(name):
    """The backward walk picks lines by the sign of the whole coefficient, forward layer by layer."""
    graph, x = graph_of(name), example(name, 3)
    region = REGIONS["linf"](x)
    method = Forward()
    forward, crown = method(graph, region), Crown(intermediate=method)(graph, region)
    assert bool((forward.lower <= crown.lower + 1e-9).all())
    assert bool((forward.upper >= crown.upper - 1e-9).all())


def test_tighter_than_intervals():
    graph, x = graph_of("relu"), example("relu", 3)
    region = REGIONS["linf"](x)
    share = Forward()(graph, region).width / IBP()(graph, region).width
    assert float(share.detach().max()) < 0.9


def test_gradients_reach_the_parameters():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double().eval()
    x = torch.rand(2, 3, dtype=torch.float64)
    Forward()(trace(net, x), Linf(0.2).region(x)).width.sum().backward()
    for parameter in (net[0].weight, net[2].weight):
        assert bool(torch.isfinite(parameter.grad).all()) and float(parameter.grad.abs().max()) > 0


@pytest.mark.parametrize("method", [Forward(), DeepZ(), DeepZ(terms=1)], ids=str)
def test_falling_lines_take_the_other_side(method):
    """|x| has the slope -1 on the left; a second layer reads bounds that are no longer equal."""

    def body(m, x):
        return m.last(m.second(m.first(x).abs()).relu().sub(2.0).abs().mul(-1.0).exp())

    parts = {"first": nn.Linear(3, 6), "second": nn.Linear(6, 6), "last": nn.Linear(6, 4)}
    net = Function(body, **parts).double().eval().requires_grad_(False)
    x = torch.rand(2, 3, dtype=torch.float64)
    region = Linf(0.7, clip=None).region(x)
    found = method(trace(net, x), region)
    points = x + 0.7 * (2 * torch.rand(2000, 2, 3, dtype=torch.float64) - 1)
    values = net(points.flatten(0, 1)).view(2000, 2, 4)
    assert bool((values >= found.lower - 1e-9).all() & (values <= found.upper + 1e-9).all())
    inside = (values.amax(0) - values.amin(0)) / found.width
    assert float(inside.min()) > 0.05  # the bounds are not empty words


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_line_of_negative_slope_swaps_the_sides(sign):
    """slope * [below, above] by hand: constants 1 <= v <= 3."""
    one, three = (Side(None, torch.full((1, 2), v, dtype=torch.float64)) for v in (1.0, 3.0))
    slope = torch.full((1, 2), 2.0 * sign, dtype=torch.float64)
    low = _line(slope, torch.zeros(1, 2).double(), one, three)
    assert low.offset.tolist() == [[2.0, 2.0] if sign > 0 else [-6.0, -6.0]]
