"""Whatever users write in PyTorch: the graph equals the module, and bounds contain its values."""

import copy
from functools import cache

import pytest
import torch
from tests.graph.torch_modules import TABLE, make
from tests.laws.networks import Function

from certus.bounding import IBP, Crown
from certus.graph import trace
from certus.threats import Linf


def inputs(shape, batch):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(batch)).double()


@cache
def captured(name):
    module, shape = make(name)
    return module, trace(module, inputs(shape, 2))


@pytest.mark.parametrize("name", TABLE)
def test_the_graph_equals_the_module(name):
    module, graph = captured(name)
    for batch in (1, 3, 5):
        x = inputs(graph.input_shape, batch)
        expected = module(x.clone())
        assert torch.allclose(graph(x), expected.double(), atol=1e-9)
    assert graph.output_shape == tuple(expected.shape[1:])
    values = graph.values(x)
    assert [tuple(v.shape) for v in values[1:]] == [(5, *n.shape) for n in graph.nodes[1:]]


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("method", [IBP(), Crown()], ids=["ibp", "crown"])
def test_bounds_contain_samples(name, method):
    module, graph = captured(name)
    x = inputs(graph.input_shape, 2)
    region = Linf(0.05).region(x)
    count = torch.Size(graph.output_shape).numel()
    with torch.no_grad():
        bounds = method(graph, region)
        lower, upper = bounds.lower.reshape(2, count), bounds.upper.reshape(2, count)
        for i in range(2):
            noise = torch.rand(500, *graph.input_shape, generator=torch.Generator().manual_seed(i))
            box = region.lower[i] + noise.double() * (region.upper[i] - region.lower[i])
            values = module(box).reshape(500, count).double()
            assert bool((values >= lower[i] - 1e-9).all()), name
            assert bool((values <= upper[i] + 1e-9).all()), name
    assert bool(torch.isfinite(lower).all() and torch.isfinite(upper).all())


@pytest.mark.parametrize("name", TABLE)
def test_parameters_are_live(name):
    module, graph = captured(name)
    parameters = list(module.parameters())
    if not parameters:
        assert not any(t.requires_grad for _, t in graph.tensors())
        return
    x = inputs(graph.input_shape, 3)
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
        assert torch.allclose(graph(x), module(x.clone()), atol=1e-9)
    graph(x).square().sum().backward()
    found = [p.grad.clone() for p in parameters if p.grad is not None]
    module.zero_grad()
    module(x.clone()).square().sum().backward()
    expected = [p.grad for p in parameters if p.grad is not None]
    assert len(found) == len(expected) > 0
    assert all(torch.allclose(f, e, atol=1e-8) for f, e in zip(found, expected, strict=True))
    module.zero_grad()
    module.load_state_dict(before)  # the capture is shared with the other laws


def test_comparisons_agree_at_ties():
    tests = (torch.gt, torch.ge, torch.lt, torch.le, torch.eq, torch.ne)
    module = Function(
        lambda m, x: torch.stack(
            [f(x, 0.5) + 2.0 * f(x, x.flip(1)) + 4 * f(0.5 * x, m.c) for f in tests], 1
        ),
        c=torch.tensor([0.25, 0.5, 0.25]),
    ).eval()
    graph = trace(module, torch.rand(2, 3))
    x = torch.tensor([[0.5, 0.5, 0.5], [0.25, 1.0, 0.25], [0.5, 0.0, 1.0]])
    assert torch.equal(graph(x), module(x).to(x.dtype))
