"""Rigorous walks in windows and in whole maps, refusals, and what fails closed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.bounding.adversarial import METHODS
from tests.bounding.exact import exact_values, fractions, shuffled_values
from torch import nn

from certus.bounding import (
    IBP,
    Crown,
    SdpCrown,
    windows,
)
from certus.bounding.arithmetic import RIGOROUS
from certus.bounding.maps import Maps
from certus.core import ArgumentError, UnsupportedError
from certus.graph import trace
from certus.threats import L2, Box, Linf


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
    walk = RIGOROUS.walk(state, both=True)
    small = walk.run(position, rows)
    dense = torch.zeros(3, node.numel).scatter_(1, neurons.unsqueeze(1), 1.0)
    other = RIGOROUS.walk(state, both=True)
    large = other.run(position, Maps(dense.view(3, 1, *node.shape)))
    ratio = walk.meter.slack.flatten() / other.meter.slack.flatten()
    assert bool(((ratio > 0.8) & (ratio < 1.25)).all())
    assert torch.allclose(small.flatten(), large.flatten(), atol=1e-4)


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
