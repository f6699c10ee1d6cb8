"""The training loop: one for every method, since what differs is in the loss and the schedules."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from certus.core import ArgumentError, ModelError, Progress
from certus.core.fingerprint import fingerprint
from certus.core.progress import silent
from certus.core.random import generator
from certus.core.validate import count, inputs, labels, positive
from certus.graph import Graph, trace
from certus.graph.batchnorm import with_batch_statistics
from certus.training.loss import Loss, Moment
from certus.training.schedule import Constant, Cosine, Schedule
from certus.training.snapshot import Snapshot, State

_SHUFFLE, _DRAWS = 1, 2  # keys of the two kinds of randomness


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast to train; the times of all schedules are fractions of the training.

    batch: wanted size; an epoch is cut into equal batches of about it. clip: range of valid inputs.
    gradient_norm: longer gradients are shortened to it. momentum: of batch normalisation.
    """

    epochs: int
    batch: int
    rate: Schedule = field(default_factory=lambda: Cosine(rate=1e-3))
    eps: Schedule = field(default_factory=lambda: Constant(0.0))
    kappa: Schedule = field(default_factory=lambda: Constant(1.0))
    beta: Schedule = field(default_factory=lambda: Constant(0.0))
    clip: tuple[float, float] = (0.0, 1.0)
    gradient_norm: float = 10.0
    momentum: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        count(self.epochs, "epochs")
        count(self.batch, "batch", least=2)
        count(self.seed, "seed", least=0)
        positive(self.gradient_norm, "gradient_norm")
        if not self.clip[0] < self.clip[1]:
            raise ArgumentError(f"clip must be (low, high) with low < high, got {self.clip}")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What was measured in one epoch, over the batches as they were trained on.

    robust: fraction that the loss's own bound or attack left alone, NaN where it used none; it is
    made with batch statistics and the eps of the moment, so it is a hint and no certificate.
    """

    epoch: int
    loss: float
    accuracy: float
    robust: float
    eps: float
    rate: float
    seconds: float


@dataclass(frozen=True)
class History:
    """All epochs of a training, those before a resumption included."""

    epochs: tuple[Epoch, ...]

    @property
    def seconds(self) -> float:
        """Wall-clock time of the steps."""
        return sum(epoch.seconds for epoch in self.epochs)

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain dict for each epoch."""
        return [asdict(epoch) for epoch in self.epochs]


def train(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    plan: Plan,
    progress: Progress = silent,
    snapshot: Snapshot | None = None,
) -> History:
    """Train a module in place with Adam on x [N, *shape] in plan.clip and labels y [N].

    The module is captured once in evaluation mode, which it stays in: batch normalisation takes its
    batch statistics through the graph (so clean pass and bounds are one function), dropout is off.
    The same arguments give the same weights on the same machine and number of threads. With a
    snapshot, the state is written after every epoch, and a training that was interrupted goes on
    where the same call left off, to the same weights.

    Raises ArgumentError for data that do not fit, ModelError where the loss or a gradient is not
    finite (the weights are those of the step before), FileError for a snapshot of another training.
    """
    module.eval()
    x = inputs(x)
    _check_range(x, plan.clip)
    start = Moment(eps=0.0, clip=plan.clip, generator=generator(plan.seed))
    graph = trace(module, loss.view(x[:1], start)[:1])
    y = labels(y, len(x), graph.output_shape[0]) if loss.classifies else y
    run = _Run(module, graph, loss, plan, x, y.to(x.device))
    rows: list[Epoch] = []
    key = "" if snapshot is None else run.key()
    if snapshot is not None and (held := snapshot.load(key)) is not None:
        run.restore(held)
        rows = [Epoch(**row) for row in held.rows]
    for epoch in range(len(rows), plan.epochs):
        rows.append(run.epoch(epoch))
        if snapshot is not None:
            snapshot.save(key, run.state(rows))
        progress(epoch + 1, plan.epochs, _note(rows[-1]))
    return History(tuple(rows))


