"""Bounds around every evaluation that an engine may make."""

import pytest
import torch
from tests.laws.networks import NETWORKS, Function, example, make
from tests.laws.noisy import COARSE, noisy
from torch import nn

import certus
from certus.bounding import IBP, AlphaCrown, Crown, crown_ibp
from certus.bounding.guarded import Guarded, doubled

METHODS = {
    "ibp": IBP(),
    "crown": Crown(),
    "crown-ibp": crown_ibp(),
    "alpha-crown": AlphaCrown(iterations=3, inner=1),
}


def gated():
    """Softmax, products, a norm and GELU: what transformers are made of."""
    parts = {
        "norm": nn.LayerNorm(4),
        "key": nn.Linear(4, 4),
        "value": nn.Linear(4, 4),
        "last": nn.Linear(12, 3),
    }

    def body(m, x):
        h = m.norm(x.view(-1, 3, 4))
        scores = (m.key(h) @ h.mT).softmax(-1)
        return m.last(nn.functional.gelu(scores @ m.value(h)).flatten(1))

    return Function(body, **parts).eval()


def network(name):
    """A captured float32 network and two inputs."""
    if name == "attention":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module, x = gated(), torch.rand(2, 12)
    else:
        module, x = make(name, torch.float32), example(name, 2, torch.float32)
    return certus.trace(module, x), x


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["attention", *sorted(NETWORKS)])
def test_evaluations_that_err_by_their_local_error_lie_inside(name, method):
    graph, x = network(name)
    how = Guarded(COARSE)
    region = certus.Linf(0.05, clip=None).region(x)
    large = doubled[type(region)](region)
    found = METHODS[method].under(how)(graph.cast(torch.float64), large)
    plain = METHODS[method](graph.cast(torch.float64), large)
    finite = plain.lower.isfinite() & plain.upper.isfinite()
    assert bool((found.lower <= plain.lower + 1e-9)[finite].all())
    g, exact = torch.Generator().manual_seed(3), graph.cast(torch.float64)
    for _ in range(15):
        draw = large.lower + torch.rand(large.lower.shape, generator=g).double() * (
            large.upper - large.lower
        )
        corner = torch.where(torch.rand(draw.shape, generator=g) < 0.5, large.lower, large.upper)
        for point in (draw, corner):
            value = noisy(exact, point, how.engine, g)
            assert bool(((value >= found.lower) & (value <= found.upper)).all())


@pytest.mark.parametrize(
    "threat", [certus.Linf(1e-4, clip=None), certus.L2(1e-4), certus.L1(1e-4, clip=None)], ids=repr
)
@pytest.mark.parametrize("method", ["crown", "lp"])
def test_deep_networks_are_certified(threat, method):
    """Absolute weights multiply to far more than any margin here; errors weighed by rows do not."""
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Linear(64, 64), nn.ReLU())]
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), *layers, nn.Linear(64, 3)).eval()
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, 1.4)
    x = torch.rand(4, 16)
    with torch.no_grad():
        y = net(x).argmax(1)
    graph = certus.trace(net, x)
    state = Crown().prepare(graph, threat.region(x))
    slack = certus.bounding.rounding_guard(graph, state.intervals, torch.float32)
    found = certus.certify(graph, x, y, threat, method)
    assert bool(found.certified.all()) and bool((slack.amin(1) > found.margin).any())
