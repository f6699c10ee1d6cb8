"""CAT-RS: how much is asked of an input follows the confidence of the smoothed classifier in it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from certus.core.validate import count, positive
from certus.graph import Graph
from certus.training.loss import Moment, Value
from certus.training.noisy.ascent import ascend, within
from certus.training.noisy.copies import Noisy, additive, mean_log, ramp, weight


@dataclass(frozen=True, kw_only=True)
class CatRS(Noisy):
    """Bottom-K cross entropy plus weight * [K = M] max_i KL(P || softmax f(copy_i + d_i)), |d_i|_2 <= radius.

    Jeong, Kim and Shin 2023, eq. 8 to 12, with M = `copies`. K is binomial(M, share of the copies
    that are right), at least 1, and only the K smallest cross entropies count (over M): inputs that
    are hard under noise are not forced. Where all count, the worst copy is drawn to P, each d_i
    found by `steps` steps of length 2 radius / steps. On MNIST M 4, radius 1, 4 steps, weight 1.
    P is the mean softmax of the network itself, without gradient; the paper takes it from a network
    trained before, and shifts and scales moved noise back to the mean and deviation it had, which
    changes it by less than radius / (sigma sqrt(d)) and is left out. The second term rises during
    the first `warmup` of the training, while P means little.
    """

    copies: int = 4
    weight: float = 1.0
    radius: float = 1.0
    steps: int = 4
    warmup: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        additive(self.noise, "CAT-RS")
        positive(self.radius, "radius")
        count(self.steps, "steps")
        weight(self.weight, "weight")
        weight(self.warmup, "warmup")

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch."""
        kept = self._kept(logits, y, moment)
        each = self.split(cross_entropy(logits, y, reduction="none")).sort(0).values
        rank = torch.arange(self.copies, device=x.device).unsqueeze(1)
        low = torch.where(rank < kept, each, 0.0).sum(0).mean() / self.copies
        strength = self.weight * ramp(moment, self.warmup)
        if strength == 0:
            return Value(low)
        share = mean_log(self.split(logits.detach().log_softmax(1))).exp()
        high = self._apart(graph, self._worst(graph, x, share), share).amax(0)
        return Value(low + strength * (high * (kept == self.copies)).mean())

    def _kept(self, logits: Tensor, y: Tensor, moment: Moment) -> Tensor:
        """How many copies count for each input [B], 1 to M."""
        right = self.split((logits.detach().argmax(1) == y).to(logits)).mean(0)
        draws = torch.rand((self.copies, len(right)), generator=moment.generator).to(right)
        return (draws < right).sum(0).clamp(min=1)

    def _apart(self, graph: Graph, rows: Tensor, share: Tensor) -> Tensor:
        """KL(P || softmax) of each copy [M, B]."""
        log = self.split(graph(rows).log_softmax(1))
        return (share * (share.clamp(min=1e-20).log() - log)).sum(2)

    def _worst(self, graph: Graph, x: Tensor, share: Tensor) -> Tensor:
        """The copies, each moved on its own to where it is farthest from P."""
        change = ascend(
            lambda change: self._apart(graph, x + change, share).sum(),
            torch.zeros_like(x),
            self.steps,
            2 * self.radius / self.steps,
            lambda change: within(change, self.radius),
        )
        return x + change
