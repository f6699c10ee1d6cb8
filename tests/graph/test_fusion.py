"""Fusion changes neither values nor bounds nor the gradients of parameters, and saves nodes."""

from functools import cache

import pytest
import torch
from torch import nn

import certus
from certus.bounding import arithmetic
from certus.bounding.backward import Walk
from certus.graph.fusion import Constant, Patches, fused, needed


class Tokens(nn.Module):
    """Patches of an image, a class token and positions."""

    def __init__(self, width, patch=2):
        super().__init__()
        self.cut = nn.Conv2d(2, width, patch, patch)
        self.token = nn.Parameter(torch.randn(width))
        self.places = nn.Parameter(torch.randn(1 + (6 // patch) ** 2, width))

    def forward(self, x):
        tokens = self.cut(x).flatten(2).transpose(1, 2)
        first = torch.zeros(x.shape[0], 1, tokens.shape[2], dtype=x.dtype) + self.token
        return torch.cat([first, tokens], 1) + self.places


class FeatureNorm(nn.Module):
    """Batch normalisation of the last dimension."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """Spelled out, with a residual connection."""

    def __init__(self, width, heads, norm):
        super().__init__()
        self.norm, self.heads = norm(width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        weights = torch.softmax(q @ k.mT * 0.5, -1)
        return x + self.out((weights @ v).transpose(1, 2).flatten(2))


class Head(nn.Module):
    """The mean of the tokens, normalised."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(width), nn.Linear(width, 3)

    def forward(self, x):
        return self.linear(self.norm(x.mean(1)))


class Cut(nn.Module):
    """A convolution that leaves a border of the map unread."""

    def __init__(self):
        super().__init__()
        self.cut, self.linear = nn.Conv2d(2, 3, (4, 5), (4, 5)), nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(self.cut(x).flatten(2).transpose(1, 2)).relu().flatten(1)


def vit(width, heads, norm, patch=2):
    wide = nn.Sequential(norm(width), nn.Linear(width, 7), nn.ReLU(), nn.Linear(7, width))
    return nn.Sequential(Tokens(width, patch), Attention(width, heads, norm), wide, Head(width))


def encoder(first):
    layer = nn.TransformerEncoderLayer(4, 2, 5, batch_first=True, norm_first=first)
    return nn.Sequential(
        Tokens(4, 3), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), Head(4)
    )


NETS = {
    "features-1": lambda: vit(3, 1, FeatureNorm),
    "features-3": lambda: vit(6, 3, FeatureNorm, 3),
    "layernorm-2": lambda: vit(4, 2, nn.LayerNorm, 3),
    "encoder-post": lambda: encoder(False),
    "encoder-pre": lambda: encoder(True),
    "border": Cut,
}


@cache
def graph_of(name):
    torch.manual_seed(len(name))
    net = NETS[name]().double()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    for value in net.parameters():
        nn.init.normal_(value, std=0.5)
    return certus.trace(net.eval(), torch.zeros(1, 2, 6, 6).double())


def images(batch):
    return torch.rand(batch, 2, 6, 6, generator=torch.Generator().manual_seed(batch)).double()


@pytest.mark.parametrize("name", NETS)
def test_values_are_the_same_and_nodes_fewer(name):
    graph, x = graph_of(name), images(4)
    small = fused(graph.resolved())
    assert torch.allclose(small(x), graph(x), rtol=1e-11, atol=1e-11)
    assert len(needed(small)) < len(needed(graph))
    kinds = {type(small.nodes[i].op) for i in needed(small)}
    assert Patches in kinds and (Constant in kinds) == (name != "border")


@pytest.mark.parametrize(("batch", "norm"), [(1, 2.0), (3, float("inf"))])
@pytest.mark.parametrize("name", NETS)
def test_bounds_are_the_same(name, batch, norm, monkeypatch):
    graph, x = graph_of(name), images(batch)
    threat = certus.Linf(0.01) if norm > 2 else certus.L2(0.02)
    region = threat.region(x)
    quick = certus.Crown()(graph, region)
    with monkeypatch.context() as patch:  # fused, but the region is not cut into patches
        patch.setattr(Walk, "_on_patches", lambda *_: False)
        laid = certus.Crown()(graph, region)
    monkeypatch.setattr(arithmetic, "fused", lambda g: g)
    plain = certus.Crown()(graph, region)
    for found in (quick, laid):
        assert torch.allclose(found.lower, plain.lower, rtol=1e-9, atol=1e-9)
        assert torch.allclose(found.upper, plain.upper, rtol=1e-9, atol=1e-9)
    y = graph(threat.region(x).sample([torch.Generator().manual_seed(i) for i in range(batch)]))
    assert bool((quick.lower <= y + 1e-12).all() & (y <= quick.upper + 1e-12).all())


@pytest.mark.parametrize("name", ["features-3", "layernorm-2", "encoder-post"])
def test_parameters_stay_live(name):
    graph, x = graph_of(name), images(2)
    tensors = list(graph.original.parameters())
    before = torch.autograd.grad(graph(x).square().sum(), tensors, allow_unused=True)
    after = torch.autograd.grad(
        fused(graph.resolved())(x).square().sum(), tensors, allow_unused=True
    )
    assert sum(g is not None for g in before) > 5
    for a, b in zip(before, after, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_learned_factor_of_zero_is_no_constant():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.linear = nn.Parameter(torch.zeros(())), nn.Linear(4, 3)

        def forward(self, x):
            return x[:, :3] + self.gate * self.linear(x)

    net = Gated().eval()
    graph, x = certus.trace(net, torch.zeros(1, 4)), torch.ones(2, 4)
    bounds = certus.Crown()(graph, certus.Linf(0.1).region(x))
    (gradient,) = torch.autograd.grad(bounds.lower.sum(), net.gate)
    assert gradient != 0
    assert not any(isinstance(node.op, Constant) for node in fused(graph).nodes)


class Zero(nn.Module):
    """A linear layer that reads the input itself in another order, and a summand that is zero times it."""

    def __init__(self, zero):
        super().__init__()
        self.zero, self.linear = zero, nn.Linear(3, 2)

    def forward(self, x):
        return (self.linear(x.permute(0, 2, 1)) + self.zero(x[:, :2].permute(0, 2, 1))).flatten(1)


@pytest.mark.parametrize(
    "zero", [lambda x: x * 0.0, lambda x: x * torch.tensor(False), lambda x: x * torch.zeros(1, 1)]
)
def test_zero_times_the_input_and_the_input_in_another_order(zero):
    net, x = Zero(zero).eval(), torch.rand(2, 3, 4)
    found = certus.bounds(net, x, certus.Linf(0.0, clip=None))
    assert torch.allclose(found.lower, net(x), atol=1e-6)
    assert torch.allclose(found.upper, net(x), atol=1e-6)


@pytest.mark.parametrize("method", ["ibp", "crown", "zonotope"])
def test_zero_times_nothing_is_not_zero(method):
    """log leaves its domain inside the region: the network is NaN there, so nothing is known."""
    net, x = Zero(lambda x: torch.log(x) * 0.0).eval(), torch.full((1, 3, 4), 0.1)
    found = certus.bounds(net, x, certus.Linf(0.2, clip=None), method=method)
    assert bool(torch.isinf(found.lower).all() & torch.isinf(found.upper).all())
