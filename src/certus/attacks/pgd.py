"""PGD: projected gradient steps from the clean input and from random starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from certus.attacks.base import Attack, Classifier, fit
from certus.attacks.fgsm import FULL, free
from certus.attacks.objective import Objective, away, cross_entropy, slope, toward
from certus.core import ArgumentError
from certus.core.numerics import guard
from certus.core.random import per_input
from certus.core.replay import margin
from certus.core.validate import count, positive
from certus.threats import Region


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient descent (Madry et al. 2018) with restarts, for every norm.

    The first restart starts at the clean input, and its first step is FGSM's, so PGD with the
    default step size is never weaker than FGSM. Later ones start at random points of the region,
    drawn from (seed, input id, restart). Objectives take turns: the margin, then (`targeted`) each
    other class, the most likely first, then the cross entropy. step_size is the first step as a
    multiple of the region's radius (None: 2, across the region); steps shrink along a half cosine.
    momentum in [0, 1) adds earlier gradients (Dong et al. 2018). In norms where the best step is
    sparse (L1), steps get sparser as they get shorter (as Croce and Hein 2021). An input that is
    broken leaves the batch at once, so effort goes to those that are not. Raises ArgumentError
    for settings out of range.
    """

    name: ClassVar[str] = "pgd"
    steps: int = 40
    restarts: int = 5
    step_size: float | None = None
    momentum: float = 0.0
    targeted: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        count(self.steps, "steps")
        count(self.restarts, "restarts")
        count(self.seed, "seed", least=0)
        if self.step_size is not None:
            positive(self.step_size, "step_size")
        if not 0 <= self.momentum < 1:
            raise ArgumentError(f"momentum must lie in [0, 1), got {self.momentum!r}")

    def run(
        self, model: Classifier, x: Tensor, y: Tensor, region: Region, ids: Sequence[int]
    ) -> Tensor:
        """For each input the point of smallest margin over all restarts."""
        logits = model(x)
        best = _Best(x, logits, y)
        ranked = logits.scatter(1, y.unsqueeze(1), float("inf")).argsort(1, descending=True)
        for restart in range(self.restarts):
            left = best.unbroken()
            if len(left) == 0:
                break
            objective, rank = self._turn(restart, logits.shape[1])
            task = _Task(model, x, y, ranked[:, rank], region, objective).select(left)
            start = task.x
            if restart > 0:
                keys = [ids[i] for i in left.tolist()]
                start = fit(
                    task.region, start, task.region.sample(per_input(self.seed, keys, restart))
                )
            self._climb(task, start, best, left)
        return best.points

    def _turn(self, restart: int, classes: int) -> tuple[Objective, int]:
        """The objective of a restart, and the rank of the class that it aims at."""
        turns: list[tuple[Objective, int]] = [(away, 1)]
        if self.targeted:
            turns += [(toward, rank) for rank in range(1, classes)]
        turns.append((cross_entropy, 1))
        return turns[restart % len(turns)]

    def _climb(self, task: "_Task", points: Tensor, best: "_Best", left: Tensor) -> None:
        """Ascend from points and tell `best` of each point passed; left are their rows there."""
        memory = torch.zeros_like(points)
        for step in range(self.steps):
            logits, gradient = slope(task.model, points, task.y, task.target, task.objective)
            kept = best.update(left, points, logits)
            if not bool(kept.all()):
                task, left = task.select(kept), left[kept]
                points, memory, gradient = points[kept], memory[kept], gradient[kept]
            if len(left) == 0:
                return
            memory = self.momentum * memory + gradient
            size = (self.step_size or FULL) * (1 + math.cos(math.pi * step / self.steps)) / 2
            move = _thinned(task.region, free(task.region, points, memory), step / self.steps)
            points = fit(task.region, task.x, points + size * move)
        best.update(left, points, task.model(points))


@dataclass(frozen=True, eq=False)
class _Task:
    """What one restart works on; all tensors have one row for each input left."""

    model: Classifier
    x: Tensor
    y: Tensor
    target: Tensor
    region: Region
    objective: Objective

    def select(self, index: Tensor) -> "_Task":
        """Some of the inputs."""
        rows = {name: getattr(self, name)[index] for name in ("x", "y", "target")}
        return replace(self, region=self.region.select(index), **rows)


class _Best:
    """The point of smallest margin seen for each input."""

    def __init__(self, x: Tensor, logits: Tensor, y: Tensor) -> None:
        self.points, self._y = x.clone(), y
        self._margin = margin(logits, y)
        self._broken = torch.zeros_like(y, dtype=torch.bool)

    def update(self, rows: Tensor, points: Tensor, logits: Tensor) -> Tensor:
        """Keep points that are better; bool [len(rows)]: which inputs are still unbroken."""
        margins = margin(logits, self._y[rows])
        better = margins < self._margin[rows]  # False for NaN
        self._margin[rows[better]] = margins[better]
        self.points[rows[better]] = points[better]
        # Broken by more than rounding, so that the replay on the original agrees.
        self._broken[rows] |= margins < -guard(logits).amax(1)
        return ~self._broken[rows]

    def unbroken(self) -> Tensor:
        """Rows of the inputs that still withstand, int64."""
        return (~self._broken).nonzero().squeeze(1)


def _thinned(region: Region, gradient: Tensor, progress: float) -> Tensor:
    """The steepest displacement; where it is sparse, on fewer elements as progress goes 0 to 1/2.

    A sparse step shared by k elements treats them alike and so never settles on the best of them;
    k shrinks geometrically to 1 while the size stays.
    """
    move = region.steepest(gradient).flatten(1)
    gain = (gradient * (region.upper - region.lower)).flatten(1).abs()
    support = (move != 0).sum(1, keepdim=True)
    sparse = support < (gain > 0).sum(1, keepdim=True)
    if progress == 0 or not bool(sparse.any()):
        return move.view_as(gradient)
    keep = support.double().pow(max(0.0, 1 - 2 * progress)).round().long().clamp(min=1)
    floor = gain.sort(1, descending=True).values.gather(1, keep - 1)
    thin = torch.where(gain >= floor, move, 0.0)
    thin = thin * support / (thin != 0).sum(1, keepdim=True).clamp(min=1)
    return torch.where(sparse, thin, move).view_as(gradient)
