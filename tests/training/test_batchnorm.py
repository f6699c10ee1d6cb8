"""One affine map: what is bounded is the function that gave the logits."""

import copy

import pytest
import torch
from torch import nn

from certus.bounding import IBP, crown_ibp
from certus.core import ArgumentError
from certus.graph import batchnorm, trace
from certus.graph.affine import BatchNorm
from certus.graph.batchnorm import with_batch_statistics
from certus.threats import Linf


def network():
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 3),
    ).double()
    for part in module:
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return module.eval()


@pytest.fixture
def x():
    return torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def test_equals_torch_in_training_mode(x):
    module = network()
    twin = copy.deepcopy(module).train()
    graph = trace(module, x[:1])
    for batch in (x, x**2, x[:3]):
        frozen, logits = with_batch_statistics(graph, batch, 0.1)
        expected = twin(batch)
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(frozen(batch), expected)
    moved = {name: value for name, value in twin.named_buffers() if "running" in name}
    assert moved
    for name, theirs in moved.items():
        torch.testing.assert_close(module.get_buffer(name), theirs, msg=name)


def test_gradients_equal_torch(x):
    module = network()
    twin = copy.deepcopy(module).train()
    with_batch_statistics(trace(module, x[:1]), x)[1].square().sum().backward()
    twin(x).square().sum().backward()
    for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("method", [IBP(), crown_ibp()])
def test_bounds_at_eps_zero_are_the_clean_logits(x, method):
    frozen, logits = with_batch_statistics(trace(network(), x[:1]), x)
    bounds = method(frozen, Linf(0.0).region(x))
    torch.testing.assert_close(bounds.lower, logits)
    torch.testing.assert_close(bounds.upper, logits)


def test_bounds_with_running_statistics_are_violated(x):
    """Mistake: the clean pass normalises by the batch, the bounds by the running statistics."""
    module = network()
    graph = trace(module, x[:1])
    frozen, logits = with_batch_statistics(graph, x, None)
    region = Linf(0.01).region(x)
    right, wrong = IBP()(frozen, region), IBP()(graph, region)
    assert ((right.lower <= logits) & (logits <= right.upper)).all()
    assert ((logits < wrong.lower) | (logits > wrong.upper)).any()


def test_bounds_hold_for_the_frozen_map(x):
    frozen, _ = with_batch_statistics(trace(network(), x[:1]), x)
    region = Linf(0.1).region(x)
    bounds = IBP()(frozen, region)
    for k in range(50):
        z = frozen(region.sample([torch.Generator().manual_seed(100 * k + b) for b in range(6)]))
        assert (bounds.lower <= z + 1e-9).all() and (z <= bounds.upper + 1e-9).all()


def test_without_momentum_the_module_is_unchanged(x):
    module = network()
    before = copy.deepcopy(module.state_dict())
    with_batch_statistics(trace(module, x[:1]), x, None)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_without_batch_norm_the_graph_is_returned(x):
    graph = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double().eval(), x[:1])
    same, logits = with_batch_statistics(graph, x)
    assert same is graph
    assert torch.equal(logits, graph(x))


def test_statistics_are_of_the_batch_alone(x):
    frozen, _ = with_batch_statistics(trace(network(), x[:1]), x)
    op = next(node.op for node in frozen.nodes if isinstance(node.op, BatchNorm))
    assert op.mean.requires_grad and op.variance.requires_grad


@pytest.mark.parametrize(
    ("size", "momentum", "word"), [(1, 0.1, "larger batch"), (3, 1.5, "momentum")]
)
def test_refusals(x, size, momentum, word):
    with pytest.raises(ArgumentError, match=word):
        with_batch_statistics(trace(network(), x[:1]), x[:size], momentum)


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 2, 2)])
def test_the_gradient_of_the_statistics_is_the_slope(shape):
    """Mean and variance each, first and second derivative; their values are torch's."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    dims = [d for d in range(len(shape)) if d != 1]

    def moments(x):
        return batchnorm._Moments.apply(x, dims)

    variance, mean = torch.var_mean(x, dims, correction=0)
    torch.testing.assert_close(moments(x), (mean, variance))
    assert torch.autograd.gradcheck(moments, x.requires_grad_())
    assert torch.autograd.gradgradcheck(moments, x)
