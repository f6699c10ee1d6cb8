"""Nodes that hold one number for each input, shape (): every method treats them as any other."""

import pytest
import torch
from tests.laws.networks import Function
from torch import nn

import certus
from certus.certifiers.bound_methods import BOUNDS

RIGOROUS = [("ibp", {"rigorous": True}), ("crown", {"rigorous": True})]


def inner(m, x):
    return m.last((m.first(x).amax(1) - 0.2).relu().unsqueeze(1))


def last(m, x):
    return (m.first(x).mean(1) - 0.2).relu()


@pytest.mark.parametrize("threat", [certus.Linf(0.2), certus.L2(0.3)], ids=["linf", "l2"])
@pytest.mark.parametrize("body", [inner, last], ids=["inside", "output"])
@pytest.mark.parametrize(("method", "options"), [*((m, {}) for m in BOUNDS), *RIGOROUS])
def test_one_number_for_each_input(method, options, body, threat):
    torch.manual_seed(0)
    net = Function(body, first=nn.Linear(4, 3), last=nn.Linear(1, 2)).double().eval()
    x = torch.rand(3, 4, dtype=torch.float64)
    if options and body is inner:
        pytest.skip("amax has no rigorous rule")
    found = certus.bounds(net, x, threat, method=method, **options)
    members = threat.region(x).sample(list(map(torch.Generator().manual_seed, range(3))))
    values = net(members).detach()
    assert found.lower.shape == values.shape and bool(torch.isfinite(found.lower).all())
    assert bool((found.lower <= values + 1e-9).all() & (values <= found.upper + 1e-9).all())
