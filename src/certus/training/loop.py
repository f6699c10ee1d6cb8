"""The training loop: one for every method, since what differs is in the loss and the schedules."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from certus.core import ArgumentError, FileError, ModelError, Progress
from certus.core.progress import silent
from certus.core.random import generator
from certus.core.validate import inputs, labels, logits
from certus.graph import Graph, trace
from certus.training.agreement import check_agreement
from certus.training.key import check_unchanged, key_of
from certus.training.loss import Loss, Moment, checked
from certus.training.mode import Normalisations, still_parts
from certus.training.plan import Plan
from certus.training.snapshot import Snapshot, State

_SHUFFLE, _DRAWS = 1, 2  # keys of the two kinds of randomness


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
    A batch normalisation keeps its running statistics where its weight and bias are frozen, and where
    it alone was set to evaluation mode. What else the module does in training mode, and gradients
    that it has changed (detach, no_grad, own backward passes), are looked for on a few rows before
    the first step and refused. The same arguments give the same weights on the same machine and
    number of threads. With a snapshot, the state is written after every epoch, and a training that
    was interrupted goes on where the same call left off, to the same weights.

    Raises ArgumentError for data that do not fit and a loss that is none or returns none, ModelError
    for a module that would train otherwise than its graph, and where the loss, a gradient or a
    running statistic is not finite (weights and statistics are then those of the step before), FileError
    for a snapshot of another training.
    """
    _check_types(module, loss, plan, snapshot)
    if not callable(progress):
        raise ArgumentError(f"progress must be callable, got {progress!r:.80}")
    x = inputs(x)
    _check_range(x, plan.clip)
    still = still_parts(module)
    module.eval()
    start = Moment(eps=0.0, clip=plan.clip, generator=generator(plan.seed))
    graph = trace(module, loss.view(x[:1], start)[:1])
    y = _labels(y, x, graph, loss)
    run = _Run(graph, still, loss, plan, x, y)
    run.check()
    rows: list[Epoch] = []
    key = "" if snapshot is None else run.key()
    if snapshot is not None and (held := snapshot.load(key)) is not None:
        rows = _restored(run, held, snapshot)
    for epoch in range(len(rows), plan.epochs):
        rows.append(run.epoch(epoch))
        if snapshot is not None:
            check_unchanged(loss, key)
            snapshot.save(key, run.state(rows))
        progress(epoch + 1, plan.epochs, _note(rows[-1]))
    return History(tuple(rows))


