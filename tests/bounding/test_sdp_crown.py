"""SDP-CROWN: its relaxation against brute force and the published formula, and laws of the method."""

import pytest
import torch
from tests.bounding import method_laws as laws
from tests.laws.networks import AFFINE, example, graph_of
from tests.laws.tables import REGIONS, points
from torch import nn

from certus.bounding import Crown, SdpCrown
from certus.bounding.sdp_crown import BallHinge, _norms, _radii
from certus.graph import trace
from certus.graph.activation import Relu
from certus.graph.affine import Conv, Linear
from certus.graph.op import Affine
from certus.relax import relaxations
from certus.threats import L2


@pytest.mark.parametrize("kind", ["l2", "l2-free", "l2-element", "linf"])
@pytest.mark.parametrize("name", [*laws.FEW, "conv1d", "grouped", "avgpool-counted"])
def test_members(name, kind):
    laws.check_members(SdpCrown(), name, kind)


@pytest.mark.parametrize("name", laws.FEW)
def test_eps_zero_and_batch(name):
    laws.check_eps_zero(SdpCrown(), name)
    laws.check_batch(SdpCrown(), name)


@pytest.mark.parametrize("name", AFFINE)
def test_exact_on_affine_networks(name):
    laws.check_affine(SdpCrown(), name)


@pytest.mark.parametrize("name", ["relu", "residual"])
def test_float32(name):
    laws.check_float32(SdpCrown(), name)


def test_nan_certifies_nothing():
    laws.check_nan(SdpCrown())


@pytest.mark.parametrize("kind", ["l2", "l2-free", "linf"])
@pytest.mark.parametrize("name", laws.FEW)
def test_never_looser_than_crown(name, kind):
    graph, x = graph_of(name), example(name, 3)
    region = REGIONS[kind](x)
    found, plain = SdpCrown()(graph, region), Crown()(graph, region)
    assert bool((found.lower >= plain.lower - 1e-12).all())
    assert bool((found.upper <= plain.upper + 1e-12).all())


def test_much_tighter_on_a_wide_layer_in_an_l2_ball():
    net = nn.Sequential(
        nn.Linear(20, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 2)
    )
    net, x = net.double().eval().requires_grad_(False), torch.rand(1, 20, dtype=torch.float64)
    graph, region = trace(net, x), L2(0.5, clip=None).region(x)
    assert float(SdpCrown()(graph, region).width.max()) < 0.85 * float(
        Crown()(graph, region).width.min()
    )


def hinge(leak=0.0, size=6, wide=False):
    """A relaxation on a random ball whose interval is the ball's own box, or much wider."""
    center = torch.randn(2, size, dtype=torch.float64)
    radius = 0.5 + torch.rand(2, dtype=torch.float64)
    reach = radius.unsqueeze(1) * (100 if wide else 1)
    interval = center - reach, center + reach
    lines = relaxations[Relu](Relu(), interval)
    below = lines.lower_slope.clamp(min=leak)
    return BallHinge(leak, below, lines.upper_slope.clamp(min=leak), *interval, center, radius)


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_the_relaxation_holds_on_the_ball(leak):
    found = hinge(leak)
    rows = torch.randn(20, 2, 6, dtype=torch.float64)
    (slope,), offset = found.pull(rows)
    direction = torch.randn(5000, 2, 6, dtype=torch.float64)
    direction = direction / direction.norm(dim=2, keepdim=True)
    size = torch.rand(5000, 1, 1, dtype=torch.float64).clamp(min=0.3).pow(0.2)
    x = found.center + found.radius.view(2, 1) * size * direction
    value = torch.nn.functional.leaky_relu(x, leak)
    gap = torch.einsum("rbn,pbn->prb", rows, value) - torch.einsum("rbn,pbn->prb", slope, x)
    assert bool((gap >= offset - 1e-9).all())
    # descend from the best sample: the offset is close to what the ball allows
    assert float((gap.amin(0) - offset).max()) < 1.5


def test_the_multiplier_is_the_best_of_a_fine_grid_of_the_published_formula():
    """h = -1/2 (lam (rho^2 - |x0|^2) + |min(c - g - lam x0, g + lam x0, 0)|^2 / lam), no intervals."""
    found = hinge(wide=True)
    rows = torch.randn(20, 2, 6, dtype=torch.float64)
    (g,), offset = found.pull(rows)
    best = torch.full_like(offset, -float("inf"))
    for lam in torch.logspace(-4, 3, 3000, dtype=torch.float64):
        least = torch.minimum(rows - g - lam * found.center, g + lam * found.center).clamp(max=0)
        rest = found.radius.square() - found.center.square().sum(1)
        best = torch.maximum(best, -0.5 * (lam * rest + least.square().sum(2) / lam))
    assert torch.allclose(offset, best, atol=1e-4, rtol=1e-4)


def test_offsets_are_at_least_crowns():
    center = torch.randn(2, 6, dtype=torch.float64)
    interval = center - 0.7, center + 0.7
    lines = relaxations[Relu](Relu(), interval)
    rows = torch.randn(9, 2, 6, dtype=torch.float64)
    ball = BallHinge(
        0.0, lines.lower_slope, lines.upper_slope, *interval, center, torch.ones(2).double() * 0.8
    )
    (moved,), offset = ball.pull(rows)
    (expected,), plain = lines.pull(rows)
    assert torch.allclose(moved, expected)
    assert bool((offset >= plain - 1e-12).all()) and float((offset - plain).max()) > 0.1


@pytest.mark.parametrize(
    "name", ["residual", "grouped", "avgpool-uncounted", "broadcast", "rearranged"]
)
def test_norms_are_upper_bounds_of_the_spectral_norm(name):
    graph, x = graph_of(name), example(name, 1)
    for node in graph.resolved().nodes[1:]:
        if not isinstance(node.op, Affine):
            continue
        shapes = graph.shapes(node)
        for i, bound in enumerate(_norms(node.op, shapes, x)):
            parts = [x.new_zeros(torch.Size(shapes[i]).numel(), *s) for s in shapes]
            origin = node.op.forward(*parts)
            parts[i] = torch.eye(len(parts[i])).double().view(parts[i].shape)
            exact = torch.linalg.matrix_norm((node.op.forward(*parts) - origin).flatten(1), 2)
            assert bound >= exact
            if isinstance(node.op, Linear | Conv):
                assert bound.item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["relu", "residual", "maxpool-overlap", "sigmoid"])
def test_radii_hold_members(name):
    graph, x = graph_of(name), example(name, 3)
    region = REGIONS["l2"](x)
    state = Crown().prepare(graph.resolved(), region)
    graph = state.graph
    with torch.no_grad():
        values = graph.values(region.center)
        radii = _radii(graph, region, state, values)
        for point in points(graph, region):
            for a, b, radius in zip(values, graph.values(point), radii, strict=True):
                assert bool(((a - b).flatten(1).norm(dim=1) <= radius + 1e-12).all())
