"""Small trained networks on the digits, and the threats that certifiers are held against."""

from functools import cache

import torch
from torch import Tensor, nn

from certus.core.random import generator
from certus.graph import Graph, trace
from certus.threats import L1, L2, Box, Linf, Threat
from certus.zoo import Dataset, build_net, load_data

COUNT = 8


@cache
def digits() -> Dataset:
    return load_data("digits")


@cache
def net(name: str = "mlp-small", epochs: int = 30) -> nn.Module:
    """A net trained for a moment with plain gradient steps; float32, evaluation mode."""
    data = digits()
    module = build_net(name, data.shape, data.classes, seed=3)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for epoch in range(epochs):
        order = torch.randperm(len(data.x_train), generator=generator(0, epoch))
        for part in order.split(256):
            optimiser.zero_grad()
            logits = module(data.x_train[part])
            nn.functional.cross_entropy(logits, data.y_train[part]).backward()
            optimiser.step()
    return module.eval().requires_grad_(False)


@cache
def graph(name: str = "mlp-small") -> Graph:
    return trace(net(name), digits().x_test[:1])


def inputs(count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Test inputs with labels; the last label is made wrong."""
    x, y = digits().x_test[:count], digits().y_test[:count].clone()
    y[-1] = (y[-1] + 1) % 10
    return x, y


def box(x: Tensor) -> Box:
    """An uneven box around the inputs."""
    u = torch.rand(2, *x.shape, generator=generator(6))
    return Box((x - 0.05 * u[0]).clamp(0, 1), (x + 0.05 * u[1]).clamp(0, 1))


def threats(x: Tensor) -> dict[str, Threat]:
    per_input = torch.linspace(0.0, 0.15, len(x))
    per_element = 0.08 * torch.rand(x.shape, generator=generator(5))
    return {
        "linf": Linf(0.03),
        "linf-large": Linf(0.12),
        "linf-free": Linf(0.03, clip=None),
        "linf-input": Linf(per_input),
        "linf-element": Linf(per_element),
        "l2": L2(0.2),
        "l2-input": L2(4 * per_input),
        "l2-element": L2(per_element * 5),
        "l1": L1(0.5),
        "l1-large": L1(3.0),
        "box": box(x),
    }
