"""MACER: the certified radius itself is maximised."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from certus.core import ArgumentError
from certus.core.validate import positive
from certus.graph import Graph
from certus.smoothing.noise import Gaussian
from certus.training.loss import Moment, Value
from certus.training.noisy.copies import Noisy, mean_log, weight


@dataclass(frozen=True, kw_only=True)
class Macer(Noisy):
    """-log P_y + weight * sigma / 2 * max(0, gamma - xi) where the smoothed classifier is right.

    xi = Phi^-1(Q_y) - Phi^-1(max_{j != y} Q_j); P is the mean softmax over copies, Q that of
    beta * logits (Zhai et al. 2020, eq. 12 and algorithm 1): sigma / 2 * xi estimates the radius.
    Gaussian noise only. On MNIST 16 copies, gamma 8, beta 16, weight 16 (6 at sigma 1). The second
    term counts after the first `deferred` of the training; weight 0 trains the mean softmax alone.
    """

    ascends: ClassVar[bool] = False
    noise: Gaussian
    copies: int = 16
    weight: float = 16.0
    gamma: float = 8.0
    beta: float = 16.0
    deferred: float = 1 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.noise, Gaussian):
            raise ArgumentError(f"MACER's radius is that of Gaussian noise, not of {self.noise!r}")
        positive(self.gamma, "gamma")
        positive(self.beta, "beta")
        weight(self.weight, "weight")
        weight(self.deferred, "deferred")

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch; inputs that are wrong or beyond gamma have no second term."""
        label = self.split(y)[0]
        total = nll_loss(mean_log(self.split(logits.log_softmax(1))), label)
        if self.weight > 0 and moment.time >= self.deferred:
            total = total + self.weight * self._short(logits, label)
        return Value(total)

    def _short(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean over the batch of sigma / 2 * (gamma - xi) where 0 < xi < gamma."""
        share = self.split((self.beta * logits).softmax(1)).mean(0)
        two, order = share.topk(2, dim=1)
        low = torch.finfo(share.dtype).tiny
        inner = (two[:, 1] > low) & (two[:, 0] < 1) & (order[:, 0] == label)
        # selected before the quantiles, whose slopes at 0 and 1 are infinite
        gap = torch.special.ndtri(two[inner, 0]) - torch.special.ndtri(two[inner, 1])
        return self.noise.sigma / 2 * (self.gamma - gap).clamp(min=0).sum() / len(label)
