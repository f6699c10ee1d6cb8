"""Noise augmentation: cross entropy on noisy inputs."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from certus.graph import Graph
from certus.training.loss import Moment, Value
from certus.training.noisy.copies import Noisy


@dataclass(frozen=True, kw_only=True)
class NoiseAugmentation(Noisy):
    """Cross entropy under the noise, one copy of each input by default.

    With Gaussian noise: Lecuyer et al. 2019; Cohen, Rosenfeld and Kolter 2019, section 3.3.
    """

    ascends: ClassVar[bool] = False

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over all copies."""
        return Value(cross_entropy(logits, y))
