"""DeepZ: laws, transformers by hand, shared and merged error terms."""

import pytest
import torch
from tests.bounding import method_laws as laws
from tests.laws.networks import AFFINE, Function, example, graph_of
from tests.laws.tables import REGIONS
from torch import nn

from certus.bounding import IBP, Crown, DeepZ
from certus.bounding.fixed_slopes import FAST_LIN
from certus.bounding.zonotope import Zonotope, parallel
from certus.core import ArgumentError
from certus.graph import trace
from certus.graph.activation import Clamp, LeakyRelu, Relu, Sigmoid, Tanh
from certus.graph.affine import Linear
from certus.threats import Box, Linf


@pytest.mark.parametrize(("name", "kind"), laws.MEMBER_CASES)
def test_members(name, kind):
    for terms in (1024, 4):
        laws.check_members(DeepZ(terms=terms), name, kind)


@pytest.mark.parametrize("name", laws.ALL)
def test_eps_zero_and_batch(name):
    laws.check_eps_zero(DeepZ(), name)
    laws.check_batch(DeepZ(), name)


@pytest.mark.parametrize("name", AFFINE)
def test_exact_on_affine_networks(name):
    laws.check_affine(DeepZ(), name)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "residual", "maxpool-overlap"])
def test_float32(name):
    laws.check_float32(DeepZ(), name)


def test_nan_certifies_nothing():
    laws.check_nan(DeepZ())


def test_relu_by_hand():
    """On [-1, 3] relu is 3/4 x + 3/8 -+ 3/8, so relu(x) - relu(-x) = x keeps its two errors."""
    first, last = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
    net = nn.Sequential(first, nn.ReLU(), last).double().eval()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        last.weight.copy_(torch.tensor([[1.0, -1.0]]))
    box = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double())
    found = DeepZ()(trace(net, box.lower), box)
    # 3/4 x + 3/8 -+ 3/8 - (-1/4 x + 3/8 -+ 3/8) = x -+ 3/4
    assert found.lower.item() == pytest.approx(-1.75)
    assert found.upper.item() == pytest.approx(3.75)


def test_error_terms_cancel_where_they_are_shared_and_only_there():
    """h - h is 0 through two paths; two ReLUs of different neurons do not share a term."""

    def body(m, x):
        h = m.first(x).relu()
        return torch.cat([h - h.flatten(1), m.first(x).relu() - m.first(-x).relu()], 1)

    net = Function(body, first=nn.Linear(2, 3, bias=False)).double().eval()
    x = torch.zeros(1, 2, dtype=torch.float64)
    graph, region = trace(net, x), Linf(1.0, clip=None).region(x)
    found = DeepZ()(graph, region)
    assert torch.allclose(found.width[:, :3], torch.zeros(1, 3).double(), atol=1e-12)
    values = torch.stack([net(p) for p in 2 * torch.rand(500, 1, 2).double() - 1])
    assert bool((values <= found.upper + 1e-9).all() & (values >= found.lower - 1e-9).all())
    # both ReLUs have slope 1/2 and errors of their own, which add up
    reach = net.first.weight.abs().sum(1)
    assert torch.allclose(found.upper[0, 3:], reach + reach / 2)


@pytest.mark.parametrize(
    "op", [Relu(), LeakyRelu(0.1), Sigmoid(), Tanh(), Clamp(-0.5, 1.0)], ids=str
)
def test_parallel_lines_hold_on_a_grid(op):
    lower = 3 * torch.randn(200, 1, dtype=torch.float64)
    upper = lower + torch.randn_like(lower).abs().pow(3)
    upper[:10] = lower[:10]
    lines = FAST_LIN[type(op)](op, (lower, upper))
    slope, middle, half = parallel(op, lines, (lower, upper))
    x = lower + (upper - lower) * torch.linspace(0, 1, 400, dtype=torch.float64)
    gap = (op.forward(x) - slope * x - middle).abs()
    assert bool((gap <= half + 1e-12).all())
    constant = (op.forward(upper) - op.forward(lower)) / 2  # the interval is the slope 0
    assert bool((half <= constant + 1e-12).all())
    assert float((constant - half).max()) > 0.1


def test_an_s_shaped_line_is_deepz_or_better():
    """min(f'(l), f'(u)) has half width (f(u) - f(l) - slope (u - l)) / 2."""
    op = Sigmoid()
    lower = 2 * torch.randn(100, 1, dtype=torch.float64)
    upper = lower + 2 * torch.rand_like(lower)
    half = parallel(op, FAST_LIN[Sigmoid](op, (lower, upper)), (lower, upper))[2]
    slope = torch.minimum(op.derivative(lower), op.derivative(upper))
    deepz = (op.forward(upper) - op.forward(lower) - slope * (upper - lower)) / 2
    assert bool((half <= deepz + 1e-12).all())


def test_more_terms_lose_less():
    graph, x = graph_of("relu"), example("relu", 3)
    region = REGIONS["l2"](x)
    widths = []
    for terms in (0, 4, 1024):
        method = DeepZ(terms=terms)
        state = method.prepare(graph.resolved(), region)
        assert sum(map(len, state.form.errors.values())) <= terms
        assert (state.form.radius is None) == (terms == 1024)
        widths.append(float(method(graph, region).width.sum().detach()))
    assert widths[0] > 1.01 * widths[2] and widths[1] > 1.001 * widths[2]
    with pytest.raises(ArgumentError):
        DeepZ(terms=-1)


def test_tighter_than_intervals_and_good_for_crown():
    graph, x = graph_of("tanh"), example("tanh", 3)
    region = REGIONS["linf"](x)
    share = DeepZ()(graph, region).width / IBP()(graph, region).width
    assert float(share.detach().max()) < 0.7
    mixed = Crown(intermediate=DeepZ())(graph, region)
    ibp = Crown(intermediate=IBP())(graph, region)
    assert float((mixed.width - ibp.width).detach().max()) < 0


def test_gradients_reach_the_parameters():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double().eval()
    x = torch.rand(2, 3, dtype=torch.float64)
    DeepZ()(trace(net, x), Linf(0.2).region(x)).width.sum().backward()
    for parameter in (net[0].weight, net[2].weight):
        assert bool(torch.isfinite(parameter.grad).all()) and float(parameter.grad.abs().max()) > 0


def test_merged_errors_pass_through_absolute_weights():
    """A radius alone: slope -2, then a matrix with cancelling signs, by hand."""
    center = torch.zeros(1, 2, dtype=torch.float64)
    region = Linf(0.0, clip=None).region(center)
    form = Zonotope(center, None, {}, torch.tensor([[1.0, 3.0]]).double())
    halved = form.scaled(torch.full_like(center, -2.0), torch.ones_like(center))
    low, high = halved.interval(region, (2,))
    assert low.tolist() == [[-1.0, -5.0]] and high.tolist() == [[3.0, 7.0]]
    op = Linear(torch.tensor([[1.0, -1.0]]).double(), None)
    moved = DeepZ().affine(op, [form], [(2,)])
    assert moved.interval(region, (1,))[1].item() == 4.0
    rows = torch.tensor([[[-0.5]]]).double()
    assert moved.bounds(region, rows).upper.item() == 2.0
