"""The tables of regions and bound methods, and the attacks that laws hold bounds against."""

from collections.abc import Callable
from functools import cache

import torch
from tests.laws.networks import example, graph_of
from torch import Tensor

from certus.bounding import IBP, BoundMethod, Chunked, Crown, Tightest, crown_ibp
from certus.core.random import generator, per_input
from certus.graph import Graph
from certus.threats import L1, L2, Box, Linf, Region


def per_input_eps(x: Tensor) -> Tensor:
    """0, 0.1, 0.2, ... one for each input."""
    return 0.1 * torch.arange(len(x)).to(x)


def per_element_eps(x: Tensor) -> Tensor:
    """Between 0 and 0.3, a third of them exactly zero."""
    u = torch.rand(x.shape, generator=generator(5), dtype=x.dtype)
    return torch.where(u < 1 / 3, torch.zeros_like(u), 0.3 * u)


def box(x: Tensor) -> Region:
    """An uneven box, some sides of it without width."""
    u = torch.rand(2, *x.shape, generator=generator(6), dtype=x.dtype)
    return Box(x - 0.3 * u[0], x + torch.where(u[1] < 0.2, torch.zeros_like(u[1]), 0.2 * u[1]))


REGIONS: dict[str, Callable[[Tensor], Region]] = {
    "linf": lambda x: Linf(0.1).region(x),
    "linf-free-input": lambda x: Linf(per_input_eps(x), clip=None).region(x),
    "linf-element": lambda x: Linf(per_element_eps(x)).region(x),
    "l2": lambda x: L2(0.4).region(x),
    "l2-free": lambda x: L2(0.3, clip=None).region(x),
    "l2-element": lambda x: L2(per_element_eps(x), clip=None).region(x),
    "l1": lambda x: L1(0.6).region(x),
    "l1-free-input": lambda x: L1(3 * per_input_eps(x), clip=None).region(x),
    "box": box,
}

METHODS: dict[str, BoundMethod] = {
    "ibp": IBP(),
    "crown-ibp": crown_ibp(),
    "crown": Crown(),
    "crown-tiny-memory": Crown(memory=1),
    "tightest": Tightest(IBP(), Crown()),
    "chunked": Chunked(Crown(), batch=2, rows=3),
    "crown-on-tightest": Crown(intermediate=Tightest(IBP(), Crown())),
}


def corners(region: Region, count: int) -> list[Tensor]:
    """Far out in random directions, then back onto the region."""
    found = []
    for k in range(count):
        u = torch.rand(region.lower.shape, generator=generator(7, k), dtype=region.lower.dtype)
        corner = torch.where(u < 0.5, region.lower, region.upper)
        found.append(region.project(corner if k % 2 else corner + 10 * (corner - region.center)))
    return found


def ascend(
    function: Callable[[Tensor], Tensor], region: Region, start: Tensor, steps: int = 12
) -> Tensor:
    """Points where function(x) [B] is large: steepest steps of shrinking size, projected."""
    x = start
    for k in range(steps):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(function(x).sum(), x)
        x = region.project(x.detach() + 2.0 / (k + 2) * region.steepest(gradient))
    return x.detach()


def points(graph: Graph, region: Region, count: int = 4) -> Tensor:
    """Members of the region [P, B, *shape]: samples, corners, and ends of ascents on each output."""
    batch, outputs = len(region), torch.Size(graph.output_shape).numel()
    found = [region.center, *(region.sample(per_input(k, range(batch))) for k in range(count))]
    found += corners(region, count)
    goals = torch.cat([torch.eye(outputs), -torch.eye(outputs)]).to(region.center)
    many = region.select(torch.arange(batch).repeat(len(goals)))

    def value(x: Tensor) -> Tensor:
        return (graph(x).flatten(1) * goals.repeat_interleave(batch, 0)).sum(1)

    found += ascend(value, many, many.center, 6).split(batch)
    return torch.stack([p for p in found if bool(region.contains(p).all())])


@cache
def members(name: str, kind: str) -> tuple[Tensor, list[Tensor]]:
    """Members [P, 3, *shape] of a region about the example of a network, and every node's values.

    Found once a process: every method is held against the same, and laws only read them.
    """
    graph, region = graph_of(name), REGIONS[kind](example(name, 3))
    found = points(graph, region).detach()
    assert len(found) > 10
    with torch.no_grad():
        values = graph.values(found.flatten(0, 1))
    return found, [v.unflatten(0, found.shape[:2]) for v in values]
