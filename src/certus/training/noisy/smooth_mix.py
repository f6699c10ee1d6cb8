"""SmoothMix: mixtures towards adversarial inputs, with labels that grow uncertain."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from certus.core.validate import count, positive
from certus.graph import Graph
from certus.training.loss import Moment, Value
from certus.training.noisy.copies import Noisy, additive, mean_log, ramp, weight
from certus.training.noisy.smooth_adv import attack


@dataclass(frozen=True, kw_only=True)
class SmoothMix(Noisy):
    """CE + weight * [right] KL(t || softmax f(x + s d + noise)), t = (1 - s) P + s uniform.

    Jeong et al. 2021, eq. 11 and algorithm 1: d is found by `steps` unrestricted steps of L2 length
    `step` against the mean softmax P inside clip, s is uniform on [0, 1/2] for each input, and the
    second term counts where P is right. It rises during the first `warmup` of the training. On MNIST
    weight 5, step 1, 4 copies, and 2 / 4 / 8 steps at sigma 0.25 / 0.5 / 1. Weight 0 is noise
    augmentation.
    """

    copies: int = 4
    weight: float = 5.0
    steps: int = 4
    step: float = 1.0
    warmup: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        additive(self.noise, "SmoothMix")
        count(self.steps, "steps")
        positive(self.step, "step")
        weight(self.weight, "weight")
        weight(self.warmup, "warmup")

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over all copies."""
        total, strength = cross_entropy(logits, y), self.weight * ramp(moment, self.warmup)
        if strength == 0:
            return Value(total)
        change = attack(self, graph, x, y, moment, self.steps, self.step)
        share = mean_log(self.split(logits.log_softmax(1))).exp()
        part = torch.rand(len(share), 1, generator=moment.generator, dtype=x.dtype).to(x.device) / 2
        target = (1 - part) * share + part / share.shape[1]
        moved = self.split(x) + part.view(-1, *[1] * (change.ndim - 1)) * change
        log = self.split(graph(moved.flatten(0, 1)).log_softmax(1))
        apart = (target * (target.clamp(min=_TINY).log() - log)).sum(2)
        right = share.argmax(1) == self.split(y)[0]
        return Value(total + strength * (right * apart).mean())


_TINY = 1e-20  # t log t is 0 at t = 0
