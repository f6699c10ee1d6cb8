"""Stability training: answers under noise follow the answer without it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from certus.graph import Graph
from certus.training.loss import Moment, Value
from certus.training.noisy.copies import Noisy, noisy, ramp, weight


@dataclass(frozen=True, kw_only=True)
class Stability(Noisy):
    """CE(f(x), y) + weight * H(softmax f(x), softmax f(x + noise)), H the cross entropy.

    Zheng et al. 2016, section 3.1; with the noise of smoothing Li et al. 2019, section 5. weight is
    2 on MNIST in Jeong and Shin 2020. It rises during the first `warmup` of the training: in full from
    the start it can draw all inputs to one answer. Weight 0 is training without noise. The view holds
    the clean batch and then its copies, so batch statistics mix both.
    """

    ascends: ClassVar[bool] = False
    weight: float = 2.0
    warmup: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        weight(self.weight, "weight")
        weight(self.warmup, "warmup")

    def view(self, x: Tensor, moment: Moment) -> Tensor:
        """[(1 + copies) * B, *shape], the clean batch first."""
        return torch.cat([x, noisy(x, self.noise, self.copies, moment.generator)])

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch, and over the copies in the second part."""
        size = len(logits) // (1 + self.copies)
        clean, moved = logits[:size], logits[size:]
        targets = clean.softmax(1).repeat(self.copies, 1)
        stable = -(targets * moved.log_softmax(1)).sum(1).mean()
        strength = self.weight * ramp(moment, self.warmup)
        return Value(cross_entropy(clean, y[:size]) + strength * stable)