class _Run:
    """What changes during a training: the module and the optimiser."""

    def __init__(
        self, module: nn.Module, graph: Graph, loss: Loss, plan: Plan, x: Tensor, y: Tensor
    ) -> None:
        self.module, self.graph, self.loss, self.plan = module, graph, loss, plan
        self.x, self.y = x, y
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ModelError("the model has no parameter that can be trained")
        self.adam = torch.optim.Adam(self.parameters)
        self.steps = max(1, round(len(x) / plan.batch))

    def epoch(self, epoch: int) -> Epoch:
        """One pass over the data in the order of (seed, epoch)."""
        start, sums, bounded = time.perf_counter(), torch.zeros(3), True
        for step, index in enumerate(self._batches(epoch)):
            moment = self._moment(epoch, step, self.x[index])
            found = self._step(self.x[index], self.y[index], moment)
            sums += torch.tensor((*found[:2], found[2] or 0.0)) * len(index)
            bounded = bounded and found[2] is not None
        total, right, robust = (sums / len(self.x)).tolist()
        return Epoch(
            epoch=epoch,
            loss=total,
            accuracy=right,
            robust=robust if bounded else math.nan,
            eps=moment.eps,
            rate=self.adam.param_groups[0]["lr"],
            seconds=time.perf_counter() - start,
        )

    def _batches(self, epoch: int) -> Iterator[Tensor]:
        order = torch.randperm(len(self.x), generator=generator(self.plan.seed, _SHUFFLE, epoch))
        yield from order.to(self.x.device).tensor_split(self.steps)

    def _moment(self, epoch: int, step: int, clean: Tensor) -> Moment:
        """The schedules' values at this step; the learning rate goes to the optimiser."""
        plan = self.plan
        now = (epoch + step / self.steps) / plan.epochs
        for group in self.adam.param_groups:
            group["lr"] = plan.rate(now)
        return Moment(
            eps=plan.eps(now),
            kappa=plan.kappa(now),
            beta=plan.beta(now),
            time=now,
            clip=plan.clip,
            generator=generator(plan.seed, _DRAWS, epoch, step),
            clean=clean,
        )

    def _step(self, x: Tensor, y: Tensor, moment: Moment) -> tuple[float, float, float | None]:
        """One step; mean loss, accuracy and robust fraction of the batch."""
        self.adam.zero_grad()
        seen = self.loss.view(x, moment)
        y = y.repeat(len(seen) // len(x))
        graph, logits = with_batch_statistics(self.graph, seen, self.plan.momentum)
        value = self.loss(graph, logits, seen, y, moment)
        total = float(value.total.detach())
        if not math.isfinite(total):
            raise ModelError(
                f"the loss became {total} at eps {moment.eps:.3g}; use a lower learning rate or eps"
            )
        value.total.backward()
        length = nn.utils.clip_grad_norm_(self.parameters, self.plan.gradient_norm)
        if not bool(torch.isfinite(length)):
            raise ModelError("a gradient is not finite; use a lower learning rate or eps")
        self.adam.step()
        right = math.nan
        if self.loss.classifies:
            right = float((logits.detach().argmax(1) == y).float().mean())
        robust = None if value.robust is None else float(value.robust.float().mean())
        return total, right, robust

    def key(self) -> str:
        """Hash of everything that decides the result; taken before the first step."""
        named = [*self.module.state_dict().items(), ("x", self.x), ("y", self.y)]
        text = f"{self.loss!r} {self.plan!r}"
        return f"{fingerprint(named)} {text}"

    def state(self, rows: list[Epoch]) -> State:
        """What a resumption needs."""
        moments = {
            f"{number}.{name}": value
            for number, held in self.adam.state_dict()["state"].items()
            for name, value in held.items()
        }
        return State(dict(self.module.state_dict()), moments, [asdict(row) for row in rows])

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self.module.load_state_dict(state.weights)
        own = self.adam.state_dict()
        for name, value in state.optimiser.items():
            number, _, part = name.partition(".")
            own["state"].setdefault(int(number), {})[part] = value
        self.adam.load_state_dict(own)


def _check_range(x: Tensor, clip: tuple[float, float]) -> None:
    low, high = float(x.min()), float(x.max())
    if low < clip[0] or high > clip[1]:
        raise ArgumentError(
            f"inputs lie in {low:g}..{high:g}, outside clip {clip}; scale them or set clip in the plan"
        )


def _note(row: Epoch) -> str:
    note = f"loss {row.loss:.3f}"
    note += "" if math.isnan(row.accuracy) else f", accuracy {row.accuracy:.1%}"
    return note if math.isnan(row.robust) else f"{note}, robust {row.robust:.1%} at {row.eps:.3g}"