class _Run:
    """What changes during a training: the module and the optimiser."""

    def __init__(
        self, graph: Graph, still: frozenset[str], loss: Loss, plan: Plan, x: Tensor, y: Tensor
    ) -> None:
        assert isinstance(graph.original, nn.Module)
        self.module, self.graph, self.loss, self.plan = graph.original, graph, loss, plan
        self.still, self.x, self.y = still, x, y
        self.norms = Normalisations(graph, still, plan.momentum)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ModelError("the model has no parameter that can be trained")
        self.adam = torch.optim.Adam(self.parameters)
        # every batch holds two inputs where there are two, as batch statistics need
        self.steps = max(1, min(round(len(x) / plan.batch), len(x) // 2))

    def check(self) -> None:
        """Graph and module train alike, as far as what the loss shows of the first batch tells."""
        index = next(self._batches(0))
        moment = self._moment(0, 0, self.x[index])
        check_agreement(self.norms, self.still, self._view(moment), self.loss.ascends)

    def epoch(self, epoch: int) -> Epoch:
        """One pass over the data in the order of (seed, epoch)."""
        start, sums, bounded = time.perf_counter(), torch.zeros(3), True
        for step, index in enumerate(self._batches(epoch)):
            moment = self._moment(epoch, step, self.x[index])
            found = self._step(self.x[index], self.y[index], moment)
            sums += torch.tensor((*found[:2], found[2] or 0.0)) * len(index)
            bounded = bounded and found[2] is not None
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters):
            raise ModelError("the weights are no longer finite; use a lower learning rate")
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
            group["lr"] = plan.at("rate", now)
        return Moment(
            eps=plan.at("eps", now),
            kappa=plan.at("kappa", now),
            beta=plan.at("beta", now),
            time=now,
            clip=plan.clip,
            generator=generator(plan.seed, _DRAWS, epoch, step),
            clean=clean,
        )

    def _view(self, moment: Moment) -> Tensor:
        """What the network sees of a batch."""
        assert moment.clean is not None
        seen: object = self.loss.view(moment.clean, moment)
        if not isinstance(seen, Tensor) or seen.ndim < 2 or len(seen) % len(moment.clean):
            raise ArgumentError(
                f"{type(self.loss).__name__}.view must return m * B rows for a batch of B, got "
                f"{tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__}"
            )
        return seen

    def _step(self, x: Tensor, y: Tensor, moment: Moment) -> tuple[float, float, float | None]:
        """One step; mean loss, accuracy and robust fraction of the batch."""
        self.adam.zero_grad()
        seen = self._view(moment)
        y = y.repeat(len(seen) // len(x), *[1] * (y.ndim - 1))
        graph, outputs = self.norms(seen)
        value = checked(self.loss(graph, outputs, seen, y, moment), self.loss)
        total = float(value.total.detach())
        if not math.isfinite(total):
            raise ModelError(
                f"the loss became {total} at eps {moment.eps:.3g}; use a lower learning rate or eps"
            )
        value.total.backward()
        length = nn.utils.clip_grad_norm_(self.parameters, self.plan.gradient_norm)
        if not bool(torch.isfinite(length)):
            raise ModelError("a gradient is not finite; use a lower learning rate or eps")
        statistics = self.norms.moved(graph, len(seen))
        self.adam.step()
        self.norms.settle(statistics)
        right = math.nan
        if self.loss.classifies:
            right = float((outputs.detach().argmax(1) == y).float().mean())
        robust = None if value.robust is None else float(value.robust.float().mean())
        return total, right, robust

    def key(self) -> str:
        """Hashes of everything that decides the result; taken before the first step."""
        return key_of(self.graph, self.still, self.loss, self.plan, self.x, self.y)

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


def _restored(run: _Run, held: State, snapshot: Snapshot) -> list[Epoch]:
    """The epochs that are done; the run goes on after them."""
    try:
        rows = [Epoch(**row) for row in held.rows]
        run.restore(held)
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise FileError(
            f"{snapshot.path} is damaged ({error}); delete it to start again"
        ) from error
    return rows


def _check_types(module: object, loss: object, plan: object, snapshot: object) -> None:
    kinds = {"module": nn.Module, "loss": Loss, "plan": Plan, "snapshot": Snapshot | None}
    given = {"module": module, "loss": loss, "plan": plan, "snapshot": snapshot}
    for name, value in given.items():
        if not isinstance(value, kinds[name]):
            wanted = getattr(kinds[name], "__name__", "Snapshot")
            found = f"the class {value.__name__}" if isinstance(value, type) else repr(value)[:80]
            raise ArgumentError(f"{name} must be an instance of {wanted}, got {found}")


def _labels(y: Tensor, x: Tensor, graph: Graph, loss: Loss) -> Tensor:
    """The labels on the device of x, or whatever the loss takes in their place."""
    if loss.classifies:
        logits(torch.zeros(1, *graph.output_shape), 1)  # its line on shapes that are no logits
        return labels(y, len(x), graph.output_shape[0]).to(x.device)
    if not isinstance(y, Tensor) or y.ndim == 0 or len(y) != len(x):
        found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ArgumentError(
            f"y must be a tensor of {len(x)} rows, got {found}; where the loss looks at none, "
            "hand over torch.zeros(len(x))"
        )
    return y.to(x.device)


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
