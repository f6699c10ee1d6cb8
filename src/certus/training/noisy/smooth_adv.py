"""SmoothAdv: adversarial training of the smoothed classifier."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

from certus.core.validate import count, positive
from certus.graph import Graph
from certus.training.loss import Moment, Value
from certus.training.noisy.ascent import ascend, within
from certus.training.noisy.copies import Noisy, additive, clean, mean_log, ramp, weight


@dataclass(frozen=True, kw_only=True)
class SmoothAdv(Noisy):
    """CE on copies of x + d, where d raises -log mean_i softmax_y f(x + d + noise_i), |d|_2 <= radius.

    Salman et al. 2019, eq. 6 and section 3: `steps` steps of length 2 radius / steps; attack and
    training use the same copies, and x + d stays inside the plan's clip. On MNIST radius 1, 10 steps
    and 4 copies (Jeong and Shin 2020). The radius rises from 0 during the first `warmup` of the
    training; at radius 0 this is noise augmentation. `robust` counts inputs whose mean softmax
    withstands the attack.
    """

    copies: int = 4
    radius: float = 1.0
    steps: int = 10
    warmup: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        additive(self.noise, "SmoothAdv")
        positive(self.radius, "radius")
        count(self.steps, "steps")
        weight(self.warmup, "warmup")

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over all copies."""
        radius = self.radius * ramp(moment, self.warmup)
        if radius == 0:
            return Value(cross_entropy(logits, y))
        change = attack(self, graph, x, y, moment, self.steps, 2 * radius / self.steps, radius)
        found = graph(self.moved(x, change))
        sure = mean_log(self.split(found.detach().log_softmax(1))).argmax(1)
        return Value(cross_entropy(found, y), sure == self.split(y)[0])

    def moved(self, x: Tensor, change: Tensor) -> Tensor:
        """Every copy of an input, moved by that input's change [B, *shape]."""
        return x + change.repeat(self.copies, *[1] * (change.ndim - 1))


def attack(
    loss: Noisy,
    graph: Graph,
    x: Tensor,
    y: Tensor,
    moment: Moment,
    steps: int,
    step: float,
    radius: float | None = None,
) -> Tensor:
    """One change for all copies of an input [B, *shape]; radius None: as far as the steps go."""
    base, label = clean(moment), loss.split(y)[0]

    def value(change: Tensor) -> Tensor:
        rows = x + change.repeat(loss.copies, *[1] * (x.ndim - 1))
        log = mean_log(loss.split(graph(rows).log_softmax(1)))
        return nll_loss(log, label, reduction="sum")

    def restrict(change: Tensor) -> Tensor:
        inside = (base + change).clamp(*moment.clip) - base
        return inside if radius is None else within(inside, radius)

    return ascend(value, base.new_zeros(base.shape), steps, step, restrict)
