"""Looks for evaluations that contradict a verdict: `make fuzz`.

Each network's last bias is lowered until its certificate is about to fall; there the model runs on points
chosen to hurt: constant inputs, vertices, ends of ascents and their neighbours, alone and in batches, on one
thread and on two. Whatever is classified otherwise is a false verdict.
"""

import sys
from collections.abc import Callable, Iterator

import torch
from tests.fuzz.nets import Hard, HardFile, table
from torch import Tensor

import certus
from certus.graph import Graph

BATCHES = (1, 7, 64)
STEPS = 24  # halvings on the way to the smallest bias that is certified


def run(hard: Hard | HardFile, method: str, budget: int, **options: object) -> tuple[int, int]:
    """(evaluations, contradictions) of one network, one method, about `budget` evaluations."""
    threat = certus.Linf(hard.eps, clip=None)

    def holds(bias: float) -> bool:
        graph = hard.at(bias)
        found = certus.certify(graph, hard.x, torch.tensor([0]), threat, method, **options)
        return bool(found.certified[0])

    bias = lowest(hard, holds)
    if bias is None:
        return 0, 0
    model = hard.at(bias).original
    wrong = done = 0
    for points in hurting(hard, bias, threat.region(hard.x), budget):
        for size in BATCHES:
            taken = points if size > 1 else points[: max(1, len(points) // 8)]
            for part in taken.split(size):
                with torch.no_grad():
                    logits = model(part)
                wrong += int((logits[:, 0] <= logits[:, 1]).sum())
                done += len(part)
    return done, wrong


def lowest(hard: Hard | HardFile, holds: Callable[[float], bool]) -> float | None:
    """Nearly the smallest bias with a certificate; None where there is none."""
    with torch.no_grad():
        scale = float(hard.at(0.0)(hard.x).abs().max()) + 1.0
    low, high = -2 * scale, 4 * scale
    if not holds(high):
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def hurting(
    hard: Hard | HardFile, bias: float, region: certus.Region, budget: int
) -> Iterator[Tensor]:
    """Members of the region in groups [N, *shape]."""
    lower, upper = region.lower[0], region.upper[0]
    many = max(8, budget // 6)
    g = torch.Generator().manual_seed(0)
    group = max(1, min(512, 2**24 // lower.numel()))
    kinds = (_constant, _vertex, _inside, _near_worst)
    worst = _ascend(hard.at(bias), region)
    for kind in kinds:
        left = many // len(kinds)
        while left > 0:
            share = torch.rand((min(group, left), *lower.shape), generator=g)
            points = kind(share, lower, upper, worst, left / many)
            yield torch.minimum(torch.maximum(points, lower), upper)
            left -= len(share)


def _constant(share: Tensor, lower: Tensor, upper: Tensor, worst: Tensor, left: float) -> Tensor:
    same = share.flatten(1)[:, :1].view(-1, *[1] * (share.ndim - 1))
    return lower + same * (upper - lower)


def _vertex(share: Tensor, lower: Tensor, upper: Tensor, worst: Tensor, left: float) -> Tensor:
    return torch.where(share < left, lower, upper)


def _inside(share: Tensor, lower: Tensor, upper: Tensor, worst: Tensor, left: float) -> Tensor:
    return lower + share * (upper - lower)


def _near_worst(share: Tensor, lower: Tensor, upper: Tensor, worst: Tensor, left: float) -> Tensor:
    return worst + (share - 0.5) * (upper - lower) * 0.02 * left


def _ascend(net: Graph, region: certus.Region) -> Tensor:
    """Where the margin is smallest, by signed steps."""
    x, lower, upper = region.center.clone(), region.lower, region.upper
    for step in range(20):
        x.requires_grad_()
        logits = net(x)
        (gradient,) = torch.autograd.grad(logits[0, 0] - logits[0, 1], x)
        moved = x.detach() - gradient.sign() * (upper - lower) / (step + 2)
        x = torch.minimum(torch.maximum(moved, lower), upper)
    return x[0]


def main(budget: int = 5000) -> int:
    """Everything; the number of contradictions."""
    done = wrong = proven = 0
    for name, make in table().items():
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for method, options in (("ibp", {}), ("crown", {}), ("crown", {"rigorous": True})):
                try:
                    found = run(make(), method, budget, **options)
                except certus.UnsupportedError:
                    continue
                done, wrong, proven = done + found[0], wrong + found[1], proven + (found[0] > 0)
                if found[1]:
                    print(f"FALSE: {name} {method} {options}: {found[1]} of {found[0]}")
        print(f"{name}: {done} evaluations, {wrong} contradictions", file=sys.stderr)
    print(f"{proven} certificates, {done} evaluations of their regions, {wrong} contradictions")
    return wrong


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
