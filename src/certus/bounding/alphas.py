"""Lower slopes that every row chooses for itself, improved by gradient steps (alpha-CROWN)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.relax import Lines

# of Adam, with a shorter memory than in training: rows have few steps, and no noise
_BETAS = (0.6, 0.8)
_DECAY = 0.9  # of the rate, each step
_SETTLED = 1e-5  # gain, relative to a bound, below which two steps in a row end the search


@dataclass(eq=False)
class Alphas:
    """For every relaxation that leaves its lower slope open: a slope for each row and element.

    A walk asks for them in the layout of its rows; they start as the relaxation's own slopes.
    shared: all rows of an input use the same ones. Source: Xu et al. 2021, section 3.1.
    """

    shared: bool = False
    values: dict[int, Tensor] = field(default_factory=dict)
    limits: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    moments: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    steps: int = 0

    def of(
        self, position: int, lines: Lines, rows: Tensor, lay: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Slopes for rows [R, B, ...]; `lay` brings a tensor of the relaxation into the form [B, ...]."""
        if position not in self.values:
            assert lines.floor is not None and lines.ceiling is not None
            like = rows.detach()[: 1 if self.shared else None]
            start = torch.zeros_like(like) + lay(lines.lower_slope).detach()
            self.values[position] = start.requires_grad_()
            self.limits[position] = lay(lines.floor).detach(), lay(lines.ceiling).detach()
        return self.values[position]

    def improve(self, bounds: Tensor, rate: float) -> None:
        """One step of Adam uphill on lower bounds that a walk made with these slopes."""
        places = list(self.values)
        values = [self.values[i] for i in places]
        gradients = torch.autograd.grad(bounds, values, torch.ones_like(bounds))
        self.steps += 1
        for place, gradient in zip(places, gradients, strict=True):
            first, second = self.moments.get(place, (gradient, gradient.square()))
            if place in self.moments:
                first = first.lerp(gradient, 1 - _BETAS[0])
                second = second.lerp(gradient.square(), 1 - _BETAS[1])
            self.moments[place] = first, second
            move = rate * first / second.sqrt().add_(1e-12)
            with torch.no_grad():
                low, high = self.limits[place]
                value = torch.minimum(torch.maximum(self.values[place] + move, low), high)
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
    best: Tensor | None = None
    idle = 0
    for step in range(iterations + 1):
        with torch.enable_grad():
            found = walk(alphas)
        now = found.detach()
        before, best = best, now if best is None else torch.fmax(best, now)
        gained = before is None or bool((best - before > _SETTLED * best.abs()).any())
        idle = 0 if gained else idle + 1
        if step == iterations or idle == 2 or not alphas.values or bool((best > enough).all()):
            break
        alphas.improve(found, rate * _DECAY**step)
    assert best is not None
    return best
