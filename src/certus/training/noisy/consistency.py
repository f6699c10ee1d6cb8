"""Consistency regularisation: the copies of an input agree with their mean."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from certus.core.validate import count
from certus.graph import Graph
from certus.training.loss import Moment, Value
from certus.training.noisy.copies import Noisy, mean_log, weight


@dataclass(frozen=True, kw_only=True)
class Consistency(Noisy):
    """CE + weight * mean_i KL(P || p_i) + eta * H(P): p_i softmax of copy i, P their mean.

    Jeong and Shin 2020, eq. 10. On MNIST weight is 10 at sigma 0.25 and 5 at 0.5 and 1, eta 0.5,
    two copies. The divergence draws the copies together, the entropy makes their mean certain. Too
    large a weight gives up classes that are hard under noise: at sigma 1 from 25 on.
    """

    ascends: ClassVar[bool] = False
    copies: int = 2
    weight: float = 5.0
    eta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        count(self.copies, "copies", least=2)
        weight(self.weight, "weight")
        weight(self.eta, "eta")

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch; cross entropy over all copies."""
        log = self.split(logits.log_softmax(1))
        mean = mean_log(log)
        share = mean.exp()
        apart = (share * (mean - log)).sum(2).mean()
        entropy = -(share * mean).sum(1).mean()
        return Value(cross_entropy(logits, y) + self.weight * apart + self.eta * entropy)
