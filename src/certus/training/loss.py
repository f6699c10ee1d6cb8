"""Losses: what a training minimises on one batch; the loop knows nothing else about a method."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from certus.bounding import IBP, margin_rows
from certus.bounding.backward import lower_bound
from certus.bounding.state import State
from certus.core import ArgumentError
from certus.core.validate import count, positive
from certus.graph import Graph
from certus.threats import Linf, NormBall, Region
from certus.training.pieces import sum_over_inputs
from certus.training.sensitivity import rates


@dataclass(frozen=True, eq=False, kw_only=True)
class Moment:
    """Where a training stands at one step.

    eps: radius of the threat now. kappa: weight of the clean loss, from 1 down. beta: weight of
    CROWN against interval bounds. time: fraction of the training that is over. clip: range of valid
    inputs. generator: all randomness of the step. clean: the batch [B, *shape] before `Loss.view`.
    """

    eps: float
    kappa: float = 1.0
    beta: float = 0.0
    time: float = 1.0
    clip: tuple[float, float] = (0.0, 1.0)
    generator: torch.Generator
    clean: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Value:
    """A loss: `total` is differentiable and 0-dim.

    robust, bool [B], says where the bound or the attack that the loss used left the label alone;
    None for a loss that uses none.
    """

    total: Tensor
    robust: Tensor | None = None


class Loss(ABC):
    """What to minimise. Leaves are frozen records of their settings.

    A step evaluates the network once on `view(x)`: that gives the logits, and batch normalisation
    its statistics. graph is that same function, frozen to these statistics: bounds and attacks use
    it, so that they speak of the logits.

    classifies: the outputs are logits of the labels; False for a network of another kind.
    ascends: the loss follows gradients with respect to the inputs, as attacks do.
    """

    classifies: ClassVar[bool] = True
    ascends: ClassVar[bool] = True

    def view(self, x: Tensor, moment: Moment) -> Tensor:
        """What the network sees of the clean batch x [B, *shape]; the batch itself by default.

        m * B rows are m copies of the batch, one after the other; the labels are then repeated.
        """
        return x

    @abstractmethod
    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """The loss of logits [B, K] = graph(x) for labels y [B], where x is already the view."""


def checked(value: object, loss: Loss) -> Value:
    """What a loss returned, after a look at its types. Raises ArgumentError that names the loss."""
    name = type(loss).__name__
    if not isinstance(value, Value):
        raise ArgumentError(
            f"{name} must return a Value such as Value(total), got {type(value).__name__}"
        )
    total, robust = value.total, value.robust
    if not isinstance(total, Tensor) or total.ndim != 0 or not total.is_floating_point():
        shape = tuple(total.shape) if isinstance(total, Tensor) else type(total).__name__
        raise ArgumentError(f"{name}: total must be a 0-dim floating-point tensor, got {shape}")
    if not total.requires_grad:
        raise ArgumentError(
            f"{name}: total has no gradient; compute it from the logits, without detach"
        )
    if robust is not None and not (isinstance(robust, Tensor) and robust.dtype == torch.bool):
        raise ArgumentError(f"{name}: robust must be None or a bool tensor [B], got {robust!r:.80}")
    return value


@dataclass(frozen=True)
class Standard(Loss):
    """Cross entropy on clean inputs."""

    ascends: ClassVar[bool] = False

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch."""
        return Value(cross_entropy(logits, y))


@dataclass(frozen=True, kw_only=True)
class Adversarial(Loss):
    """Cross entropy at the worst point that a few projected gradient steps find (Madry et al. 2018).

    Any norm that a region knows; random start; each step is `stride` / steps times the region's
    radius. The attack is cheap on purpose: it makes training data and proves nothing.
    """

    threat: type[NormBall] = Linf
    steps: int = 7
    stride: float = 2.5

    def __post_init__(self) -> None:
        count(self.steps, "steps")
        positive(self.stride, "stride")
        _norm_ball(self.threat)

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch at the points found; the clean loss while eps is 0."""
        if moment.eps == 0:
            return Value(cross_entropy(logits, y))
        region = self.threat(moment.eps, moment.clip).region(x)
        found = graph(self._ascend(graph, region, y, moment))
        return Value(cross_entropy(found, y), found.detach().argmax(1) == y)

    def _ascend(self, graph: Graph, region: Region, y: Tensor, moment: Moment) -> Tensor:
        points = region.sample([moment.generator] * len(region))
        for _ in range(self.steps):
            leaf = points.detach().requires_grad_()
            loss = cross_entropy(graph(leaf), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, leaf)
            step = region.steepest(gradient) * (self.stride / self.steps)
            points = region.project(leaf.detach() + step)
        return points


@dataclass(frozen=True, kw_only=True)
class IBPLoss(Loss):
    """kappa * clean + (1 - kappa) * robust cross entropy, by interval bounds (Gowal et al. 2018).

    The robust part takes lower bounds m_j of z_y - z_j, folded into the last layer, as logits: 0 for
    y and -m_j for j != y, an upper bound of the cross entropy at every point of the region.
    """

    ascends: ClassVar[bool] = False
    threat: type[NormBall] = Linf

    def __post_init__(self) -> None:
        _norm_ball(self.threat)

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch; only the clean part while kappa is 1."""
        if moment.kappa == 1:
            return Value(cross_entropy(logits, y))
        region = self.threat(moment.eps, moment.clip).region(x)
        state = IBP().prepare(graph, region)
        margins = lower_bound(state, graph.output, _rows(y, logits)).T
        return _mixed(logits, y, margins, moment.kappa)


