"""Lower slopes that every row chooses for itself, improved by gradient steps (alpha-CROWN)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certus.bounding.rows import Rows
from certus.core import ArgumentError
from certus.relax import Lines

# of Adam, with a shorter memory than in training: rows have few steps, and no noise
_BETAS = (0.6, 0.8)
_DECAY = 0.9  # of the rate, each step
_SETTLED = 1e-5  # gain, relative to a bound, below which a step is idle
_IDLE = 4  # idle steps in a row after which a bound is final
_TINY = 1e-7  # of a row's largest gradient
_NOTHING = 1e-30


@dataclass(eq=False)
class Alphas:
    """For every relaxation that leaves its lower slope open: a slope for each row and element.

    A walk asks for them in the layout of its rows; they start as `given`, brought into the relaxation's
    limits, or as its own slopes. shared: all rows of an input use the same ones. keeps: whether `best`
    are wanted, those of the best bound of each row (shared: of the best sum). Source: Xu et al. 2021,
    section 3.1.
    """

    shared: bool = False
    given: Mapping[int, Tensor] = field(default_factory=dict)
    keeps: bool = False
    best: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    limits: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    moments: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _score: Tensor | None = None

    def of(self, position: int, lines: Lines, rows: Rows) -> Tensor | None:
        """The slopes of rows at a node, as they lie beside coefficients; None where none is open."""
        if lines.floor is None or lines.ceiling is None:
            return None
        if position not in self.values:
            many = 1 if self.shared else None
            low, own, high = (
                rows.laid(line).detach() for line in (lines.floor, lines.lower_slope, lines.ceiling)
            )
            start = torch.zeros_like(rows.coefs.detach()[:many]) + own
            if position in self.given:
                start = _within(self.given[position][:many].to(start).expand_as(start), low, high)
            self.values[position] = start.requires_grad_()
            self.limits[position] = low, high
        return self.values[position]

    def keep(self, bounds: Tensor) -> None:
        """Remember the slopes of rows [R, B] that have never had better bounds."""
        score = bounds.sum(0, keepdim=True) if self.shared else bounds
        if self._score is None:
            self._score, self.best = score, {at: v.detach() for at, v in self.values.items()}
            return
        better = score > self._score
        self._score = torch.where(better, score, self._score)
        for at, value in self.values.items():
            wide = better.view(*better.shape, *[1] * (value.ndim - 2))
            self.best[at] = torch.where(wide, value.detach(), self.best[at])

    def improve(self, bounds: Tensor, rate: float) -> None:
        """One step of Adam uphill on lower bounds that a walk made with these slopes."""
        places = list(self.values)
        values = [self.values[i] for i in places]
        gradients = torch.autograd.grad(bounds, values, torch.ones_like(bounds))
        for place, gradient in zip(places, gradients, strict=True):
            first, second = self.moments.get(place, (gradient, gradient.square()))
            if place in self.moments:
                first = first.lerp(gradient, 1 - _BETAS[0])
                second = second.lerp(gradient.square(), 1 - _BETAS[1])
            self.moments[place] = first, second
            move = rate * first / _steadied(second.sqrt())
            with torch.no_grad():
                value = _within(self.values[place] + move, *self.limits[place])
            self.values[place] = value.requires_grad_()


def best_bounds(
    walk: Callable[[Alphas], Tensor], iterations: int, rate: float, alphas: Alphas, enough: float
) -> Tensor:
    """The best lower bound of every row over the start and `iterations` improvements.

    Every iterate is a bound, so the best of them is one. Stops early where all exceed `enough`, or
    where nothing is gained any more.
    """
    if torch.is_inference_mode_enabled():
        raise ArgumentError(
            "alpha-CROWN needs gradients: use torch.no_grad(), not inference_mode()"
        )
    best, idle = torch.empty(0), torch.empty(0)
    for step in range(iterations + 1):
        with torch.enable_grad():
            found = walk(alphas)
        now = found.detach()
        if alphas.keeps:
            alphas.keep(now)
        if step == 0:
            best, idle = now, torch.zeros_like(now)
        # a row that has settled keeps what it has, whatever the rows beside it still gain
        better = torch.where(idle < _IDLE, torch.fmax(best, now), best)
        gained = better - best > _SETTLED * best.abs() if step else torch.ones_like(now) > 0
        best, idle = better, torch.where(gained, torch.zeros_like(idle), idle + 1)
        done = (idle >= _IDLE) | (best > enough)
        if step == iterations or not alphas.values or bool(done.all()):
            break
        alphas.improve(found, rate * _DECAY**step)
    return best


def _within(slopes: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The nearest slopes that a relaxation allows."""
    return torch.minimum(torch.maximum(slopes, low), high)


def _steadied(size: Tensor) -> Tensor:
    """Sizes of gradients [R, B, ...] that may be divided by: none is tiny beside its row's largest.

    Otherwise the sign of a gradient that is zero but for rounding would make a full step.
    """
    largest = size.reshape(*size.shape[:2], -1).amax(2)
    return size + (_TINY * largest + _NOTHING).view(*largest.shape, *[1] * (size.ndim - 2))
