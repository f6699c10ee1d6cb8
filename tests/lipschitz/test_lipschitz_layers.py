"""Layers are 1-Lipschitz at all times, learn, and pass through `trace` and `baked`."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from certus.core import ArgumentError
from certus.graph import trace
from certus.lipschitz import OrthogonalLinear, SpectralConv2d, SpectralLinear, baked, lipschitz

LAYERS = [
    (lambda: SpectralLinear(12, 5), (12,)),
    (lambda: OrthogonalLinear(5, 12), (5,)),
    (lambda: OrthogonalLinear(12, 5), (12,)),
    (lambda: SpectralConv2d(2, 4, 3, padding=1), (2, 7, 7)),
    (lambda: SpectralConv2d(2, 4, 3, stride=2, padding=1, bias=False), (2, 7, 7)),
    (lambda: SpectralConv2d(4, 4, 3, dilation=2, groups=2), (4, 7, 7)),
]


def norm_of(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Exact operator norm at this input size, in float64."""
    layer = baked(layer).double()
    jacobian = torch.func.jacrev(lambda v: layer(v[None])[0].flatten())(torch.zeros(shape).double())
    return torch.linalg.matrix_norm(jacobian.flatten(1), 2).item()


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_norm_is_at_most_one_before_and_after_training(make, shape: tuple[int, ...]) -> None:
    """Steps with a large rate change the weights and not the property."""
    torch.manual_seed(0)
    layer = make()
    before = baked(layer).weight.clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(4, *shape)).square().sum().backward()
        optimizer.step()
    assert not torch.allclose(before, layer.weight, atol=1e-3)
    limit = 1 + 1e-6 if isinstance(layer, OrthogonalLinear) else 1.0
    assert 0.6 <= norm_of(layer, shape) <= limit


def test_trace_keeps_them_live_and_bake_plain() -> None:
    """The graph follows the parametrized weights; the baked copy gives the same constants."""
    torch.manual_seed(0)
    net = nn.Sequential(
        SpectralConv2d(1, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        OrthogonalLinear(12, 6),
        nn.ReLU(),
        SpectralLinear(6, 4),
    ).eval()
    graph = trace(net, torch.rand(1, 1, 4, 4))
    plain = baked(net)
    assert not any("parametrizations" in name for name, _ in plain.named_parameters())
    x = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(plain(x), net(x))  # and the original still works
    first = lipschitz(graph)
    assert first[-1] <= 1 + 1e-6
    assert first == pytest.approx(lipschitz(trace(plain, x)), rel=1e-5)
    with torch.no_grad():
        net[5].parametrizations.weight.original.copy_(torch.randn(4, 6))
    torch.testing.assert_close(graph(x), net(x))
    assert lipschitz(graph)[-1] <= 1 + 1e-6


def test_zero_weight_stays_zero() -> None:
    """No division by zero, forwards or backwards."""
    layer = SpectralLinear(3, 2)
    with torch.no_grad():
        layer.parametrizations.weight.original.zero_()
    layer(torch.ones(1, 3)).sum().backward()
    assert bool((layer.weight == 0).all())
    assert bool(torch.isfinite(layer.parametrizations.weight.original.grad).all())


def test_other_padding_modes_are_refused() -> None:
    """Reflection copies values, which the bound does not cover."""
    with pytest.raises(ArgumentError, match="reflect"):
        SpectralConv2d(1, 1, 3, padding=1, padding_mode="reflect")


@pytest.mark.parametrize("size", range(2, 12))
def test_rounding_brings_no_norm_above_one(size: int) -> None:
    """All entries equal: the norm is size times one of them, which is 1 / size rounded, often up."""
    layer = SpectralLinear(size, size, bias=False)
    layer.parametrizations.weight.original.data.fill_(1.0)
    entries = {Fraction(entry) for entry in baked(layer).weight.flatten().tolist()}
    assert len(entries) == 1 and 0.999 < size * entries.pop() <= 1
