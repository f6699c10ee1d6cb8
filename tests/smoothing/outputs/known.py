"""Modules whose outputs under noise are known exactly, and exact tests of failure rates."""

import torch
from scipy.special import bdtrc
from torch import Tensor

FINE, CLEAR = 1e-4, 1e-12  # below FINE a rate is refuted, below CLEAR a mistake is shown


def excess(failures: int, trials: int, rate: float) -> float:
    """Chance of at least so many failures in independent trials that fail at this rate."""
    return float(bdtrc(failures - 1, trials, rate)) if failures else 1.0


class Linear(torch.nn.Module):
    """z -> weights z + bias, [N, *rows] -> [N, *out]; under Gaussian noise of deviation sigma every
    output is normal with deviation sigma |its weights|."""

    def __init__(
        self, weights: Tensor, bias: Tensor | float = 0.0, out: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.weights, self.out = torch.nn.Parameter(weights), out or (len(weights),)
        self.bias = torch.nn.Parameter(torch.zeros(len(weights), dtype=weights.dtype) + bias)
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        return (z.flatten(1) @ self.weights.T + self.bias).view(-1, *self.out)


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    seeded = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=seeded, dtype=torch.float64)


def moved(x: Tensor, radius: float, count: int, seed: int = 0) -> Tensor:
    """Points at this L2 distance from x [*shape], in random directions: [count, *shape]."""
    seeded = torch.Generator().manual_seed(seed)
    step = torch.randn(count, *x.shape, generator=seeded, dtype=x.dtype)
    length = step.flatten(1).norm(dim=1).view(-1, *[1] * x.ndim)
    return x + radius * step / length
