"""Networks on which rounding decides, and a count of what lies outside bounds."""

import numpy as np
import torch
from tests.bounding.exact import exact_values, fractions, shuffled_values
from torch import nn

from certus.bounding import (
    IBP,
    Crown,
    crown_ibp,
)
from certus.bounding.alpha_crown import AlphaCrown
from certus.graph import trace
from certus.threats import Box

METHODS = {
    "ibp": lambda r: IBP(rigorous=r),
    "crown-ibp": lambda r: crown_ibp(rigorous=r),
    "crown": lambda r: Crown(rigorous=r),
    "alpha": lambda r: AlphaCrown(rigorous=r, iterations=3, inner=2),
}


def cancelling():
    """A large bias that the next layer takes away."""
    first, second = nn.Linear(6, 8), nn.Linear(8, 3)
    with torch.no_grad():
        first.bias += 3e4
        second.bias.copy_(-second.weight @ first.bias)
    return nn.Sequential(first, nn.ReLU(), second), (6,)


def huge_means():
    """Batch normalisations that subtract means far above the spread."""
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.running_mean.uniform_(1e3, 1e4)
        norm.running_var.uniform_(1e-3, 1e-2)
    conv = nn.Conv2d(2, 4, 3, padding=1)
    with torch.no_grad():
        conv.bias.copy_(norm.running_mean + torch.rand(4))
    head = nn.Linear(4 * 9, 3)
    return nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head), (2, 6, 6)


def deep():
    layers = []
    for _ in range(7):
        layers += [nn.Linear(9, 9), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(9, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    return net, (9,)


def badly_scaled():
    net = nn.Sequential(
        nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(10 ** torch.empty_like(parameter).uniform_(-4, 4))
        net[2].weight.mul_(1e-6)
    return net, (6,)


class Residual(nn.Module):
    """Paths that meet and cancel, several kinds of layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(3, 3, 3, padding=1)
        self.up = nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.pool, self.head = nn.AvgPool2d(3, 2, 1), nn.Linear(2 * 9, 3)

    def forward(self, x):
        h = torch.relu(self.first(x))
        h = torch.relu(h - 0.999 * (self.inner(h) + h) + 100.0) - 100.0
        h = torch.sigmoid(self.pool(self.up(h)))
        return self.head((h / 0.3).clamp(0.1, 2.0).flatten(1))


NETWORKS = {
    "cancelling": cancelling,
    "huge-means": huge_means,
    "deep": deep,
    "badly-scaled": badly_scaled,
    "residual": lambda: (Residual(), (1, 6, 6)),
}


def build(name, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, name)))
        net, shape = NETWORKS[name]()
        x = torch.rand(2, *shape)
    # captured in float64: float32 differs from itself by too much here to be compared
    graph = trace(net.double().eval().requires_grad_(False), x.double())
    return graph.cast(dtype), x.to(dtype)


def corner(region, k):
    """A member: the centre, or a corner of a box."""
    if k == 0 or not isinstance(region, Box):
        return region.center if k == 0 else region.sample([torch.Generator().manual_seed(k)] * 2)
    up = torch.rand(region.lower.shape, generator=torch.Generator().manual_seed(k)) < 0.5
    return torch.where(up, region.upper, region.lower)


def outside(bounds, graph, region, members=2):
    """How many exact values, and values of floats in random orders, lie outside the bounds."""
    exact = floats = 0
    low, high = (fractions(side).reshape(2, -1) for side in (bounds.lower, bounds.upper))
    for k in range(members):
        x = corner(region, k)
        for b in range(2):
            real = exact_values(graph, x[b])[graph.output]
            exact += int((low[b] > real).sum() + (high[b] < real).sum())
            for seed in range(2):
                value = shuffled_values(graph, x[b], seed)[graph.output]
                own = fractions(torch.from_numpy(np.ascontiguousarray(value)))
                floats += int((low[b] > own).sum() + (high[b] < own).sum())
    return exact, floats