@dataclass(frozen=True, kw_only=True)
class CrownIBPLoss(Loss):
    """As IBPLoss with margins beta * CROWN-IBP + (1 - beta) * IBP (Zhang et al. 2020, eq. 8).

    A mean of two lower bounds is a lower bound. Where beta falls to 0 the network ends up tight for
    IBP; the tighter bounds help while eps is small. One backward bound pass more than IBPLoss.
    """

    ascends: ClassVar[bool] = False
    threat: type[NormBall] = Linf

    def __post_init__(self) -> None:
        _norm_ball(self.threat)

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch; only the clean part while kappa is 1."""
        if moment.kappa == 1:
            return Value(cross_entropy(logits, y))
        region, rows = self.threat(moment.eps, moment.clip).region(x), _rows(y, logits)
        state = IBP().prepare(graph, region)
        margins = lower_bound(state, graph.output, rows).T
        if moment.beta == 0:
            return _mixed(logits, y, margins, moment.kappa)
        found: list[Tensor] = []

        def part(own: State, beside: Sequence[Tensor], pick: slice) -> Tensor:
            crown = lower_bound(own, graph.output, rows[:, pick]).T
            mixed = moment.beta * crown + (1 - moment.beta) * beside[0]
            found.append(mixed.detach())
            return _robust(mixed, reduction="sum") / len(y)

        robust = sum_over_inputs(part, state, [margins], len(rows))
        return _weighed(logits, y, robust, torch.cat(found), moment.kappa)


@dataclass(frozen=True, kw_only=True)
class LipschitzLoss(Loss):
    """kappa * clean + (1 - kappa) * cross entropy of logits moved by what an L2 change can do.

    Each z_j, j != y, is raised by eps times the rate of z_j - z_y, so that the loss is small where
    the Lipschitz certificate at eps holds with room (after Tsuzuku et al. 2018, Leino et al. 2021).
    The rates are differentiable estimates; `certus.lipschitz` gives the certificate.
    """

    ascends: ClassVar[bool] = False

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over the batch; only the clean part while kappa is 1."""
        if moment.kappa == 1:
            return Value(cross_entropy(logits, y))
        gaps = logits.gather(1, y.unsqueeze(1)) - logits - moment.eps * rates(graph)[y]
        others = torch.ones_like(gaps, dtype=torch.bool).scatter_(1, y.unsqueeze(1), False)
        return _mixed(logits, y, gaps[others].view(len(y), -1), moment.kappa)


def _norm_ball(threat: object) -> None:
    if not (isinstance(threat, type) and issubclass(threat, NormBall)):
        raise ArgumentError(f"threat must be a class such as Linf or L2, got {threat!r}")


def _rows(y: Tensor, logits: Tensor) -> Tensor:
    """The margins as rows [K - 1, B, K] of a backward walk."""
    return margin_rows(y, logits.shape[1], logits).transpose(0, 1)


def _mixed(logits: Tensor, y: Tensor, margins: Tensor, kappa: float) -> Value:
    """The mixture for lower bounds of margins [B, K - 1]; class 0 below stands for the label."""
    return _weighed(logits, y, _robust(margins), margins, kappa)


def _robust(margins: Tensor, reduction: str = "mean") -> Tensor:
    """Cross entropy of the label, class 0 here, against others ahead of it by -margins [B, K - 1]."""
    worst = torch.cat([margins.new_zeros(len(margins), 1), -margins], 1)
    label = torch.zeros(len(margins), dtype=torch.int64, device=margins.device)
    return cross_entropy(worst, label, reduction=reduction)


def _weighed(logits: Tensor, y: Tensor, robust: Tensor, margins: Tensor, kappa: float) -> Value:
    total = robust if kappa == 0 else kappa * cross_entropy(logits, y) + (1 - kappa) * robust
    return Value(total, margins.detach().amin(1) > 0)
